"""What goes into the page at / and what can be taken along: JSON, files, what is kept, copies; and what is in sight."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from browsing import DOCUMENTS, QUERY, answer, copied, fill, opened, rank
from playwright.sync_api import Browser, Page, expect
from servers import Server

ROWS = [{"id": 7, "text": "bamboo\nand more"}, {"text": "tea"}]
DROP = """([id, files]) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) transfer.items.add(new File([new Uint8Array(text)], name));
  const target = document.getElementById(id) ?? document.body;
  const send = (kind) =>
    target.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  return ["dragover", "drop"].map(send);  // false where the browser's own way was prevented
}"""


def shown(page: Page) -> list[str]:
    """Return the texts of the ranking, in the order in which they were given."""
    texts = page.locator("li .text").evaluate_all("all => all.map((text) => text.textContent)")
    places = page.locator("li").evaluate_all("all => all.map((item) => +item.dataset.index)")
    return [text for _, text in sorted(zip(places, texts, strict=True))]


def drop(page: Page, *files: tuple[str, bytes], onto: str = "documents") -> list[bool]:
    return page.evaluate(DROP, [onto, [(name, list(text)) for name, text in files]])


JSON = [  # what is given, the documents in it
    (json.dumps(["bamboo\nand more", "tea"]), ["bamboo\nand more", "tea"]),
    (json.dumps(ROWS, indent=2), ["bamboo\nand more", "tea"]),
    (json.dumps([{"content": "a"}, "b", {"text": "c", "content": "no"}]), ["a", "b", "c"]),
    (f"\n {json.dumps(ROWS)}\n", ["bamboo\nand more", "tea"]),
    ("\n".join(map(json.dumps, ROWS)), ["bamboo\nand more", "tea"]),
    (json.dumps({"query": "q", "documents": ["a", "b"]}, indent=2), ["a", "b"]),
    (json.dumps({"query": "q", "texts": ["a"]}), ["a"]),
    (json.dumps({"text": "one"}, indent=2), ["one"]),
    ("[]", []),
]
LINES = [
    "[1] Bamboo is a grass.\n[2] Tea is a drink.",
    "[1, 2]\n{x}",
    '{"a": 1}\n{"b": 2}',
    '"quoted"\n"again"',
    "[]\n[]",
]
UNUSABLE = [
    ('[{"text": "a"}, {"title": "b"}]', "Item 2 of the JSON is neither a text nor an object with “text”."),
    ('["a", 3]', "Item 2 of the JSON is neither"),
    ('[{"title": "b"}]', "Item 1 of the JSON is neither"),
    ('["a", "b",\n]', "This looks like JSON, but cannot be read"),
    ('[{"text": "a"}\n {"text": "b"}]', "This looks like JSON, but cannot be read"),
]


def test_what_is_json(page: Page) -> None:
    def read(text: str) -> dict[str, Any]:
        return page.evaluate("async (text) => (await import('/page/documents.js')).documentsIn(text, 'line')", text)

    for given, expected in JSON:
        assert read(given) == {"texts": expected, "isJson": True, "problem": ""}
    for given in LINES:
        assert read(given) == {"texts": given.split("\n"), "isJson": False, "problem": ""}
    for given, said in UNUSABLE:
        assert read(given)["problem"].startswith(said)


def test_json_is_ranked_as_documents(page: Page) -> None:
    page.get_by_label("Query", exact=True).fill(QUERY)
    documents = page.get_by_label("Documents", exact=True)
    documents.fill(json.dumps(ROWS, indent=2))
    expect(page.locator("#count")).to_have_text("2 documents in JSON")
    expect(page.get_by_label("One per line")).to_be_disabled()
    rank(page)
    assert shown(page) == ["bamboo\nand more", "tea"]
    documents.fill(UNUSABLE[0][0])
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(documents).to_be_focused()
    expect(documents).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text(UNUSABLE[0][1])).to_be_visible()
    assert shown(page) == ["bamboo\nand more", "tea"]  # nothing else was ranked


def test_a_file_is_dropped_anywhere(page: Page) -> None:
    documents = page.get_by_label("Documents", exact=True)
    documents.fill("my own")
    assert drop(page, ("a.txt", "bär\r\ntea".encode()), onto="results-heading") == [False, False]
    expect(documents).to_have_value("bär\ntea")
    expect(page.locator("#count")).to_have_text("2 documents")
    drop(page, ("a.json", json.dumps(ROWS).encode()), ("b.txt", b"tea\nmilk"))
    expect(page.locator("#count")).to_have_text("4 documents in JSON")
    page.get_by_role("button", name="Your texts").click()
    expect(documents).to_have_value("bär\ntea")


def test_a_file_is_chosen(page: Page, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    page.get_by_label("Choose files").set_input_files(tmp_path / "a.jsonl")
    expect(page.locator("#count")).to_have_text("2 documents in JSON")


def test_a_file_that_cannot_be_used_replaces_nothing(page: Page) -> None:
    documents = page.get_by_label("Documents", exact=True)
    documents.fill("my own")
    for files, said in [
        ([("a.csv", b"title,text\n1,a")], "a.csv is a table"),
        ([("a.txt", "é".encode("latin-1"))], "a.txt cannot be read as text in UTF-8"),
        ([("a.pdf", b"%PDF\0")], "a.pdf cannot be read as text"),
        ([("a.txt", b"a"), ("b.json", b'["a"\n"b"]')], "b.json: This looks like JSON"),
    ]:
        drop(page, *files)
        expect(page.get_by_text(said)).to_be_visible()
        expect(documents).to_have_value("my own")
    drop(page, ("a.txt", b"tea"))
    expect(documents).to_have_value("tea")
    expect(documents).to_have_attribute("aria-invalid", "false")


def test_a_reload_keeps_what_was_written(browser: Browser, two_models: Server) -> None:
    with opened(browser, two_models.url) as page:
        fill(page, QUERY, ["one", "", "two"])
        for label in ("Blank lines between", "Read long documents", "Raw logits"):
            page.get_by_label(label).check()
        page.get_by_label("Model", exact=True).select_option("random")
        page.get_by_label("Compare with").select_option("mini")
        page.reload()
        expect(page.get_by_label("Compare with").locator("option")).to_have_count(3)
        expect(page.get_by_label("Query", exact=True)).to_have_value(QUERY)
        expect(page.get_by_label("Documents", exact=True)).to_have_value("one\n\ntwo")
        for label in ("Blank lines between", "Read long documents", "Raw logits"):
            expect(page.get_by_label(label)).to_be_checked()
        expect(page.get_by_label("Model", exact=True)).to_have_value("random")
        expect(page.get_by_label("Compare with")).to_have_value("mini")
        expect(page.locator("#count")).to_have_text("2 documents")
        page.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('full'); }; }")
        page.get_by_label("Documents", exact=True).fill("more than a browser keeps")
        page.reload()
        expect(page.get_by_label("Documents", exact=True)).to_have_value("")


def test_a_browser_that_keeps_nothing(browser: Browser, light_server: Server) -> None:
    refuse = "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no'); } })"
    with browser.new_context() as context:
        context.add_init_script(refuse)
        page = context.new_page()
        page.goto(light_server.url)
        expect(page.get_by_label("Model", exact=True)).to_contain_text("mini")
        fill(page)
        rank(page)


def test_results_are_copied_as_a_table(page: Page, light_server: Server) -> None:
    documents = ["=1+1", *DOCUMENTS]
    fill(page, documents=documents)
    rank(page)
    lines = [line.split("\t") for line in copied(page, "Copy results").split("\n")]
    assert lines[0] == ["model", "rank", "score", "document", "text"]
    for place, (line, row) in enumerate(zip(lines[1:], answer(light_server, documents), strict=True), 1):
        text = documents[row["index"]]
        assert line == ["mini", str(place), line[2], str(row["index"] + 1), f"'{text}" if text[0] == "=" else text]
        assert float(line[2]) == pytest.approx(row["relevance_score"], abs=1e-6)


def test_the_curl_line_asks_the_same(page: Page, light_server: Server) -> None:
    fill(page, 'What\'s $HOME `x` "y"?', ["it's", "a\\b"])
    page.get_by_label("Raw logits").check()
    page.get_by_label("Read long documents").check()
    rank(page)
    line = copied(page, "Copy as curl")
    assert "\n" not in line
    assert "Authorization" not in line
    printed = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    words = printed.splitlines()
    assert words[:2] == ["curl", f"{light_server.url}/rerank"]
    assert json.loads(words[-1]) == {
        "model": "mini", "query": "What's $HOME `x` \"y\"?", "documents": ["it's", "a\\b"],
        "raw_scores": True, "long_documents": "windows",
    }  # fmt: skip


def test_the_address_is_whole_and_copied_without_a_clipboard_too(page: Page, light_server: Server) -> None:
    expect(page.get_by_text(f"POST {light_server.url}/rerank")).to_be_visible()
    assert copied(page, "Copy the address") == f"{light_server.url}/rerank"
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not here')); }")
    page.evaluate("() => { document.execCommand = () => Boolean(window.copied = document.activeElement.value); }")
    button = page.get_by_role("button", name="Copy the address")
    button.click()
    expect(button).to_be_focused()
    assert page.evaluate("window.copied") == f"{light_server.url}/rerank"
    page.evaluate("() => { document.execCommand = () => false; }")
    button.click()
    expect(page.get_by_role("status")).to_have_text("The browser does not let this page copy.")


def test_counts_are_shown_and_hidden(page: Page, light_server: Server) -> None:
    button = page.get_by_role("button", name="Load and counts")
    button.click()
    expect(page.locator("#metrics")).to_contain_text("# HELP")
    button.click()
    expect(page.locator("#metrics")).to_be_hidden()
    assert page.url == f"{light_server.url}/"


def test_what_was_not_read_is_read_in_windows(page: Page) -> None:
    page.get_by_role("button", name="A long document").click()
    page.get_by_role("button", name="Read them to the end, in windows").click()
    expect(page.get_by_text("read in windows").first).to_be_visible()
    expect(page.get_by_text("not read in full")).to_be_hidden()
    expect(page.get_by_label("Read long documents")).to_be_checked()
    expect(page.get_by_role("heading", name="Ranking")).to_be_focused()


def test_long_times_are_in_seconds(page: Page) -> None:
    times = {3.04: "3 ms", 9.96: "10 ms", 12.4: "12 ms", 999.4: "999 ms", 999.6: "1.0 s", 13710: "13.7 s"}
    code = "async (times) => times.map((await import('/page/rankings.js')).duration)"
    assert page.evaluate(code, list(times)) == list(times.values())


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844)])
def test_the_button_is_in_sight(browser: Browser, light_server: Server, width: int, height: int) -> None:
    with opened(browser, light_server.url, viewport={"width": width, "height": height}) as page:
        button = page.get_by_role("button", name="Rank", exact=True)
        expect(button).to_be_in_viewport(ratio=1)
        page.evaluate("document.getElementById('key-form').hidden = false")
        page.evaluate("document.getElementById('key-reason').textContent = 'This server asks for a key.'")
        expect(button).to_be_in_viewport(ratio=1)
        heading = page.get_by_role("heading", name="Ranking").bounding_box()
        nothing = page.get_by_text("Nothing has been ranked yet").bounding_box()
        assert heading
        assert nothing
        assert heading["x"] == nothing["x"]
