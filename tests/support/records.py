"""Requests as the sources of public programs build them, and the table of these programs in the documentation.

tests/recorded has one file a program. `settings` are what its user sets, with the path of the address to give it. A
request has an `address` where its path does not tell which of these it is.
"""

import json
from pathlib import Path
from typing import Any

RECORDS = [
    json.loads(path.read_text(encoding="utf-8")) for path in sorted((Path(__file__).parents[1] / "recorded").glob("*"))
]
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
SERVER = "http://127.0.0.1:8787"
_HEAD = "| program | what is set there | address to give it | it asks |\n|---|---|---|---|\n"


def address_of(record: dict[str, Any], request: dict[str, Any]) -> str:
    """Return the path of the address that leads to a request: the longest of its program's, unless it names one."""
    fitting = [path for path in record["settings"].values() if request["path"].startswith(path)]
    return request.get("address", max(fitting, key=len))


def table() -> str:
    """Return the table of programs, a line for each of their settings."""
    rows = []
    for record in sorted(RECORDS, key=lambda record: record["program"].lower()):
        for name, path in record["settings"].items():
            asked = [f"`{one['path']}`" for one in record["requests"] if address_of(record, one) == path]
            cells = (record["program"], name, f"`{SERVER}{path}`", ", ".join(dict.fromkeys(asked)))
            rows.append(f"| {' | '.join(cells)} |")
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
