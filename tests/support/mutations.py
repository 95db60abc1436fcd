"""Checkpoints as a stranger might have damaged or forged them: one seed, one change of one file, again and again."""

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEEP, LONG = "@deep@", "@long@"  # stand for what json itself would not write
_WRITTEN = {DEEP: "[" * 3000 + "]" * 3000, LONG: "9" * 5000}
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 16, 63, 64, 65, 119, 120, 121, 128, 1000, 10**6, 10**9, 2**31 - 1, 2**31,
    2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**31), -(2**63), 0.0, 0.5, 2.0, 64.0, 1e308, -1e308,
    1e-320, float("nan"), float("inf"), -float("inf"), "", "a", "64", "float16", "affine", "\x1b]52;c;aGk=\x07", "a\nb",
    "\u202e", "\ud800", "../../etc/passwd", "x" * 100_000, [], [1], [[[]]], {}, {"a": 1}, {"": None}, DEEP, LONG,
)  # fmt: skip
_REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 50}
_PARTS: dict[str, tuple[Any, ...]] = {  # of a tokenizer.json: some that fail as they are read, or when they are used
    "normalizer": (
        {"type": "Precompiled", "precompiled_charsmap": "AQAAAP//"},
        {"type": "Sequence", "normalizers": [_REPLACE] * 8},
        {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""},
        {"type": "Replace", "pattern": {"Regex": "("}, "content": ""},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None},
        {"type": "Prepend", "prepend": "\ud800"},
    ),
    "pre_tokenizer": (
        {"type": "FixedLength", "length": 0},
        {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": True},
        {"type": "Sequence", "pretokenizers": []},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ),
    "post_processor": (
        {"type": "RobertaProcessing", "sep": ["</s>", 2**32 - 1], "cls": ["<s>", 9_000_000], "trim_offsets": True,
         "add_prefix_space": False},
        {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 7}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 2**31}}],
         "special_tokens": {}},
    ),
    "truncation": ({"max_length": 1, "stride": 5, "strategy": "LongestFirst", "direction": "Right"},),
    "padding": (
        {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": 7, "pad_id": 10**6,
         "pad_type_id": 9, "pad_token": "x"},
    ),
    "model": (
        {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
         "vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 9_000_000, "a": 121}},
        {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 120}},
        {"type": "BPE", "vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5}, "merges": ["a b"],
         "continuing_subword_prefix": "########"},
        {"type": "Unigram", "unk_id": None, "vocab": [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0]]},
        {"type": "Unigram", "unk_id": 0, "vocab": []},
    ),
}  # fmt: skip

Random = random.Random
Mutation = Callable[[Random, Path], str]


def mutate(chance: Random, directory: Path) -> str:
    """Change a file of a checkpoint, and say how."""
    kinds: list[tuple[int, Mutation]] = [
        (4, _config), (4, _tokenizer), (1, _raw), (1, _text), (1, _file_of_another_kind),
    ]  # fmt: skip
    if any(directory.glob("*.safetensors")):
        kinds.append((3, _header))
    if (directory / "config_sentence_transformers.json").exists():
        kinds.append((1, _settings))
    if (directory / "model.safetensors.index.json").exists():
        kinds.append((4, _index))
    weights, functions = zip(*kinds, strict=True)
    try:
        return chance.choices(functions, weights)[0](chance, directory)
    except (ValueError, OSError, LookupError, AttributeError, TypeError, RecursionError, struct.error) as error:
        return f"nothing more ({error!r:.40})"  # a file that was changed before, and is none any more


def _config(chance: Random, directory: Path) -> str:
    """Change a value of config.json, in a converted directory often one of the record or the packing."""
    path = directory / "config.json"
    config = json.loads(_content(path))
    own = [config[key] for key in ("mlx_rerank", "quantization") if isinstance(config.get(key), dict)]
    said = _change(chance, chance.choice(own) if own and chance.random() < 0.5 else config)
    _write(path, config)
    return f"config.json {said}"


def _tokenizer(chance: Random, directory: Path) -> str:
    """Change a value of tokenizer.json, or a whole part of it."""
    path = directory / "tokenizer.json"
    tokenizer = json.loads(_content(path))
    if chance.random() < 0.4:
        name = chance.choice(list(_PARTS))
        tokenizer[name] = chance.choice(_PARTS[name])
        said = f"{name} {str(tokenizer[name])[:60]}"
    else:
        said = _change(chance, tokenizer)
    _write(path, tokenizer)
    return f"tokenizer.json {said}"


def _settings(chance: Random, directory: Path) -> str:
    """Change a value of what sentence-transformers and transformers keep beside the model."""
    path = directory / chance.choice(("config_sentence_transformers.json", "tokenizer_config.json"))
    settings = json.loads(_content(path))
    said = _change(chance, settings)
    _write(path, settings)
    return f"{path.name} {said}"


def _index(chance: Random, directory: Path) -> str:
    """Change the index of shards."""
    path = directory / "model.safetensors.index.json"
    index = json.loads(_content(path))
    if chance.random() < 0.5:
        name = chance.choice(list(index["weight_map"]))
        to = chance.choice(("/etc/passwd", "..", ".", "", path.name, "config.json", "no.safetensors", "a/b", "\0", 5))
        index["weight_map"][name] = to
        said = f"weight_map {name}: {to!r}"
    else:
        said = _change(chance, index)
    _write(path, index)
    return f"index {said}"


