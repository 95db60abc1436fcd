"""The page at /, in a browser: what it shows, and that keys, a screen reader and a small screen are enough for it."""

import re
from pathlib import Path
from typing import Any

import pytest
from browsing import (
    DOCUMENTS,
    LOW_CONTRAST,
    NAMELESS,
    QUERY,
    answer,
    copied,
    explain,
    fill,
    hold_first,
    opened,
    rank,
    tab_to,
)
from playwright.sync_api import Browser, Page, expect
from servers import Server, serving


def test_ranks_with_keys_alone(page: Page, light_server: Server) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the ranking")).to_be_in_viewport()
    tab_to(page, "Query")
    page.keyboard.type(QUERY)
    tab_to(page, "Documents")
    page.keyboard.type("\n".join(DOCUMENTS))
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="Ranking")).to_be_focused()
    results = answer(light_server)
    items = page.get_by_role("listitem").all()
    assert len(items) == len(results) == 3
    for place, (item, result) in enumerate(zip(items, results, strict=True), 1):
        text = item.inner_text()
        assert text.startswith(str(place))
        assert f"{result['relevance_score']:.4f}" in text
        assert f"Document {result['index'] + 1} · {result['tokens']} tokens · read in full" in text
        assert DOCUMENTS[result["index"]] in text
    assert page.get_by_text(DOCUMENTS[2]).last.evaluate("text => getComputedStyle(text).direction") == "rtl"


def test_times_are_shown(page: Page) -> None:
    fill(page)
    rank(page)
    terms = page.get_by_role("term").all_inner_texts()
    assert terms == ["round trip", "in the server", "queue", "model", "tokens computed"]
    values = page.get_by_role("definition").all_inner_texts()
    assert all(re.fullmatch(r"\d+(\.\d)? (ms|s)", value) for value in values[:4])
    assert int(values[4]) > 0


def test_says_how_much_of_a_long_document_was_read(page: Page, light_server: Server) -> None:
    page.get_by_role("button", name="A long document").click()
    expect(page.get_by_text("1 of 4 documents not read in full.")).to_be_visible()
    texts = page.get_by_label("Documents", exact=True).input_value().split("\n\n")
    results = answer(light_server, texts, page.get_by_label("Query", exact=True).input_value())
    [cut] = [result for result in results if result["truncated_tokens"]]
    item = page.get_by_role("listitem").filter(has_text="Truncated")
    percent = int(cut["share_read"] * 100)
    expect(item).to_contain_text(f"{cut['truncated_tokens']} tokens not read. {percent}% of this document was read.")
    unread = item.locator(".unread").evaluate("text => text.textContent")
    assert unread == texts[cut["index"]][cut["span"][1] :]
    folded = item.inner_text()
    item.get_by_role("button", name="Show all of it").click()
    expect(item.get_by_role("button", name="Show less")).to_have_attribute("aria-expanded", "true")
    height = item.evaluate("item => item.offsetHeight")
    item.get_by_role("button", name="Show less").click()
    assert item.evaluate("item => item.offsetHeight") < height
    assert item.inner_text() == folded


def test_marks_the_best_window_of_a_long_document(page: Page, light_server: Server) -> None:
    page.get_by_role("button", name="A long document").click()
    long = page.get_by_label("Documents", exact=True).input_value().split("\n\n")[1]
    query = page.get_by_label("Query", exact=True).input_value()
    documents = ["🧣 " + long, "A kettle."]  # a letter of two units for JavaScript
    fill(page, query, documents)
    page.get_by_label("One per line").check()
    page.get_by_label("Read long documents to the end").check()
    rank(page)
    [best] = [row for row in answer(light_server, documents, query, long_documents="windows") if row["index"] == 0]
    begin, end = best["span"]
    item = page.get_by_role("listitem").filter(has_text="read in windows")
    expect(item).to_contain_text(f"has characters {begin + 1} to {end}")
    assert item.locator(".text mark").evaluate("mark => mark.textContent") == documents[0][begin:end]
    assert item.locator(".text").evaluate("text => text.textContent") == documents[0]
    expect(item.locator(".text mark")).to_be_in_viewport()
    expect(item.locator(".before")).to_be_hidden()
    expect(page.get_by_text("not read in full")).to_be_hidden()


