// What can be taken along: the results, the request as a curl line, the address.

import { create } from "./texts.js";

/** An address of the server in full, below whatever prefix a proxy gives it. */
export const address = (path) => new URL(path, document.baseURI).href;

/** Have a button copy what a function returns, and say so. */
export function makeCopying(button, text) {
  button.addEventListener("click", async () => {
    const status = document.getElementById("status");
    status.textContent = ""; // the same words twice would not be announced
    const copied = await copy(text());
    button.focus();
    status.textContent = copied ? `Copied: ${button.dataset.what}.` : "The browser does not let this page copy.";
  });
}

/** Copy a text; over HTTP from another machine, browsers have only the old way. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = create("textarea", "unseen");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** Rankings as a table for a spreadsheet: tabs between, a document a line. */
export function table({ texts }, rankings) {
  const rows = rankings.flatMap(({ name, results }) =>
    results.map(({ index, relevance_score: score }, i) => [name, i + 1, score, index + 1, inCell(texts[index])]));
  return [["model", "rank", "score", "document", "text"], ...rows].map((row) => row.join("\t")).join("\n");
}

/** A text on one line, which a spreadsheet does not take for a formula. */
const inCell = (text) => text.replace(/\s+/g, " ").replace(/^[=+\-@]/, "'$&");

/** A line for a shell that sends a request; a key is taken from the environment, and not shown. */
export function curl(path, body, { needsKey }) {
  const key = needsKey ? ' -H "Authorization: Bearer $MLX_RERANK_API_KEY"' : "";
  return `curl ${quoted(address(path))} -H 'Content-Type: application/json'${key} -d ${quoted(JSON.stringify(body))}`;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
