"""The JSON files of a checkpoint directory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.reading import read_text
from mlx_rerank.errors import CheckpointError, UnsupportedModelError

CONVERSION_KEY = "mlx_rerank"  # of config.json, under which a converted directory says what was done
_RECORDED = {  # there, and of what type; what is missing was not recorded yet, or does not apply
    "version": str,
    "source": str,
    "revision": (str, type(None)),
    "packing": str,
    "vocabulary": dict,
    "training": dict,
}
_MOST = 2**26  # bytes of a JSON file; the largest index of shards has a fiftieth of it


def read_config(directory: Path) -> dict[str, Any]:
    """Return the config.json of a checkpoint directory as a dict.

    Raises:
        CheckpointError: there is none, or it is not a JSON object.
    """
    config = read_object(directory / "config.json")
    if config is None:
        raise CheckpointError(f"{directory} has no config.json, so it is not a checkpoint directory")
    return config


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that a file holds; None where there is no file.

    Raises:
        CheckpointError: it holds anything else, or cannot be read.
    """
    found = _read(path, missing := object())
    if found is missing:
        return None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not a JSON object")
    return found


def read_objects(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of the list that a file holds; none where there is no file.

    Raises:
        CheckpointError: it holds anything else, or cannot be read.
    """
    found = _read(path, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise CheckpointError(f"{path} does not hold a list of JSON objects")
    return found


def entry(values: Mapping[str, Any], name: str, kind: Any, default: Any = None) -> Any:
    """Return an entry of a kind; the default where there is none, or null.

    Args:
        values: of a file of settings.
        name: of the entry.
        kind: a type, or a union of types.
        default: its value if it is not there.

    Raises:
        CheckpointError: it is of another kind.
    """
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = getattr(kind, "__name__", kind)  # a union has no name
        raise CheckpointError(
            f"the checkpoint's {name} is {value!r:.80}, where {wanted} is expected: correct it, or leave it out"
        )
    return value


def is_converted(config: Mapping[str, Any]) -> bool:
    """Tell a directory written by this package's converter from a Hugging Face one."""
    return CONVERSION_KEY in config


def conversion_record(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a converted directory says was done; nothing of a Hugging Face one.

    Raises:
        CheckpointError: it is no JSON object, or has an entry of the wrong type.
    """
    record = config.get(CONVERSION_KEY, {})
    if not isinstance(record, dict):
        raise CheckpointError(f"config.json holds {record!r:.40} under {CONVERSION_KEY!r}, not an object")
    for name, kind in _RECORDED.items():
        if name in record and not isinstance(record[name], kind):
            raise CheckpointError(
                f"config.json records {record[name]!r:.40} as the {name} of a conversion: convert the model again"
            )
    return record


def require_unpacked(raw: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError for weights that another tool packs, or has packed."""
    for key in ("quantization", "quantization_config"):
        if raw.get(key) is not None:
            raise UnsupportedModelError(
                f"config.json has {key} {raw[key]!r:.80}: mlx-rerank does not read what other tools have packed; "
                "give it the checkpoint that is not packed, and pack that with `mlx-rerank convert -q`"
            )


def _read(path: Path, missing: Any) -> Any:
    """Return what a file of JSON holds; `missing` where there is no file."""
    try:
        text = read_text(path, _MOST)
        found = json.loads(text)
        if "\\ud" in text.lower():  # half of a character, which Python reads and no library takes
            json.dumps(found, ensure_ascii=False).encode()
    except FileNotFoundError:
        return missing
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    return found
