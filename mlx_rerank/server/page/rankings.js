// Showing rankings: one list, or two side by side with what differs between them.

import { curl, makeCopying, table } from "./copying.js";
import { makeExplainable } from "./explaining.js";
import { bodyOf, hasKey } from "./server.js";
import { makeFoldable, showText } from "./texts.js";

export const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

/** Milliseconds, or seconds where there are many. */
export function duration(time) {
  if (Math.round(time) >= 1000) return `${(time / 1000).toFixed(1)} s`;
  return `${time < 10 ? Number(time.toFixed(1)) : Math.round(time)} ms`;
}

/** What a model is, as far as it is known, in words. */
export const described = ({ dtype, device, max_length: limit } = {}) =>
  [dtype, device, limit && `up to ${limit} tokens`].filter(Boolean).join(", ");

const element = (id) => document.getElementById(id);
let shown = null; // the job and its rankings

makeCopying(element("copy-results"), () => table(shown.job, shown.rankings));
makeCopying(element("copy-curl"), () =>
  curl("rerank", bodyOf(shown.rankings[0].asked, shown.job), { needsKey: hasKey() }));

/** A copy of a template, and its named parts. */
function copyOf(template) {
  const copy = element(template).content.firstElementChild.cloneNode(true);
  const parts = [...copy.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]);
  return { copy, ...Object.fromEntries(parts) };
}

function setText(part, text) {
  part.textContent = text;
  part.hidden = !text;
}

/** Show what a job's texts were ranked like, by one model or by two. */
export function show(job, rankings) {
  for (const ranking of rankings) ranking.places = placesIn(ranking.results);
  const scores = rankings.flatMap(({ results }) => results.map((result) => result.relevance_score));
  const range = job.raw ? { low: min(scores), high: max(scores) } : { low: 0, high: 1 };
  element("nothing").hidden = true;
  element("copies").hidden = false;
  setText(element("asked"), job.query);
  setText(element("agreement"), rankings.length > 1 ? agreement(rankings[0].places, rankings[1].places) : "");
  shown = { job, rankings };
  const parts = rankings.map((ranking, i) => showRanking(job, ranking, range, rankings[1 - i], i === 1));
  element("rankings").replaceChildren(...parts);
}

/** Where each document stands, and with which score, by its index. */
const placesIn = (results) =>
  new Map(results.map((result, i) => [result.index, { rank: i + 1, score: result.relevance_score }]));

// Not Math.max(...scores): there may be more scores than a call takes arguments.
const min = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const max = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

/** Show a ranking; `other` is the one beside it, if any, and the second of two says what differs from the first. */
function showRanking(job, ranking, range, other, isSecond) {
  const part = copyOf("ranking-template");
  part.model.textContent = ranking.name || "The server’s model";
  setText(part.about, [ranking.about, isSecond && `compared with ${other.name}`].filter(Boolean).join("; "));
  part.times.append(...times(ranking).map(showTime));
  const cut = ranking.results.filter((result) => result.truncated_tokens > 0).length;
  part.truncated.textContent = `${cut} of ${plural(ranking.results.length, "document")} not read in full.`;
  part.cut.hidden = !cut;
  part.windows.hidden = job.windows;
  for (const result of ranking.results) {
    const item = showDocument(job, ranking, result, range);
    const [here, there] = [ranking, other].map((one) => one?.places.get(result.index));
    if (isSecond) showChange(item, there, here, job.raw);
    else if (other) showRankThere(item, here, there, other.name);
    part.list.append(item.copy);
  }
  return part.copy;
}

function times({ headers, roundTrip }) {
  const timed = (label, name) => headers.get(name) !== null && [label, duration(Number(headers.get(name)))];
  return [
    ["round trip", duration(roundTrip)],
    timed("in the server", "x-total-time"),
    timed("queue", "x-queue-time"),
    timed("model", "x-inference-time"),
    headers.get("x-compute-tokens") !== null && ["tokens computed", headers.get("x-compute-tokens")],
  ].filter(Boolean);
}

function showTime([label, value]) {
  const [group, term, detail] = ["div", "dt", "dd"].map((name) => document.createElement(name));
  term.textContent = label;
  detail.textContent = value;
  group.append(term, detail);
  return group;
}

