// Showing a text: what was not read of it, its best window, and its words by weight.
// Texts are inserted as text alone: markup in a document stays what it is.

const LONG_TEXT = 280; // characters; longer texts are folded to three lines, which they always fill
const STRONG = 0.5; // logits; a text whose words all weigh less is shown paler

export const isLong = (text) => text.length > LONG_TEXT || text.split("\n").length > 3;

/** A weight with its sign, and no minus before zero. */
export const signed = (weight) => `+${weight.toFixed(2)}`.replace("+-0.00", "+0.00").replace("+-", "−");

export function create(tag, className, ...pieces) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...pieces);
  return element;
}

/** Show a text: grey where it was not read, and set off either its best window or, where they are known, its words. */
export function showText(part, text, { span: [begin, end], truncated_tokens: lost }, weights) {
  const letters = [...text]; // spans count characters, not JavaScript's units
  const piece = (from, to) => letters.slice(from, to).join("");
  const isWindow = !lost && !weights && end - begin < letters.length;
  part.replaceChildren(
    create("span", "before", piece(0, begin)),
    create(isWindow ? "mark" : "span", "read", ...weighed(piece, weights ?? [], begin, end)),
    create("span", lost ? "after unread" : "after", piece(end)),
  );
}

/** What was read, with its words marked: the stronger, the more opaque. */
function weighed(piece, weights, begin, end) {
  const scale = Math.max(STRONG, ...weights.map(({ weight }) => Math.abs(weight)));
  const pieces = [];
  let reached = begin;
  for (const { start, end: stop, weight, part } of weights) {
    const mark = create("mark", signed(weight).startsWith("−") ? "lowers" : "raises", piece(start, stop));
    mark.style.setProperty("--share", Math.abs(weight) / scale);
    mark.title = signed(weight) + (part ? ", as a whole" : "");
    pieces.push(piece(reached, start), mark);
    reached = stop;
  }
  return [...pieces, piece(reached, end)];
}

/** Fold a text if it is long: to three lines, or to what was read while its words are marked. */
export function makeFoldable(part, text) {
  if (!isLong(text)) return;
  part.text.classList.add("folded");
  part.fold.hidden = false;
  part.fold.addEventListener("click", () => {
    const folded = part.text.classList.toggle("folded");
    part.fold.setAttribute("aria-expanded", String(!folded));
    part.fold.textContent = folded ? "Show all of it" : "Show less";
  });
}
