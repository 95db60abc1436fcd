"""How an explanation looks: in HTML and on a terminal, and that it is the text and nothing but the text."""

import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mlx_rerank.errors import InputError
from mlx_rerank.scoring.explanation import Explanation, Highlight


class Page(HTMLParser):
    """Reads a fragment: its two texts, its elements, and the marked words with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts, self.tags, self.marks, self.unread = {}, [], [], []
        self._text = ""
        self._inner = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self._text = attributes.get("data-text", self._text)
        self.texts.setdefault(self._text, "")
        self._inner = (tag, attributes)

    def handle_endtag(self, tag):
        self._inner = None
        self._text = "" if tag == "div" else self._text

    def handle_data(self, data):
        self.texts[self._text] += data
        if self._inner and self._inner[0] == "mark":
            self.marks.append((data, self._inner[1]))
        if self._inner and self._inner[0] == "span":
            self.unread.append(data)


def make(query="", document="", query_highlights=(), document_highlights=(), span=None, cut=0) -> Explanation:
    span = span or (0, len(document))
    return Explanation(query, document, 0.75, 1.0986, tuple(query_highlights), tuple(document_highlights), cut, span)


def terminal(explanation: Explanation, color: bool = True) -> str:
    system = "truecolor" if color else None
    console = Console(file=io.StringIO(), force_terminal=color, color_system=system, width=80, legacy_windows=False)
    console.print(explanation)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


@st.composite
def highlighted(draw):
    text = draw(st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=40))
    places = draw(st.lists(st.integers(0, len(text)), unique=True, max_size=12).map(sorted))
    weights = st.floats(-20, 20)
    pairs = zip(places[::2], places[1::2], strict=False)
    return text, [Highlight(a, b, draw(weights), draw(st.booleans())) for a, b in pairs]


@given(highlighted(), highlighted(), st.data())
def test_the_fragment_holds_the_texts_character_for_character(query, document, data) -> None:
    text, highlights = document
    begin = data.draw(st.integers(0, highlights[0].start if highlights else len(text)))
    end = data.draw(st.integers(highlights[-1].end if highlights else begin, len(text)))
    page = Page(make(query[0], text, query[1], highlights, (begin, end)).to_html())
    assert page.texts["query"] == query[0]
    assert page.texts["document"] == text
    assert [word for word, _ in page.marks] == [t[h.start : h.end] for t, hs in (query, document) for h in hs]
    assert page.unread == [part for part in (text[:begin], text[end:]) if part]
    assert set(page.tags) <= {"div", "mark", "span"}


def test_a_document_cannot_write_html() -> None:
    hostile = "<script>alert(\"1\")</script> & <img src=x onerror='y'> &amp;"
    found = [Highlight(2, 20, -1.0), Highlight(50, 55, 1.0)]
    for explanation in (
        make(hostile, hostile, [Highlight(0, 8, 1.0)], found, (1, 57)),
        make(hostile, hostile, span=(25, 28)),  # nothing was read but what is between the two elements
    ):
        html = explanation.to_html()
        assert "<script" not in html
        assert "<img" not in html
        page = Page(html)
        assert (page.texts["query"], page.texts["document"]) == (hostile, hostile)


def test_weights_are_shown() -> None:
    text = "up down all of it none"
    found = [Highlight(0, 2, 2.0), Highlight(3, 7, -1.0), Highlight(8, 17, 0.5, part=True), Highlight(18, 22, -0.001)]
    marks = Page(make(document=text, document_highlights=found).to_html()).marks
    assert [(word, attributes["title"]) for word, attributes in marks] == [
        ("up", "+2.00"),
        ("down", "-1.00"),
        ("all of it", "+0.50, as a whole"),
        ("none", "+0.00"),
    ]
    styles = [attributes["style"] for _, attributes in marks]
    assert [re.search(r"/(.*?)\)", style).group(1) for style in styles] == ["0.60", "0.30", "0.15", "0.00"]  # pyright: ignore[reportOptionalMemberAccess]
    assert ["dashed" in style for style in styles] == [False, True, False, False]  # not by colour alone
    assert ["--mlx-rerank-lowers" in style for style in styles] == [False, True, False, False]
    assert all("color:inherit" in style for style in styles)


def test_what_matters_little_is_pale() -> None:
    [(_, attributes)] = Page(make(document="word", document_highlights=[Highlight(0, 4, 0.05)]).to_html()).marks
    assert "/0.06)" in attributes["style"]


def test_the_summary() -> None:
    assert Page(make().to_html()).texts[""] == "score 0.7500, logit +1.10"
    assert Page(make(cut=7).to_html()).texts[""] == "score 0.7500, logit +1.10, 7 tokens not read"


def test_notebooks_get_the_fragment() -> None:
    explanation = make("query", "document", [Highlight(0, 5, 1.0)])
    assert explanation._repr_html_() == explanation.to_html()


def test_top() -> None:
    weights = [0.5, -3.0, 2.0, 0.5, 0.0]
    found = [Highlight(2 * i, 2 * i + 1, weight) for i, weight in enumerate(weights)]
    explanation = make(document="a b c d e", document_highlights=found)
    assert explanation.top(2) == [found[2], found[0]]
    assert explanation.top(9) == [found[2], found[0], found[3]]
    assert make().top(1) == []
    for bad in (0, -1, 1.5, None):
        with pytest.raises(InputError, match="n must be a whole number of at least 1"):
            explanation.top(bad)  # pyright: ignore[reportArgumentType]


def test_on_a_terminal() -> None:
    text = "strong weak against nothing\nunread"
    found = [Highlight(0, 6, 3.0), Highlight(7, 11, 1.0), Highlight(12, 19, -3.0), Highlight(20, 27, 0.01)]
    explanation = make("what?", text, [], found, (0, 27))
    plain = terminal(explanation, color=False).split("\n")
    assert plain == [
        "score 0.7500, logit +1.10",
        "what?",
        "strong weak against nothing",
        "unread",
        "strong +3.00  weak +1.00  nothing +0.01",
        "",
    ]
    shown = terminal(explanation)
    assert "\x1b[1;30;42mstrong\x1b[0m" in shown
    assert "\x1b[1;32mweak\x1b[0m" in shown
    assert "\x1b[1;4;37;41magainst\x1b[0m" in shown  # underlined: not by colour alone
    assert " nothing" in shown
    assert "\x1b[2munread\x1b[0m" in shown


def test_styles_on_a_terminal_by_the_share_of_the_strongest_word() -> None:
    weights = {"a": 10, "b": 6, "c": 5.9, "d": -6, "e": 3, "f": 2.9, "g": -3, "h": 1, "i": 0.9, "j": -1, "k": -0.9}
    found = [Highlight(2 * i, 2 * i + 1, weight) for i, weight in enumerate(weights.values())]
    lines = terminal(make(document=" ".join(weights), document_highlights=found)).split("\n")
    strong, raises, weak = "1;30;42", "1;32", "32"
    styles = {"a": strong, "b": strong, "c": raises, "e": raises, "f": weak, "h": weak}
    styles |= {"d": "1;4;37;41", "g": "1;4;31", "j": "4;31"}
    assert lines[2].split(" ") == [f"\x1b[{styles[w]}m{w}\x1b[0m" if w in styles else w for w in weights]
    assert "a +10.00  b +6.00  c +5.90  e +3.00  f +2.90\x1b" in lines[3]  # the first five alone


def test_a_terminal_takes_no_orders_from_a_document() -> None:
    hostile = "[bold]not markup[/] \x1b[31mred\x07\u202e \t😀 e\u0301"
    found = [Highlight(0, len(hostile), 1.0)]
    shown = terminal(make(hostile, hostile, found, found), color=False)
    assert shown.count("[bold]not markup[/]") == 3
    assert not {"\x1b", "\x07", "\u202e", "\t"} & set(shown)
    assert "\x1b[31m" not in terminal(make(hostile, hostile, found, found))


def test_nothing_of_rich_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys; from mlx_rerank.scoring.occlusion import explain\n"
        "from mlx_rerank.scoring.explanation import Explanation\n"
        "Explanation('a', 'b', 0.5, 0.0, (), (), 0, (0, 1)).to_html()\n"
        "print('rich' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "False"
