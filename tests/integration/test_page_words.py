"""Which words count, on the page at /: their weights in the texts, those that the API has, and what can go wrong."""

from typing import Any

import pytest
from browsing import DOCUMENTS, LOW_CONTRAST, QUERY, explain, explanation, fill, hold_first, opened, rank
from playwright.sync_api import Browser, Locator, Page, expect
from servers import Server

SCARF = "🧣 A vaccine trains the 𝒾𝓂𝓂𝓊𝓃ℯ system. 🧣"  # letters of two units for JavaScript
MARKS = """marks => marks.map((mark) => ({
  word: mark.textContent, title: mark.title, kind: mark.className, share: +mark.style.getPropertyValue("--share")
}))"""


def item_of(page: Page, index: int) -> Locator:
    return page.get_by_role("listitem").filter(has_text=f"Document {index + 1} ")


def require_marks(shown: Locator, text: str, weights: list[dict[str, Any]]) -> None:
    """Compare the marks in a text with weights; those of two requests differ in the last digits."""
    assert shown.evaluate("shown => shown.textContent") == text
    marks = shown.locator("mark").evaluate_all(MARKS)
    strongest = max(0.5, *(abs(one["weight"]) for one in weights))
    for mark, one in zip(marks, weights, strict=True):
        assert mark["word"] == text[one["start"] : one["end"]]
        number, _, whole = mark["title"].partition(", ")
        assert float(number.replace("−", "-")) == pytest.approx(one["weight"], abs=0.0051)
        assert mark["share"] == pytest.approx(abs(one["weight"]) / strongest, abs=1e-3)
        assert whole == ("as a whole" if one["part"] else "")
        if abs(one["weight"]) > 0.0051:
            assert mark["kind"] == ("raises" if one["weight"] > 0 else "lowers")


def test_words_with_keys_alone(page: Page, light_server: Server) -> None:
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    fill(page, documents=[SCARF, *DOCUMENTS])
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="Ranking")).to_be_focused()
    item = item_of(page, 0)
    before = item.inner_text()
    for _ in range(4):
        page.keyboard.press("Tab")
        if item.get_by_role("button").evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    button = item.get_by_role("button", name="Hide the weights", expanded=True)
    expect(button).to_be_focused()
    found = explanation(light_server, SCARF)
    require_marks(item.locator(".text"), SCARF, found["document"])
    require_marks(item.locator(".query p"), QUERY, found["query"])
    ranked = sorted(found["document"], key=lambda one: -abs(one["weight"]))[:5]
    named = item.get_by_text("In the document: ")
    words = [SCARF[one["start"] : one["end"]].rstrip(".") for one in ranked]
    assert named.locator("bdi").all_inner_texts() == words
    expect(named).to_contain_text(f"{words[0]} {ranked[0]['weight']:+.2f}".replace("-", "−"))
    expect(item).to_contain_text(f"the logit, {found['logit']:+.2f}, falls".replace("-", "−"))
    page.keyboard.press("Space")
    expect(item.get_by_role("button", name="Which words count?", expanded=False)).to_be_focused()
    assert item.inner_text() == before
    assert item.locator("mark:visible").count() == 0
    page.keyboard.press("Enter")
    expect(button).to_be_focused()
    assert asked.count(f"{light_server.url}/explain") == 1  # the answer was kept


def test_words_of_each_model_in_the_best_window(browser: Browser, two_models: Server) -> None:
    filling = "The bakery closes at six. " * 20
    long = f"{filling}{SCARF} {SCARF} {filling}".strip()
    with opened(browser, two_models.url) as page:
        page.get_by_label("Model", exact=True).select_option("random")
        page.get_by_label("Compare with").select_option("mini")
        page.get_by_label("Read long documents to the end").check()
        fill(page, documents=[long, *DOCUMENTS])
        rank(page)
        bodies = list[Any]()
        page.on("request", lambda request: bodies.append(request.post_data_json))
        lists = page.get_by_role("list").all()
        item = lists[0].get_by_role("listitem").filter(has_text="read in windows")
        explain(item)
        found = explanation(two_models, long, model="random", long_documents="windows")
        assert 0 < found["span"][0] < found["span"][1] < len(long)
        require_marks(item.locator(".text"), long, found["document"])
        expect(item.locator(".text .before")).to_be_hidden()  # so that the text begins with what counts
        expect(item.locator(".text .after")).to_be_hidden()
        item.get_by_role("button", name="Show all of it").click()
        expect(item.locator(".text .before")).to_be_visible()
        explain(lists[1].get_by_role("listitem").filter(has_text="Document 3 "))
        assert [body["model"] for body in bodies] == ["random", "mini"]
        expected = explanation(two_models, DOCUMENTS[1], model="mini")["document"]
        shown = lists[1].get_by_role("listitem").filter(has_text="Document 3 ").locator(".text")
        require_marks(shown, DOCUMENTS[1], expected)


