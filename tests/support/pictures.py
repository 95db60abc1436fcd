"""The pictures of the README: `python tests/support/pictures.py` writes them.

The terminal is drawn from what `mlx-rerank rank` writes to one. The server's page is photographed where Chromium is.
"""

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from browsing import CHROMIUM, explain, fill, launched, opened, rank
from commands import COMMAND
from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from servers import serving

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "img"
ASKED = ["rank", "What do pandas eat?", "examples/passages.jsonl", "--top-n", "6"]
COLUMNS, SIZE = 100, {"width": 1000, "height": 700}  # characters of the terminal; CSS pixels of the page
LEGIBLE = {"en", "de", "ar", "fr", "el", "ru"}  # languages that the fonts of any machine can show
_NORMAL = [(0, 0, 0), (207, 34, 46), (17, 99, 41), (154, 103, 0)]  # black, red, green, yellow
_REST = [(9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129)]  # blue, magenta, cyan, white
_BRIGHT = [(110, 118, 129), (255, 123, 114), (63, 185, 80), (210, 153, 34)]
_BRIGHT_REST = [(121, 192, 255), (210, 168, 255), (86, 212, 221), (240, 246, 252)]
THEMES = {
    "light": TerminalTheme((255, 255, 255), (31, 35, 40), _NORMAL + _REST),
    "dark": TerminalTheme((13, 17, 23), (230, 237, 243), _BRIGHT + _BRIGHT_REST),
}


def on_a_terminal(*arguments: str) -> str:
    """Return what a command writes to a terminal, with its colours."""
    ours, theirs = pty.openpty()
    settings = {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "NO_COLOR": ""}
    command = [*COMMAND, *arguments, "--device", "cpu"]  # where every machine has the same digits
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, cwd=ROOT, env=os.environ | settings) as process:
        os.close(theirs)
        text = b"".join(_read(ours)).decode()
    os.close(ours)
    assert process.returncode == 0, text
    return text.replace("\r\n", "\n")


def _read(terminal: int) -> Iterator[bytes]:
    """Yield what is written to a terminal until nobody has it open any more, which Linux tells by an error."""
    try:
        while part := os.read(terminal, 65536):
            yield part
    except OSError:
        return


def drawn(text: str, theme: TerminalTheme) -> str:
    """Return a terminal with the command and what it wrote, as SVG that fetches nothing."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, no_color=False)
        question = " ".join(f'"{word}"' if " " in word else word for word in ASKED)
        console.print(Text(f"$ mlx-rerank {question}\n", style="bold"))
        console.print(Text.from_ansi(text))
        picture = console.export_svg(title="mlx-rerank", theme=theme, unique_id="rank")
    picture = picture.replace("rgba(255,255,255,0.35)", "#8c959f")  # a frame that is seen on white, too
    return re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)  # which would come from elsewhere


def write_terminal() -> None:
    """Write the terminal's pictures."""
    text = on_a_terminal(*ASKED)
    for name, theme in THEMES.items():
        (PICTURES / f"rank-{name}.svg").write_text(drawn(text, theme), encoding="utf-8")


def write_page() -> None:
    """Write the pictures of the server's page, with the same question and the words that count in the best answer."""
    rows = [json.loads(line) for line in (ROOT / ASKED[2]).read_text(encoding="utf-8").splitlines()]
    documents = [row["text"] for row in rows if row["lang"] in LEGIBLE]
    with serving("--device", "cpu") as server, launched() as browser:
        for name in THEMES:
            with opened(browser, server.url, color_scheme=name, viewport=SIZE, reduced_motion="reduce") as page:
                fill(page, ASKED[1], documents)
                rank(page)
                explain(page.get_by_role("listitem").first)
                page.get_by_label("Documents", exact=True).evaluate("field => field.scrollTop = 0")
                page.mouse.move(0, 0)  # over nothing that lights up
                page.evaluate("scrollTo(0, 0)")
                picture = Image.open(BytesIO(page.screenshot())).quantize(64)
            picture.save(PICTURES / f"page-{name}.png", optimize=True)


if __name__ == "__main__":
    write_terminal()
    if CHROMIUM.exists():
        write_page()
