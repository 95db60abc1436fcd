// The page of `mlx-rerank serve`: texts in, a ranking out, or two of them side by side.

import { address, makeCopying } from "./copying.js";
import { documentsIn, textOfFiles } from "./documents.js";
import { forget } from "./explaining.js";
import { keep, restore } from "./keeping.js";
import { described, duration, markBoth, plural, show } from "./rankings.js";
import { ask, askPatiently, askText, bodyOf, hasKey, inWords, setKey } from "./server.js";

const element = (id) => document.getElementById(id);
const models = new Map(); // what GET /v1/models said last, by name
let current = null; // AbortController of the newest ranking; an older one may no longer write anything
let filled = ""; // the documents that a button has written
let rankAfterKey = false; // whether a ranking waits for a key

// ---- Texts

const chosenSeparator = () => document.querySelector("[name=separator]:checked").value;

const readDocuments = () => documentsIn(element("documents").value, chosenSeparator());

/** Show how many documents there are, and keep them. */
function takeIn() {
  const { texts, isJson } = readDocuments();
  const number = plural(texts.length, "document") + (isJson ? " in JSON" : "");
  element("count").textContent = texts.length ? number : "none yet";
  element("separators").disabled = isJson;
  keep();
}

/** Put texts into the form. */
function fillIn({ query, texts, separator }) {
  keepOwn();
  filled = texts;
  element("query").value = query;
  element("documents").value = texts;
  document.querySelector(`[name=separator][value=${separator}]`).checked = true;
  takeIn();
}

/** Take the documents of files, instead of those that are there. */
async function takeFiles(files) {
  if (!files.length) return;
  try {
    const texts = await textOfFiles(files, chosenSeparator());
    fillIn({ query: element("query").value, texts, separator: chosenSeparator() });
    filled = ""; // they are the person's own
    markField("documents", "");
  } catch (error) {
    markField("documents", error.message);
  }
}

/** Say at the field what is wrong with it, or nothing with an empty message. */
function markField(id, message) {
  element(`${id}-error`).textContent = message;
  element(`${id}-error`).hidden = !message;
  element(id).setAttribute("aria-invalid", String(Boolean(message)));
}

/** Whether there is something to rank; otherwise the first wrong field is named and focused. */
function isComplete(query, { texts, problem }) {
  const wrong = problem || (texts.length ? "" : "Add at least one document.");
  markField("query", query ? "" : "Write a query: the question that the documents should answer.");
  markField("documents", wrong);
  if (!query) element("query").focus();
  else if (wrong) element("documents").focus();
  return Boolean(query) && !wrong;
}

// ---- Models

async function loadModels() {
  const { answer } = await ask("v1/models");
  models.clear();
  for (const model of answer.data) models.set(model.id, model);
  fillModels(element("model"), []);
  fillModels(element("other"), [new Option("nothing", "")]);
  element("other").disabled = models.size < 2;
  element("other-note").hidden = models.size > 1;
}