def test_a_long_text_is_unfolded_while_its_words_are_shown(page: Page) -> None:
    fill(page, documents=["vaccine " * 40])
    rank(page)
    item = item_of(page, 0)
    folded, height = item.inner_text(), item.evaluate("item => item.offsetHeight")
    assert item.locator(".text").evaluate("text => text.scrollHeight > text.clientHeight")
    explain(item)
    assert item.locator(".text").evaluate("text => text.scrollHeight === text.clientHeight")
    expect(item.get_by_role("button", name="Show all of it")).to_be_hidden()
    item.get_by_role("button", name="Hide the weights").click()
    assert item.inner_text() == folded
    assert item.evaluate("item => item.offsetHeight") == height


def test_markup_stays_text_while_words_are_marked(page: Page) -> None:
    text = '<img src="/x" onerror="window.ran = true"> <b>bold</b> &amp;'
    fill(page, "<i>what</i> is bold?", [text])
    rank(page)
    item = item_of(page, 0)
    explain(item)
    assert item.locator(".text").evaluate("text => text.textContent") == text
    assert item.locator(".query p").evaluate("text => text.textContent") == "<i>what</i> is bold?"
    assert page.evaluate("[window.ran, document.querySelectorAll('main :is(img, b, i)').length]") == [None, 0]


def test_is_asked_once_and_errors_are_told_beside_the_document(page: Page) -> None:
    fill(page)
    rank(page)
    item = item_of(page, 1)
    button, problem = item.get_by_role("button"), item.get_by_role("alert")
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    held = hold_first(page, path="explain")
    button.click()
    expect(button).to_have_text("Weighing the words …")
    button.click(force=True)  # it is not enabled
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_be_focused()
    message = {"error": {"message": "The <b>queue</b> is full."}}
    held[0].fulfill(status=429, headers={"Retry-After": "7"}, json=message)
    expect(problem).to_have_text("The <b>queue</b> is full. Try again in 7 s.")
    expect(button).to_have_text("Which words count?")
    assert len(asked) == 1
    expect(page.locator("#error")).to_be_empty()
    for status, said, words in (
        (504, "too slow", "too slow."),
        (422, "too long", "too long."),
        (401, "send a key", "The server asks for a key: rank again to enter it."),
    ):
        page.unroute("**/explain")
        hold_first(page, {"status": status, "json": {"error": {"message": said}}}, path="explain")
        button.click()
        expect(problem).to_have_text(words)
    page.unroute("**/explain")
    page.route("**/explain", lambda route: route.abort())
    button.click()
    expect(problem).to_have_text("The server cannot be reached: is it still running?")
    page.unroute("**/explain")
    explain(item)
    expect(problem).to_be_hidden()


def test_a_new_ranking_forgets_all(page: Page) -> None:
    fill(page)
    rank(page)
    explain(item_of(page, 0))
    held = hold_first(page, path="explain")
    item_of(page, 1).get_by_role("button").click()
    hold_first(page)
    with page.expect_event("requestfailed") as failed:  # so that the server stops, too
        page.get_by_role("button", name="Rank", exact=True).click()
    assert failed.value == held[0].request
    expect(item_of(page, 1).get_by_text("Which words count?")).to_have_count(1)
    expect(item_of(page, 1).get_by_role("button")).to_have_count(0)  # nothing is asked of a ranking that will go
    page.get_by_role("button", name="Cancel").click()
    explain(item_of(page, 1))
    rank(page)
    expect(page.get_by_role("button", name="Which words count?")).to_have_count(3)
    assert page.locator("#rankings mark:visible, #rankings [role=alert]:visible").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_without_colours(browser: Browser, light_server: Server, scheme: Any) -> None:
    with opened(browser, light_server.url, forced_colors="active", color_scheme=scheme) as page:
        fill(page)
        rank(page)
        item = item_of(page, 0)
        explain(item)
        assert page.evaluate(LOW_CONTRAST) == []
        style = "mark => [getComputedStyle(mark).textDecorationLine, getComputedStyle(mark).textDecorationStyle]"
        assert item.locator(".legend .raises").evaluate(style) == ["underline", "solid"]
        assert item.locator(".legend .lowers").evaluate(style) == ["underline", "dashed"]
        thickness = "marks => marks.map((mark) => parseFloat(getComputedStyle(mark).textDecorationThickness))"
        marks = item.locator(".text mark")
        shares = [mark["share"] for mark in marks.evaluate_all(MARKS)]
        assert marks.evaluate_all(thickness) == pytest.approx([1 + 3 * share for share in shares], abs=0.01)
