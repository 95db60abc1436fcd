"""What an explained score is, and how it looks: an HTML fragment, or text on a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from mlx_rerank.pairs.arguments import require_whole_number

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

_STRONG = 0.5  # logits; a text whose words all have less is shown paler
_OPACITY = 0.6  # of the strongest word's background: its letters stay readable, dark or light
_RAISES = "rgb(var(--mlx-rerank-raises,46 160 67)/{opacity})"
_LOWERS = "rgb(var(--mlx-rerank-lowers,219 68 55)/{opacity})"
_MARK = "background:{colour};color:inherit;border-radius:2px"
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;margin:.4em 0"
_STYLES = {  # on a terminal: least share of the strongest weight, style of what raises the score, of what lowers it
    0.6: ("bold black on green", "bold white on red underline"),
    0.3: ("bold green", "bold red underline"),
    0.1: ("green", "red underline"),
}
_NAMED = 5  # words named below a text on a terminal


@dataclass(frozen=True)
class Highlight:
    """A word, and what it did to the score.

    Args:
        start: its first character's place in the text.
        end: the place after its last one.
        weight: in logits, how much the logit falls when it is hidden; negative where it rises.
        part: whether it is several words that were weighed as a whole, not word by word.
    """

    start: int
    end: int
    weight: float
    part: bool = False


@dataclass(frozen=True)
class Explanation:
    """A pair's score, and which words carried it. Printed with rich, or as a notebook's value, it is shown in colour.

    Args:
        query: what was asked.
        document: what was scored.
        score: in 0..1.
        logit: the score is its sigmoid. Weights do not add up to it: if two words say the same, the logit falls little
            without either.
        query_highlights: the query's words, in its order, none overlapping.
        document_highlights: the document's.
        truncated_tokens: tokens of both that the model did not see.
        span: the characters of the document that were read, or those of the best window.
    """

    query: str
    document: str
    score: float
    logit: float
    query_highlights: tuple[Highlight, ...]
    document_highlights: tuple[Highlight, ...]
    truncated_tokens: int
    span: tuple[int, int]

    def top(self, n: int) -> list[Highlight]:
        """Return the n highlights of the document that raise the score most, the strongest first; fewer if fewer do.

        Raises:
            InputError: n is not a whole number of at least 1.
        """
        require_whole_number("n", n)
        raising = [highlight for highlight in self.document_highlights if highlight.weight > 0]
        return sorted(raising, key=lambda highlight: -highlight.weight)[:n]

    def to_html(self) -> str:
        """Return an HTML fragment without scripts or style sheets, for light and dark pages.

        What raises the score has a green background, what lowers it a red one and a dashed line below; the stronger,
        the more opaque. A page may set its own colours, as "R G B": --mlx-rerank-raises and --mlx-rerank-lowers. What
        was not read is pale. The texts are in the elements with a data-text attribute, character for character.
        """
        query = _html(self.query, self.query_highlights, (0, len(self.query)))
        document = _html(self.document, self.document_highlights, self.span)
        return (
            '<div class="mlx-rerank-explanation">'
            f"<div>{escape(self._summary())}</div>"
            f'<div data-text="query" dir="auto" style="{_TEXT};font-weight:bold">{query}</div>'
            f'<div data-text="document" dir="auto" style="{_TEXT}">{document}</div>'
            "</div>"
        )

    _repr_html_ = to_html  # what notebooks ask for

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        """Yield what rich prints: the score, both texts, and the words that raise the score most."""
        from rich.text import Text

        yield Text(self._summary(), style="bold")
        yield _rich(self.query, self.query_highlights, (0, len(self.query)))
        yield _rich(self.document, self.document_highlights, self.span)
        named = [f"{_plain(self.document[h.start : h.end])} {_signed(h.weight)}" for h in self.top(_NAMED)]
        if named:
            yield Text("  ".join(named), style="dim")

    def _summary(self) -> str:
        """Return the line above the texts."""
        unread = f", {self.truncated_tokens} tokens not read" if self.truncated_tokens else ""
        return f"score {self.score:.4f}, logit {_signed(self.logit)}{unread}"


def _html(text: str, highlights: Sequence[Highlight], span: tuple[int, int]) -> str:
    """Return a text with its words marked, and what is outside the span pale."""
    scale = _scale(highlights)
    pieces, reached = [_unread(text[: span[0]])], span[0]
    for highlight in highlights:
        pieces.append(escape(text[reached : highlight.start]))
        pieces.append(_mark(text[highlight.start : highlight.end], highlight, scale))
        reached = highlight.end
    return "".join([*pieces, escape(text[reached : span[1]]), _unread(text[max(reached, span[1]) :])])


def _mark(word: str, highlight: Highlight, scale: float) -> str:
    """Return a marked word."""
    lowers = _signed(highlight.weight).startswith("-")
    colour = (_LOWERS if lowers else _RAISES).format(opacity=f"{_OPACITY * abs(highlight.weight) / scale:.2f}")
    style = _MARK.format(colour=colour) + (f";text-decoration:underline dashed {colour}" if lowers else "")
    title = _signed(highlight.weight) + (", as a whole" if highlight.part else "")
    return f'<mark title="{title}" style="{style}">{escape(word)}</mark>'


def _unread(text: str) -> str:
    """Return what was not read, if there is anything."""
    return f'<span title="not read" style="opacity:.5">{escape(text)}</span>' if text else ""


def _rich(text: str, highlights: Sequence[Highlight], span: tuple[int, int]) -> "Text":
    """Return a text with its words in colour, and what is outside the span dim."""
    from rich.text import Text

    scale, shown = _scale(highlights), Text(_plain(text))
    for highlight in highlights:
        share = abs(highlight.weight) / scale
        styles = next((styles for least, styles in _STYLES.items() if share >= least), None)
        if styles:
            shown.stylize(styles[highlight.weight < 0], highlight.start, highlight.end)
    shown.stylize("dim", 0, span[0])
    shown.stylize("dim", span[1])
    return shown


def _plain(text: str) -> str:
    """Return a text, as long as it was, with nothing in it that a terminal would act on but ends of lines."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _scale(highlights: Sequence[Highlight]) -> float:
    """Return the weight that is shown strongest."""
    return max([_STRONG, *(abs(highlight.weight) for highlight in highlights)])


def _signed(weight: float) -> str:
    """Return a weight with its sign, and no minus before zero."""
    return f"{round(weight, 2) + 0.0:+.2f}"