def test_compares_two_models(browser: Browser, two_models: Server) -> None:
    with opened(browser, two_models.url) as page:
        page.get_by_role("button", name="Seven languages").click()
        page.get_by_label("Compare with").select_option("random")
        rank(page)
        texts = page.get_by_label("Documents", exact=True).input_value().split("\n")
        first, second = (answer(two_models, texts, model=name) for name in ("mini", "random"))
        before = {result["index"]: (place, result["relevance_score"]) for place, result in enumerate(first, 1)}
        items = page.get_by_role("list").nth(1).get_by_role("listitem").all_inner_texts()
        for place, (text, result) in enumerate(zip(items, second, strict=True), 1):
            was, score = before[result["index"]]
            moved = f"up {was - place} from {was}" if was > place else f"down {place - was} from {was}"
            assert (moved if was != place else "same rank") in text
            difference = result["relevance_score"] - score
            assert f"{'+' if difference > 0 else '−'}{abs(difference):.4f}" in text
        order = [before[result["index"]][0] for result in second]
        same = sum(order[i] < order[j] for j in range(10) for i in range(j))
        tau = (2 * same - 45) / 45
        expect(page.get_by_text(f"tau {tau:.3f}: {same} of 45 pairs")).to_be_visible()
        expect(page.get_by_label("Compare with").locator("option", has_text="random (")).to_contain_text("cpu")


def test_raw_logits_fill_the_range(page: Page, light_server: Server) -> None:
    fill(page)
    page.get_by_label("Raw logits").check()
    rank(page)
    results = answer(light_server, raw_scores=True)
    for item, result in zip(page.get_by_role("listitem").all(), results, strict=True):
        expect(item).to_contain_text(f"{result['relevance_score']:.3f}".replace("-", "−"))
    widths = page.locator(".bar > span").evaluate_all("bars => bars.map((bar) => parseFloat(bar.style.inlineSize))")
    assert widths[0] == 100
    assert widths[-1] < 1


def test_markup_stays_text(page: Page) -> None:
    texts = [
        "<script>window.ran = true</script>",
        '<img src="/x" onerror="window.ran = true">',
        "<b>bold</b> &amp; plain",
    ]
    fill(page, "<i>what</i> is bold?", texts)
    rank(page)
    for text in texts:
        expect(page.get_by_role("listitem").filter(has_text=text)).to_have_count(1)
    assert page.evaluate("[window.ran, document.querySelectorAll('main img, main script, main b, main i').length]") == [
        None,
        0,
    ]


def test_counts_documents_and_names_what_is_missing(page: Page) -> None:
    fill(page, "", ["one", "", "  ", "two", "three"])
    expect(page.get_by_text("3 documents")).to_be_visible()
    page.get_by_label("Blank lines between").check()
    expect(page.get_by_text("2 documents")).to_be_visible()
    page.get_by_role("button", name="Rank", exact=True).click()
    query = page.get_by_label("Query", exact=True)
    expect(query).to_be_focused()
    expect(query).to_have_accessible_description(re.compile("Write a query"))
    query.fill("numbers")
    expect(query).to_have_attribute("aria-invalid", "false")


def test_errors_are_the_servers_words(page: Page) -> None:
    fill(page, documents=["x"] * 1001)
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("1000")
    full = {"status": 429, "headers": {"Retry-After": "7"}, "json": {"error": {"message": "The <b>queue</b> is full."}}}
    hold_first(page, full)
    fill(page)
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("The <b>queue</b> is full. Try again in 7 s.")
    page.unroute("**/rerank")
    page.route("**/rerank", lambda route: route.abort())
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached: is it still running?")
    page.unroute("**/rerank")
    rank(page)
    expect(page.get_by_role("alert")).to_have_text("")


def test_tries_again_while_a_model_is_loading(page: Page) -> None:
    loading = {"error": {"message": "wait", "code": "loading"}}
    hold_first(page, {"status": 503, "headers": {"Retry-After": "1"}, "json": loading})
    fill(page)
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("The model is loading. Trying again every 1 s")
    expect(page.get_by_role("status")).to_contain_text("Ranked 3 documents")


