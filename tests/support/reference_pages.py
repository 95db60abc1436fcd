"""The parts of the documentation that are made from the code: python tests/support/reference_pages.py writes them.

Options of the command line, routes and fields of the server, known models, and what programs are given and send. A
page holds such a part between two comments; what is around them is written by hand.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from records import RECORDS, SERVER, address_of
from typer.cli import get_docs_for_click

from mlx_rerank import cli
from mlx_rerank.models import FAMILIES
from mlx_rerank.server.app import create_app
from mlx_rerank.server.handler import Bounds, Handler
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.served import ModelSpec
from mlx_rerank.server.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
_MADE = re.compile(r"(<!-- made by tests/support/reference_pages\.py -->\n).*?(<!-- end -->\n)", re.DOTALL)


def command_line() -> str:
    """Return the commands and their options."""
    context = typer.Context(typer.main.get_command(cli.app), info_name="mlx-rerank")
    text = get_docs_for_click(obj=context.command, ctx=context, name="mlx-rerank", title="Commands")
    for command in _below(context.command):  # whose first sentence typer cuts short
        text = text.replace(f": {command.get_short_help_str()}\n", f": {command.get_short_help_str(limit=200)}\n")
    return re.sub(r"^#", "##", text, flags=re.MULTILINE)  # below the page's title


def _below(command: Any) -> Iterator[Any]:
    """Yield all commands of a group, and of groups in it."""
    for one in getattr(command, "commands", {}).values():
        yield one
        yield from _below(one)


def openapi() -> dict[str, Any]:
    """Return the server's document, of one that serves the embedded model and has loaded nothing."""
    return create_app(Handler(Pool([ModelSpec("mini", "mini")]), Bounds()), Settings()).openapi()


def routes() -> str:
    """Return the server's addresses, and the fields of all that it takes and gives."""
    document = openapi()
    lines = ["## Addresses", "", "| | address | what it does | body |", "|---|---|---|---|"]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            body = re.search(r"schemas/(\w+)", json.dumps(route.get("requestBody", "")))
            taken = f"[{body[1]}](#{body[1].lower()})" if body else ""
            lines.append(f"| {method.upper()} | `{path}` | {route.get('description', '')} | {taken} |")
    answers = document["paths"]["/v1/rerank"]["post"]["responses"]
    lines += ["", "## Status codes", "", "| status | meaning |", "|---|---|"]
    lines += [f"| {status} | {answer['description']} |" for status, answer in answers.items()]
    for name, schema in document["components"]["schemas"].items():
        if schema.get("properties") and name not in ("HTTPValidationError", "ValidationError"):
            lines += ["", f"## {name}", "", *_sentence(schema), "| field | type | meaning |", "|---|---|---|"]
            required = schema.get("required", [])
            lines += [_field(key, field, required) for key, field in schema["properties"].items()]
    return "\n".join(lines) + "\n"


def _sentence(schema: dict[str, Any]) -> list[str]:
    """Return what a schema says of itself, and an empty line."""
    return [" ".join(schema["description"].split()), ""] if "description" in schema else []


def _field(name: str, field: dict[str, Any], required: list[str]) -> str:
    """Return the line of a field."""
    kind = " or ".join(dict.fromkeys(_kinds(field))) or "any"
    meaning = " ".join(field.get("description", "Refused." if kind == "null" else "").split()).replace("|", "\\|")
    return f"| `{name}`{', required' if name in required else ''} | {kind} | {meaning} |"


def _kinds(field: dict[str, Any]) -> Iterator[str]:
    """Yield what a field may be."""
    for option in field.get("anyOf", [field]):
        if "$ref" in option:
            name = option["$ref"].rpartition("/")[2]
            yield "any JSON" if name == "JsonValue" else f"[{name}](#{name.lower()})"
        elif "enum" in option or "const" in option:
            yield " or ".join(f"`{json.dumps(value)}`" for value in option.get("enum", [option.get("const")]))
        elif option.get("type") == "array":
            yield f"list of {' or '.join(dict.fromkeys(_kinds(option.get('items', {})))) or 'any'}"
        elif "type" in option:
            bounds = [f"{word} {option[key]:g}" for key, word in _BOUNDS.items() if key in option]
            yield " ".join([option["type"], *bounds])


_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


def known() -> str:
    """Return the models that families name; a float32 number has four bytes, a float16 one two."""
    lines = [
        "| model | family | languages | tokens | parameters | float32 | float16 | licence | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        for model in family.known:
            sizes = " | ".join("" if model.parameters is None else f"{model.parameters * n:,} MB" for n in (4, 2))
            tokens = "" if model.longest_pair is None else f"{model.longest_pair:,}"
            parameters = "" if model.parameters is None else f"{model.parameters:,} million"
            lines.append(
                f"| `{model.repository}` | {family.title} | {model.languages or ''} | {tokens} | {parameters} "
                f"| {sizes} | {model.licence or ''} | {model.special} |"
            )
    checked = sorted({model.checked for family in FAMILIES for model in family.known})
    return "\n".join(lines) + f"\n\nHow these were checked here: {'; '.join(checked)}.\n"


def program(record: dict[str, Any]) -> str:
    """Return what is set in a program, and how to check each address with the request that the program sends."""
    lines = ["## What to set", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | `{SERVER}{path}` |" for name, path in record["settings"].items()]
    lines += ["", "## How to check", ""]
    lines += ["With `mlx-rerank serve` running, send from a terminal what the program sends.", ""]
    for name, path in record["settings"].items():
        leading = [one for one in record["requests"] if "body" in one and address_of(record, one) == path]
        request = max(leading, key=lambda one: "best" in one)  # the first with a document that has to win
        headers = {key.lower(): value for key, value in request["headers"].items()}
        words = ["curl", "--silent", SERVER + request["path"], "-H", "content-type: application/json"]
        if "authorization" in headers:
            words += ["-H", f"authorization: {headers['authorization']}"]
        body = json.dumps(request["body"], ensure_ascii=False)
        lines += [f"For *{name}*:", "", "```sh", f"{shlex.join(words)} \\", f"  -d {shlex.quote(body)}", "```", ""]
        if "best" in request:
            reads = [one.rpartition(":")[0] for one in request["reads"]]
            scores = " and ".join(f"`{one}`" for one in reads if one.rpartition(".")[2] in _READ)
            lines += [
                f"Document {request['best']}, counted from 0, must score highest. The program reads {scores}.",
                "",
            ]
    lines += [f"Taken from the program's source: `{record['source']}`.", ""]
    return "\n".join(lines)


_READ = ("index", "relevance_score", "score", "scores[]")


def pages() -> dict[Path, str]:
    """Return what each page has to hold in the part that is made."""
    apps = {path.stem for path in (DOCS / "how-to" / "apps").glob("*.md")} - {"index"}
    made = {DOCS / "how-to" / "apps" / f"{one['client']}.md": program(one) for one in RECORDS if one["client"] in apps}
    reference = {"cli": command_line, "http": routes, "models": known}
    return made | {DOCS / "reference" / f"{name}.md": make() for name, make in reference.items()}


def renewed(path: Path, part: str) -> str:
    """Return a page with its made part as it has to be."""
    text, count = _MADE.subn(lambda found: found[1] + "\n" + part + "\n" + found[2], path.read_text(encoding="utf-8"))
    assert count == 1, f"{path} has {count} parts to be made"
    return text


if __name__ == "__main__":
    for page, made in pages().items():
        page.write_text(renewed(page, made), encoding="utf-8")
