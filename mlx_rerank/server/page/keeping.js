// What was written stays when the page is loaded again, until its tab is closed. The key is not among it.

const INPUT = "mlx-rerank-input";
const FIELDS = ["query", "documents", "model", "other", "raw", "windows"];

const element = (id) => document.getElementById(id);
const separators = () => [...document.querySelectorAll("[name=separator]")];

/** What keeps it; nothing where a browser is told to keep nothing. */
function storage() {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

/** Keep what the form holds now. */
export function keep() {
  const kept = Object.fromEntries(FIELDS.map((id) => [id, read(element(id))]));
  kept.separator = separators().find(({ checked }) => checked).value;
  try {
    storage()?.setItem(INPUT, JSON.stringify(kept));
  } catch {
    storage().removeItem(INPUT); // more than a browser keeps; better nothing than what was there before
  }
}

/** Put back what was kept. */
export function restore() {
  const kept = JSON.parse(storage()?.getItem(INPUT) ?? "null");
  if (!kept) return;
  for (const id of FIELDS) write(element(id), kept[id]);
  for (const separator of separators()) separator.checked = separator.value === kept.separator;
}

const read = (field) => (field.type === "checkbox" ? field.checked : field.value);

function write(field, value) {
  if (field.type === "checkbox") field.checked = value;
  else if (field.matches("select") && value) field.add(new Option(value, value, true, true)); // until models are known
  else field.value = value;
}