def _header(chance: Random, directory: Path) -> str:
    """Change the header of a safetensors file."""
    path = chance.choice(sorted(directory.glob("*.safetensors")))
    data = _content(path)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = chance.choice([name for name in header if name != "__metadata__"])
    entry, kind = header[name], chance.randrange(8)
    if kind == 0:
        entry["shape"] = [chance.choice(ODD) for _ in range(chance.randrange(4))]
    elif kind == 1:
        entry["shape"] = chance.choice(([0, 2**40], [2**32, 2**32], [2**63, 2], entry["shape"][::-1], [0], []))
    elif kind == 2:
        entry["data_offsets"] = chance.choice(([0, 0], [5, 1], [0, 2**63], [-1, 4], [0], header[min(header)]))
    elif kind == 3:
        entry["dtype"] = chance.choice(("F64", "I8", "BOOL", "F8_E4M3", "F4", "C64", "BF16", "U32", "Q9", 7, None))
    elif kind == 4:
        header[chance.choice(("extra", "a\x1b[31m", "", name + " ", "__metadata__"))] = header.pop(name)
    else:
        name = _change(chance, header)
    text = _text_of(header).encode("utf-8", "surrogatepass")
    if kind == 7:  # a name twice
        text = text[:-1] + b"," + text[1:] if len(text) > 2 else text
    claimed = chance.choice((0, 2**63, 2**40, len(text) - 1, len(text) + 1)) if chance.random() < 0.1 else len(text)
    _put(path, struct.pack("<Q", claimed) + text + data[8 + length :])
    return f"header kind {kind} {name[:60]}"


def _raw(chance: Random, directory: Path) -> str:
    """Flip, cut or add bytes of any file."""
    path = chance.choice([path for path in sorted(directory.iterdir()) if path.is_file()])
    data = bytearray(path.read_bytes())
    kind = chance.choice(("flip", "cut", "add", "double")) if data else "add"
    if kind == "flip":
        for _ in range(chance.choice((1, 1, 8, 200))):
            data[chance.randrange(min(len(data), chance.choice((16, 2000, len(data)))))] = chance.randrange(256)
    elif kind == "cut":
        del data[chance.randrange(len(data)) :]
    elif kind == "add":
        data += bytes(chance.randrange(256) for _ in range(chance.choice((1, 100))))
    else:
        data *= 2
    _put(path, bytes(data))
    return f"{path.name} {kind}"


def _text(chance: Random, directory: Path) -> str:
    """Replace a JSON file by what is none, or one in another form."""
    path = directory / chance.choice(("config.json", "tokenizer.json"))
    text = _content(path).decode()
    forms: tuple[bytes, ...] = (
        b"", b" ", b"null", b"[]", b"3", b"NaN", b'"a"', b"{}", b"{" * 5000, b"[" * 100_000, b'{"a":' * 3000,
        b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), text.encode("latin-1", "replace") + b"\xe9",
        text.encode()[:-1] + b',"hidden_size":-1,"vocab_size":' + b"9" * 5000 + b"}", text.encode() + text.encode(),
        text.encode()[:-1] + b',"num_hidden_layers":1000000000,"model":7}', b"\0" * 1000,
    )  # fmt: skip
    form = chance.choice(forms)
    _put(path, form)
    return f"{path.name} is {form[:20]!r}"


def _file_of_another_kind(chance: Random, directory: Path) -> str:
    """Put something in the place of a file that is none."""
    path = chance.choice(sorted(directory.iterdir()))
    path.unlink()
    kind = chance.choice(("nothing", "directory", "pipe", "loop", "endless", "dangling"))
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.symlink_to({"loop": path, "endless": "/dev/zero", "dangling": "/nowhere/at/all"}[kind])
    return f"{path.name} is {kind}"


def _change(chance: Random, tree: Any) -> str:
    """Replace, add or remove a value somewhere in a tree of dicts and lists, and say where."""
    node, path = tree, ""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return f"{path} (empty)"
        key = chance.choice(keys)
        path += f".{key}"
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.15:
            break
        node = inner
    if chance.random() < 0.1:
        del node[key]
        return f"{path[:60]} removed"
    value = chance.choice(ODD)
    node[key] = value
    return f"{path[:60]} = {str(value)[:30]!r}"


def _text_of(tree: Any) -> str:
    """Return a tree as JSON, with what json itself would not write."""
    text = json.dumps(tree)
    for mark, written in _WRITTEN.items():
        text = text.replace(json.dumps(mark), written)
    return text


def _content(path: Path) -> bytes:
    """Return the bytes of a file; what is no file any more could keep a reader waiting."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return path.read_bytes()


def _write(path: Path, tree: Any) -> None:
    """Write a tree as JSON."""
    _put(path, _text_of(tree).encode())


def _put(path: Path, data: bytes) -> None:
    """Write a new file in the place of one that others may share."""
    path.unlink()
    path.write_bytes(data)
