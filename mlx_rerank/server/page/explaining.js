// Which words count: asked of the server for one document at a time, shown in its text, and hidden again.

import { askPatiently, inWords } from "./server.js";
import { create, isLong, showText, signed } from "./texts.js";

const NAMED = 5; // words of a text that are named below it
const LONG_NAME = 40; // characters; a sentence that was weighed as a whole is named by its beginning

let asking = new AbortController(); // of all that is asked about the rankings that are shown

/** Ask nothing more about the rankings that are shown: others will take their place. */
export function forget() {
  asking.abort();
  asking = new AbortController();
}

/** Have a document's button show the weights of its words, which are asked for once, and hide them. */
export function makeExplainable(part, job, model, result) {
  const text = job.texts[result.index];
  let answer = null;
  part.explain.addEventListener("click", async () => {
    if (part.explain.ariaDisabled === "true") return;
    if (part.explain.ariaExpanded === "true") return hide(part, text, result);
    answer ??= await find(part, job, model, text);
    if (answer) reveal(part, job.query, text, answer);
  });
}

function label(button, text = "Which words count?", { busy = false, expanded = false } = {}) {
  button.textContent = text;
  button.ariaDisabled = String(busy); // not disabled, which would take the focus away
  button.ariaExpanded = String(expanded);
}

/** Return the server's answer, or say beside the document why there is none. */
async function find(part, { query, windows }, model, text) {
  const body = { ...(model && { model }), query, document: text, ...(windows && { long_documents: "windows" }) };
  const say = (words) => (part.named.textContent = words);
  label(part.explain, "Weighing the words …", { busy: true });
  part.problem.hidden = true;
  part.named.hidden = false; // a screen reader says what a place that it knows is filled with
  say("");
  try {
    return (await askPatiently("explain", body, asking.signal, say)).answer;
  } catch (error) {
    label(part.explain);
    part.named.hidden = true;
    part.problem.textContent = inWords(error);
    part.problem.hidden = error.name === "AbortError";
    return null;
  }
}

function reveal(part, query, text, answer) {
  const { span: [begin, end], query: asked, document: read } = answer;
  label(part.explain, "Hide the weights", { expanded: true });
  part.text.classList.add("explained");
  showText(part.text, text, answer, read);
  showText(part.query, query, { span: [0, [...query].length], truncated_tokens: 0 }, asked);
  part.logit.textContent = signed(answer.logit);
  part.named.replaceChildren(strongest("In the document", text, read), strongest("In the query", query, asked));
  part.question.hidden = part.legend.hidden = part.named.hidden = false;
  part.fold.hidden = !isLong(text) || end - begin === [...text].length; // nothing is left to be shown
}

function hide(part, text, result) {
  label(part.explain);
  part.text.classList.remove("explained");
  showText(part.text, text, result);
  part.question.hidden = part.legend.hidden = part.named.hidden = true;
  part.fold.hidden = !isLong(text);
}

/** The strongest words of a text, whichever way they count, with their weights. */
function strongest(where, text, weights) {
  const letters = [...text];
  const byWeight = [...weights].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  const words = byWeight.slice(0, NAMED).map(({ start, end, weight }) => {
    const word = create("bdi", "", shortened(letters.slice(start, end)));
    word.lang = "";
    return create("span", "", word, `\u00a0${signed(weight)}`);
  });
  if (!words.length) words.push("no word was read");
  return create("span", "", `${where}: `, ...words.flatMap((word, i) => (i ? [", ", word] : [word])));
}

/** A word without the punctuation around it, or the beginning of a sentence. */
function shortened(letters) {
  if (letters.length > LONG_NAME) return `${letters.slice(0, LONG_NAME).join("").trim()}…`;
  const word = letters.join("");
  return word.replace(/^\p{P}+|\p{P}+$/gu, "") || word;
}