function showDocument(job, ranking, result, range) {
  const part = copyOf("document-template");
  const { rank, score } = ranking.places.get(result.index);
  const text = job.texts[result.index];
  part.copy.dataset.index = result.index;
  part.rank.textContent = rank;
  part.score.textContent = number(score, job.raw);
  const share = range.high > range.low ? (score - range.low) / (range.high - range.low) : 1;
  part.bar.style.inlineSize = `${Math.max(share * 100, 0.5)}%`; // the least one stays visible
  showText(part.text, text, result);
  part.facts.textContent = facts(result, text);
  setText(part.notice, truncation(result));
  makeFoldable(part, text);
  makeExplainable(part, job, ranking.name, result);
  return part;
}

function number(score, raw) {
  const digits = raw ? 3 : 4;
  const text = score && Math.abs(score) < 10 ** -digits / 2 ? score.toExponential(1) : score.toFixed(digits);
  return text.replaceAll("-", "−");
}

function facts({ index, tokens, truncated_tokens: lost, span: [begin, end] }, text) {
  const read = lost ? "read" : end - begin === [...text].length ? "· read in full" : "· read in windows";
  const best = read.endsWith("windows") ? `; the best, which stands out, has characters ${begin + 1} to ${end}` : "";
  return `Document ${index + 1} · ${plural(tokens, "token")} ${read}${best}`;
}

function truncation({ truncated_tokens: lost, share_read: share }) {
  if (!lost) return "";
  const percent = share > 0 && share < 0.01 ? "less than 1" : Math.floor(share * 100); // never 100 of what was cut
  const read = share < 1 ? `${percent}% of this document was read.` : "The query was cut; the document was read.";
  return `Truncated: ${plural(lost, "token")} not read. ${read}`;
}

function showChange(part, before, after, raw) {
  const places = before.rank - after.rank;
  const moved = `${places > 0 ? "up" : "down"} ${Math.abs(places)} from ${before.rank}`;
  part.moved.textContent = places ? moved : "same rank";
  part.moved.classList.toggle("moved", places !== 0);
  const [difference, word] = [after.score - before.score, raw ? "logit" : "score"];
  const size = `${difference < 0 ? "−" : "+"}${number(Math.abs(difference), raw)}`;
  part.difference.textContent = difference ? ` · ${word} ${size}` : ` · same ${word}`;
  part.change.hidden = false;
}

function showRankThere(part, here, there, name) {
  part.moved.textContent = `rank ${there.rank} with ${name}`;
  part.moved.classList.toggle("moved", there.rank !== here.rank);
  part.change.hidden = false;
}

// ---- Two rankings

/** Kendall's tau-b of two rankings' scores, and how many pairs of documents stand in the same order. */
function agreement(first, second) {
  const scores = [...first].map(([index, { score }]) => [score, second.get(index).score]);
  let [same, swapped, tiedFirst, tiedSecond] = [0, 0, 0, 0];
  for (let i = 0; i < scores.length; i += 1) {
    for (let j = 0; j < i; j += 1) {
      const a = Math.sign(scores[i][0] - scores[j][0]);
      const b = Math.sign(scores[i][1] - scores[j][1]);
      if (a * b > 0) same += 1;
      else if (a * b < 0) swapped += 1;
      else if (a || b) a ? (tiedSecond += 1) : (tiedFirst += 1);
    }
  }
  const ordered = same + swapped;
  const tau = (same - swapped) / Math.sqrt((ordered + tiedFirst) * (ordered + tiedSecond));
  if (!Number.isFinite(tau)) return "Kendall’s tau is not defined: there are no two documents with different scores.";
  return `Kendall’s tau ${tau.toFixed(3)}: ${same} of ${plural(ordered, "pair")} of documents in the same order.`;
}

/** Mark the document under the pointer in both rankings. */
export function markBoth(event) {
  const index = event.type === "pointerover" ? event.target.closest("li")?.dataset.index : undefined;
  for (const item of element("rankings").querySelectorAll("li")) {
    item.classList.toggle("marked", item.dataset.index === index);
  }
}
