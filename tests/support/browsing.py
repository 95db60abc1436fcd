"""The page at / as a person meets it: in a browser, whose complaints fail the test."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright
from servers import Server

expect.set_options(timeout=20_000)  # milliseconds; for machines that are busy
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
QUERY = "How do vaccines work?"
DOCUMENTS = [
    "The bakery closes at six.",
    "A vaccine trains the immune system.",
    "חיסון מלמד את מערכת החיסון לזהות נגיף.",
]

# Every visible text with less contrast than 4.5 to what is painted behind it, and every field's edge with less than 3.
LOW_CONTRAST = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    const [r, g, b, opacity = 1] = channels(getComputedStyle(element).backgroundColor);
    if (opacity === 1) return [r, g, b];
    const below = behind(element.parentElement);
    return [r, g, b].map((c, i) => c * opacity + below[i] * (1 - opacity));
  };
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const isText = (element) => element.matches("textarea, select, input") ||
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const seen = [...document.body.querySelectorAll("*")].filter((element) => element.checkVisibility());
  const texts = seen.filter(isText).filter((e) => ratio(channels(getComputedStyle(e).color), behind(e)) < 4.5);
  const edges = seen.filter((e) => e.matches("textarea, select, button:not(.plain)")).filter((e) =>
    ratio(channels(getComputedStyle(e).borderTopColor), behind(e.parentElement)) < 3);
  return [...texts, ...edges].map((element) => element.outerHTML.slice(0, 120));
}"""

NAMELESS = """() => [...document.querySelectorAll("input, select, textarea, button")]
  .filter((element) => !(element.labels?.length ? [...element.labels] : [element]).some((e) => e.textContent.trim()))
  .map((element) => element.outerHTML)"""


@contextmanager
def launched() -> Iterator[Browser]:
    """Start a browser; without one, the test is skipped."""
    if not CHROMIUM.exists():
        pytest.skip("chromium is not installed")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS) as browser,
    ):
        yield browser


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open the page; in the end, nothing may have gone elsewhere, and the browser may not have complained."""
    with browser.new_context(**options) as context:
        page, problems = context.new_page(), list[str]()
        page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        here = (f"{url}/", "data:")
        page.on("request", lambda request: None if request.url.startswith(here) else problems.append(request.url))
        page.goto(url)
        expect(page.get_by_label("Model", exact=True)).to_contain_text("mini")
        yield page
        expected = re.compile(
            r"Failed to load resource.*(401|422|429|503|504|ERR_FAILED)\b"
        )  # which some tests are about
        assert not [problem for problem in problems if not expected.match(problem)]


def fill(page: Page, query: str = QUERY, documents: list[str] = DOCUMENTS) -> None:
    page.get_by_label("Query", exact=True).fill(query)
    page.get_by_label("Documents", exact=True).fill("\n".join(documents))


def rank(page: Page) -> None:
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Ranked")


def answer(server: Server, documents: list[str] = DOCUMENTS, query: str = QUERY, **fields: Any) -> list[dict[str, Any]]:
    """Return the results that a program gets."""
    body = {"query": query, "documents": documents, **fields}
    return httpx.post(f"{server.url}/rerank", json=body, timeout=60).raise_for_status().json()["results"]


def explanation(server: Server, document: str, query: str = QUERY, **fields: Any) -> dict[str, Any]:
    """Return the weights that a program gets."""
    body = {"query": query, "document": document, **fields}
    return httpx.post(f"{server.url}/explain", json=body, timeout=60).raise_for_status().json()


def explain(item: Locator) -> None:
    """Have the weights of a document's words shown."""
    item.get_by_role("button", name="Which words count?").click()
    expect(item.get_by_role("button", name="Hide the weights")).to_be_visible()


def copied(page: Page, name: str) -> str:
    """Press a button that copies, and return what it has copied."""
    page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }")
    page.get_by_role("button", name=name).first.click()
    expect(page.get_by_role("status")).to_contain_text("Copied: ")
    return page.evaluate("window.copied")


def hold_first(page: Page, then: dict[str, Any] | None = None, path: str = "rerank") -> list[Route]:
    """Answer the first request to a path with `then`, or never; let the others through. Returns what was held."""
    held: list[Route] = []

    def handle(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)
            if then:
                route.fulfill(**then)

    page.route(f"**/{path}", handle)
    return held


def tab_to(page: Page, label: str) -> None:
    """Press Tab until the field so called has the focus, which has to be seen on the way."""
    for _ in range(20):
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if page.evaluate("document.activeElement.labels?.[0]?.textContent.trim()") == label:
            return
    pytest.fail(f"no key leads to {label}")