def test_a_slow_answer_can_be_cancelled_and_replaces_no_newer_one(page: Page) -> None:
    held = hold_first(page)
    fill(page, documents=["slow"])
    page.get_by_role("button", name="Rank", exact=True).click()
    fill(page)
    rank(page)
    late = {"results": [{"index": 0, "relevance_score": 1, "tokens": 1, "truncated_tokens": 0, "share_read": 1}]}
    held[0].fulfill(json=late)
    page.wait_for_timeout(100)
    expect(page.get_by_role("listitem")).to_have_count(3)
    assert held[0].request.failure == "net::ERR_ABORTED"  # so that the server stops, too
    page.unroute("**/rerank")
    hold_first(page)
    page.get_by_role("button", name="Rank", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled.")
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


def test_an_example_does_not_lose_ones_own_texts(page: Page) -> None:
    fill(page)
    page.get_by_role("button", name="A long document").click()
    page.get_by_role("button", name="Your texts").click()
    assert page.get_by_label("Documents", exact=True).input_value() == "\n".join(DOCUMENTS)
    assert page.get_by_label("One per line").is_checked()


def test_asks_for_a_key_and_keeps_it_nowhere(browser: Browser, tiny: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    with serving("--model", f"mini={tiny}", "--api-key-file", str(keys)) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        key = page.get_by_label("API key")
        expect(key).to_be_focused()
        expect(key).to_have_attribute("type", "password")
        key.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("The server does not know this key.")).to_be_visible()
        expect(key).to_have_value("")
        key.fill("sesame")
        page.get_by_role("button", name="Use key").click()
        expect(key).to_be_hidden()
        expect(page.get_by_label("Model", exact=True)).to_contain_text("mini")
        fill(page)
        rank(page)
        assert "sesame" not in page.evaluate("JSON.stringify([sessionStorage, location.href])")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.get_by_role("button", name="Load and counts").click()
        expect(page.locator("#metrics")).to_contain_text("# HELP")
        page.get_by_role("list").last.wait_for()
        assert "sesame" not in copied(page, "Copy as curl")
        assert '-H "Authorization: Bearer $MLX_RERANK_API_KEY"' in copied(page, "Copy as curl")
        page.reload()
        expect(key).to_be_focused()
        expect(page.get_by_label("Query", exact=True)).to_have_value(QUERY)
        page.get_by_role("button", name="Load and counts", expanded=False).click()
        expect(key).to_be_focused()
        expect(page.get_by_role("button", name="Load and counts", expanded=False)).to_be_visible()
        expect(page.locator("#metrics")).to_be_hidden()
        assert page.url == f"{server.url}/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_contrast(browser: Browser, two_models: Server, scheme: Any) -> None:
    with opened(browser, two_models.url, color_scheme=scheme, reduced_motion="reduce") as page:
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")
        page.get_by_role("button", name="Rank", exact=True).click()
        assert page.evaluate(LOW_CONTRAST) == []  # with the messages about empty fields
        page.get_by_label("Compare with").select_option("random")
        page.get_by_role("button", name="A long document").click()
        expect(page.get_by_role("heading", name="Ranking")).to_be_focused()
        for items in page.get_by_role("list").all():
            explain(items.get_by_role("listitem").filter(has_text="Document 1 "))
        page.evaluate("document.getElementById('key-form').hidden = false")
        assert page.evaluate(LOW_CONTRAST) == []
        assert page.evaluate(NAMELESS) == []
        levels = page.locator("h1, h2, h3").evaluate_all("all => all.map((heading) => heading.tagName)")
        assert levels == ["H1", "H2", "H2", "H3", "H3"]
        for landmark in ("banner", "main", "contentinfo"):
            expect(page.get_by_role(landmark)).to_have_count(1)
        expect(page.locator(".bar").first).to_have_attribute("aria-hidden", "true")


@pytest.mark.parametrize(("width", "font"), [(320, "100%"), (640, "200%"), (1280, "100%")])
def test_nothing_is_wider_than_the_window(browser: Browser, two_models: Server, width: int, font: str) -> None:
    with opened(browser, two_models.url, viewport={"width": width, "height": 700}) as page:
        page.evaluate("size => document.documentElement.style.fontSize = size", font)
        page.get_by_label("Compare with").select_option("random")
        fill(page, "q" * 100, ["x" * 300, "long " * 60])
        rank(page)
        for item in page.get_by_role("listitem").all():
            explain(item)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        left, right = (page.get_by_role("list").nth(i).bounding_box() for i in range(2))
        assert left
        assert right
        assert (left["y"] == right["y"]) == (width == 1280)  # side by side where there is room
