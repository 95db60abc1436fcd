"""Model cards, whose words come from strangers: a source's card, and the record of a conversion."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlx_rerank.checkpoints.card import model_card
from mlx_rerank.errors import CheckpointError

RECORD = {"version": "0.1.0", "source": "user/model", "revision": None}
EVIL = "user/x\n---\n# Mine | <img src=x onerror=alert(1)> [a](javascript:b) `c` \x1b]52;c;aGk=\x07\u202e\ud800"


def card(record: dict[str, Any], source: Path = Path("nowhere"), name: str = "name") -> str:
    return model_card({"dtype": "float16", "mlx_rerank": RECORD | record}, 512, source, name=name)


def parts(text: str) -> tuple[dict[str, Any], str]:
    """Return the header and the body of a card."""
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


@pytest.mark.parametrize("field", ["source", "revision", "version", "packing"])
def test_a_record_stays_in_its_place(field: str) -> None:
    found, expected = card({field: EVIL}), card({field: "plain"})
    assert found.replace("\n", "").isprintable()
    assert found.count("\n") == expected.count("\n")
    header, body = parts(found)
    assert header["library_name"] == "mlx"
    assert header.get("base_model") == (None if field == "source" else "user/model")
    table = re.sub(r"\\.", "", body.partition("```")[0])  # without what is escaped
    assert not [raw for raw in ("<", ">", "`", "[a", "# Mine") if raw in table]
    assert table.count("|") == re.sub(r"\\.", "", parts(expected)[1].partition("```")[0]).count("|")


def test_a_name_stays_in_its_place() -> None:
    _, body = parts(card({}, name='x")\n```\n# "Mine'))
    assert [line for line in body.splitlines() if line.startswith(("```", "# "))][1:] == ["```python", "```"]
    code = body.partition("```python")[2].partition("\n```")[0]
    named = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    assert "Mine" in str(named.value) or "rerank" in str(named.value)


@pytest.mark.parametrize(
    "header",
    [
        "license: {a: 1}\nlanguage: [[en]]", "license: [mit]\nlanguage: 7", "license: !!python/object:os.system x",
        "license: " + "a" * 200, 'license: "a\\nb"\nlanguage: ["en", "\\e[31m"]', "license: *a", "a: &a [*a]",
    ],
)  # fmt: skip
def test_a_sources_card_gives_words_alone(tmp_path: Path, header: str) -> None:
    source = tmp_path / "README.md"
    source.write_text(f"---\n{header}\n---\n# Title\n")
    assert not {"license", "language"} & parts(card({}, source))[0].keys()


def test_what_a_sources_card_states_is_taken_over(tmp_path: Path) -> None:
    source = tmp_path / "README.md"
    source.write_text("---\nlicense: mit\nlanguage: [en, de]\n---\n# Title\n")
    header, _ = parts(card({}, source))
    assert (header["license"], header["language"]) == ("mit", ["en", "de"])


@pytest.mark.parametrize(
    "record",
    [
        {"vocabulary": {}}, {"vocabulary": {"bytes": "x"}}, {"training": {}}, {"training": {"options": 7}},
        {"vocabulary": {"bytes": 1, "source_bytes": 10**400, "pieces": 1, "source_pieces": 1, "texts": 1}},
    ],
)  # fmt: skip
def test_damaged_records_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json's record of a conversion is damaged"):
        card(record)


def test_a_record_without_a_source_is_refused() -> None:
    with pytest.raises(CheckpointError, match="record of a conversion is damaged"):
        model_card({"dtype": "float16", "mlx_rerank": {}}, 512, Path("nowhere"), name="name")