function fillModels(select, first) {
  const options = [...models.values()].map((model) => {
    const about = described(model);
    return new Option(about ? `${model.id} (${about})` : model.id, model.id);
  });
  const chosen = select.value;
  select.replaceChildren(...first, ...options);
  if (chosen === "" || models.has(chosen)) select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

// ---- Ranking

/** Say what is going on; what was said already is not announced again. */
function say(message) {
  if (element("status").textContent !== message) element("status").textContent = message;
}

async function rank() {
  const [raw, windows] = [element("raw").checked, element("windows").checked];
  const [query, given] = [element("query").value.trim(), readDocuments()];
  if (!isComplete(query, given)) return;
  const job = { query, texts: given.texts, raw, windows };
  current?.abort();
  forget();
  const mine = (current = new AbortController());
  const focused = document.activeElement;
  setBusy(true);
  try {
    const rankings = await rankWithEach(job, mine);
    if (mine === current) finish(job, rankings, focused);
  } catch (error) {
    if (mine === current) report(error);
  } finally {
    if (mine === current) setBusy(false);
  }
}

/** One model after the other, so that neither waits in the queue behind the other and the times compare. */
async function rankWithEach(job, mine) {
  const rankings = [];
  const names = [element("model").value, element("other").value].filter((name, i) => name || i === 0);
  for (const name of names) {
    say(`Ranking ${plural(job.texts.length, "document")}${name && ` with ${name}`} …`);
    rankings.push(await rankWith(name, job, mine.signal));
    if (mine !== current) break;
    show(job, rankings);
  }
  return rankings;
}

async function rankWith(name, job, signal) {
  const start = performance.now();
  const { answer, headers } = await askPatiently("rerank", bodyOf(name, job), signal, say);
  const roundTrip = performance.now() - start;
  if (name && !models.get(name)?.device) await loadModels().catch(() => {}); // known now that it is loaded
  const about = described(models.get(name));
  return { name: answer.model ?? name, asked: name, about, results: answer.results, headers, roundTrip };
}

function finish(job, rankings, focused) {
  const time = rankings.reduce((sum, { roundTrip }) => sum + roundTrip, 0);
  const names = rankings.map(({ name }) => name).join(" and ");
  say(`Ranked ${plural(job.texts.length, "document")} with ${names} in ${duration(time)}.`);
  // Not if the person has gone elsewhere meanwhile.
  if ([focused, element("cancel"), document.body].includes(document.activeElement)) element("results-heading").focus();
}

function report(error) {
  say(error.name === "AbortError" ? "Cancelled." : "");
  if (error.name === "AbortError") return;
  if (error.status === 401) return askForKey(true);
  element("error").textContent = inWords(error);
  element("error").scrollIntoView({ block: "nearest" });
}

function setBusy(busy) {
  element("rankings").setAttribute("aria-busy", String(busy));
  if (busy) element("error").textContent = "";
  if (!busy && document.activeElement === element("cancel")) element("rank").focus();
  element("cancel").hidden = !busy;
}

// ---- The API key

function askForKey(toRank) {
  rankAfterKey = toRank;
  element("key-reason").textContent = hasKey() ? "The server does not know this key." : "This server asks for a key.";
  element("key-form").hidden = false;
  element("key").focus();
}

async function useKey(event) {
  event.preventDefault(); // it is sent as a header, never in an address
  setKey(element("key").value.trim());
  element("key").value = "";
  element("key-form").hidden = true;
  element("rank").focus();
  await start();
  if (rankAfterKey && element("key-form").hidden) await rank();
}

// ---- Examples

function addExamples() {
  for (const example of element("example-texts").content.children) {
    const paragraphs = [...example.children].map((text) => text.textContent.trim().replace(/\s+/g, " "));
    const separator = example.dataset.separator ?? "line";
    const texts = paragraphs.join(separator === "line" ? "\n" : "\n\n");
    addExample(example.dataset.name, { query: example.dataset.query, texts, separator });
  }
}

function addExample(name, example) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = name;
  button.addEventListener("click", () => {
    fillIn(example);
    rank();
  });
  element("examples").append(button);
  return button;
}

/** Offer the person's own texts, which an example is about to replace, beside the examples. */
function keepOwn() {
  const texts = element("documents").value;
  if (!texts.trim() || texts === filled) return;
  element("own")?.remove();
  addExample("Your texts", { query: element("query").value, texts, separator: chosenSeparator() }).id = "own";
}

// ---- Metrics

/** Show what the server counts, which it tells nobody without the key, and hide it again. */
async function toggleMetrics() {
  const [button, shown] = [element("show-metrics"), element("metrics")];
  shown.textContent = "";
  shown.hidden = button.ariaExpanded === "true";
  if (!shown.hidden) {
    try {
      shown.textContent = (await askText("metrics")).text;
    } catch (error) {
      shown.textContent = inWords(error);
      shown.hidden = error.status === 401;
      if (shown.hidden) askForKey(rankAfterKey);
    }
  }
  button.ariaExpanded = String(!shown.hidden);
}

// ---- Beginning

async function start() {
  try {
    await loadModels();
  } catch (error) {
    if (error.status === 401) askForKey(rankAfterKey);
    else report(error);
  }
}

element("rank-form").addEventListener("submit", (event) => {
  event.preventDefault();
  rank();
});
element("rank-form").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  rank();
});
element("rank-form").addEventListener("input", (event) => {
  if (event.target.id === "file") return;
  takeIn();
  if (event.target.value && event.target.ariaInvalid === "true") markField(event.target.id, "");
});
element("cancel").addEventListener("click", () => current?.abort());
element("key-form").addEventListener("submit", useKey);
element("rankings").addEventListener("pointerover", markBoth);
element("rankings").addEventListener("pointerleave", markBoth);
element("rankings").addEventListener("click", (event) => {
  if (event.target.dataset.part !== "windows") return;
  element("windows").checked = true;
  takeIn();
  rank();
});
element("file").addEventListener("change", async ({ target }) => {
  await takeFiles(target.files);
  target.value = ""; // so that the same file can be chosen again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // else the browser leaves the page for the file
    element("documents").classList.toggle("awaits", kind === "dragover");
    if (kind === "drop") takeFiles(event.dataTransfer.files);
  });
}
element("show-metrics").addEventListener("click", toggleMetrics);
element("address").textContent = address("rerank");
makeCopying(element("copy-address"), () => address("rerank"));
addExamples();
restore();
takeIn();
start();
