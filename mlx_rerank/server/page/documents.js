// Which documents a person gave: JSON, pasted or in a file, or text with a document a line or a paragraph.

const TEXT_FIELDS = ["text", "content", "document", "passage", "body", "page_content"]; // the command line's
const LIST_FIELDS = ["documents", "texts"]; // of a request that was pasted whole
const LOOKS_LIKE_JSON = /^\s*\[\s*["{][^]*\]\s*$/;
const LARGEST_FILE = 32 * 1024 ** 2; // bytes

/** The documents in a text, whether they came from JSON, and why they cannot be used, if they cannot. */
export function documentsIn(text, separator) {
  const items = itemsIn(text);
  if (!items) {
    const parts = text.split(separator === "line" ? "\n" : /\n(?:[^\S\n]*\n)+/);
    const isBroken = LOOKS_LIKE_JSON.test(text) && parsed(text) === undefined;
    const problem = isBroken ? "This looks like JSON, but cannot be read as such." : "";
    return { texts: parts.map((part) => part.trim()).filter(Boolean), isJson: false, problem };
  }
  const texts = items.map(textOf);
  const bad = texts.indexOf(undefined);
  const problem = bad < 0 ? "" : `Item ${bad + 1} of the JSON is neither a text nor an object with “text”.`;
  return { texts: texts.filter((part) => part !== undefined), isJson: true, problem };
}

/** The items of a list, of a request or of JSON Lines; null of any other text. */
function itemsIn(text) {
  if (!/^\s*[[{]/.test(text)) return null;
  const whole = parsed(text);
  const list = Array.isArray(whole) ? whole : LIST_FIELDS.map((name) => whole?.[name]).find(Array.isArray);
  if (list) return !list.length || list.some((item) => typeof item === "string" || isObject(item)) ? list : null;
  const rows = text.split("\n").filter((line) => line.trim()).map(parsed);
  if (rows.every((row) => textOf(row) !== undefined)) return rows;
  return textOf(whole) === undefined ? null : [whole];
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function textOf(item) {
  if (typeof item === "string") return item;
  return isObject(item) ? TEXT_FIELDS.map((name) => item[name]).find((value) => typeof value === "string") : undefined;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What the field is to hold of files: the text of a single one, or a list of the documents of several. */
export async function textOfFiles(files, separator) {
  const texts = await Promise.all([...files].map(textOfFile));
  if (texts.length === 1) return texts[0];
  const documents = texts.flatMap((text, i) => {
    const { texts: found, problem } = documentsIn(text, separator);
    if (problem) throw new Error(`${files[i].name}: ${problem}`);
    return found;
  });
  return JSON.stringify(documents, null, 1);
}

async function textOfFile(file) {
  const { name, size } = file;
  if (/\.[ct]sv$/i.test(name)) throw new Error(`${name} is a table: give it to mlx-rerank rank, which reads these.`);
  if (size > LARGEST_FILE) throw new Error(`${name} has more than 32 MB: give it to mlx-rerank rank.`);
  const bytes = await file.arrayBuffer().catch(() => null);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes ?? new Uint8Array([0]));
    if (!text.includes("\0")) return text.replace(/\r\n?/g, "\n");
  } catch {
    // said below
  }
  throw new Error(`${name} cannot be read as text in UTF-8.`);
}
