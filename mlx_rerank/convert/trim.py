"""A smaller vocabulary: the pieces that a corpus uses, so that the embeddings of all others need not be stored.

A text whose pieces are all kept is read as before, token by token. A Unigram tokenizer takes the path of pieces with
the highest sum of scores. Leaving pieces out removes paths. It adds only paths through a single character that is
unknown now. An unknown character scores 10 below the lowest piece, which is less than before. So the best path, if all
of it is kept, is still the best, and the first among equals. The lowest score must stay the same, so a piece with that
score is always kept. What surrounds the model (normaliser, splits, added tokens) stays as it was.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.config import read_object
from mlx_rerank.checkpoints.files import ADDED_TOKENS_FILE, TOKENIZER_FILE, TOKENIZER_SETTINGS_FILE
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.pairs.arguments import require_sequence, require_unicode
from mlx_rerank.pairs.encoder import chunks
from mlx_rerank.pairs.tokenizing import failures_of

_HELD_OUT = 10  # every tenth text is held out
_LEAST_TO_HOLD_OUT = 100  # texts
_SPACE = "▁"  # what a space before a word becomes
_COMMON = "COMMON"  # the script of characters that all scripts use
_UNSCRIPTED = ("COMBINING", "MODIFIER", "VARIATION", "CARON", "KATAKANA-HIRAGANA")  # begin names of common letters
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))  # what an unknown character becomes with byte_fallback


@dataclass(frozen=True)
class Trimming:
    """What is left of a checkpoint's vocabulary.

    Args:
        kept: token ids of the source, ascending, int32; the new id of each is its place.
        words: path of the table of word embeddings.
        files: the new tokenizer.json, and those of its settings that name ids, by name.
        config: the new config.json.
        record: what was done, for the conversion record.
        texts: of the corpus, each once.
    """

    kept: np.ndarray
    words: str
    files: dict[str, str]
    config: dict[str, Any]
    record: dict[str, Any]
    texts: list[str]

    def select(self, parameters: Iterable[tuple[str, mx.array]]) -> Iterator[tuple[str, mx.array]]:
        """Yield parameters, lazily, with the rows of the word embeddings that are kept."""
        for name, value in parameters:
            yield name, value[mx.array(self.kept)] if name == f"{self.words}.weight" else value


def trim(checkpoint: Checkpoint, texts: Iterable[str]) -> Trimming:
    """Choose what is kept of a checkpoint's vocabulary, and write its tokenizer.json and config.json anew.

    Kept are the special tokens, the pieces that the texts are made of, and every single character of their scripts.

    Args:
        checkpoint: a Hugging Face one, whose tokenizer fits its model.
        texts: the corpus; a repeated text counts once.

    Raises:
        InputError: the corpus is no list of valid texts, or no text in it has a token.
        CheckpointError: the tokenizer is not a Unigram one with an unknown token.
    """
    path, tokenizer = checkpoint.directory / TOKENIZER_FILE, checkpoint.tokenizer()
    source: dict[str, Any] = json.loads(checkpoint.tokenizer_file())
    if source["model"].get("unk_id") is None:  # no other kind has one
        kind = type(tokenizer.model).__name__
        what = f"a {kind} one" if kind != "Unigram" else "one without an unknown token"
        raise CheckpointError(f"only a Unigram tokenizer with an unknown token can be trimmed; {path} is {what}")
    ids = tokenizer.get_vocab()
    config, size = dict(checkpoint.raw), checkpoint.shape.vocab_size
    places = [*_places(source, ids), *((config, key) for key in _id_keys(config, size))]
    for node, key in places:
        if type(node[key]) is not int or not 0 <= node[key] < size:
            raise CheckpointError(f"{path} has token id {node[key]!r:.40}, and the model's table {size} rows")
    special = {token["content"] for token in source.get("added_tokens", ())} | _BYTES
    pieces = {piece: i for piece, i in ids.items() if piece not in special}
    always = np.zeros(size, dtype=bool)
    always[[node[key] for node, key in places]] = True
    always[: checkpoint.shape.pad_token_id + 1] = True  # positions start after this id, so it must not change
    always[np.argmin([score for _, score in source["model"]["vocab"]])] = True
    if source["model"].get("byte_fallback"):
        always[[ids[piece] for piece in _BYTES & ids.keys()]] = True

    distinct = _distinct(texts)
    chosen, record = _choose(tokenizer, pieces, always, distinct)
    kept = np.flatnonzero(chosen).astype(np.int32)
    new = {int(old): place for place, old in enumerate(kept)}
    for node, key in places:
        node[key] = new[node[key]]
    source["model"]["vocab"] = [entry for entry, keep in zip(source["model"]["vocab"], chosen, strict=False) if keep]
    record = {"pieces": len(kept), "source_pieces": len(ids), **record}
    trimmed = config | {"vocab_size": len(kept)}
    files = {TOKENIZER_FILE: json.dumps(source, ensure_ascii=False), **_settings(checkpoint)}
    return Trimming(kept, checkpoint.family.words, files, trimmed, record, distinct)


def _settings(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the settings beside the tokenizer, without the ids that tokens no longer have."""
    files = {}
    with checkpoint.reading():
        settings = read_object(checkpoint.directory / TOKENIZER_SETTINGS_FILE)
        if settings is not None:
            settings.pop("added_tokens_decoder", None)
            files[TOKENIZER_SETTINGS_FILE] = json.dumps(settings)
        if (checkpoint.directory / ADDED_TOKENS_FILE).is_file():
            files[ADDED_TOKENS_FILE] = "{}"
    return files


def renumbering(source: Checkpoint, trimmed: Checkpoint) -> dict[int, int]:
    """Return the new id of each token id of a checkpoint that its trimmed copy has kept."""
    ours, theirs = trimmed.tokenizer().get_vocab(), source.tokenizer().get_vocab()
    return {theirs[piece]: place for piece, place in ours.items() if piece in theirs}


def _places(source: dict[str, Any], ids: Mapping[str, int]) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of every token id in a tokenizer.json apart from the vocabulary."""
    yield source["model"], "unk_id"
    for token in source.get("added_tokens", ()):
        token["id"] = ids.get(token["content"])  # the library goes by the text, whatever the file says
        yield token, "id"
    if source.get("padding"):
        yield source["padding"], "pad_id"
    yield from _processor_places(source.get("post_processor"))


def _processor_places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of every token id in a post-processor, however nested."""
    if isinstance(node, list):
        for item in node:
            yield from _processor_places(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "ids":  # of a template
                yield from ((value, i) for i in range(len(value)))
            elif key in ("cls", "sep") and isinstance(value, list):  # two older kinds: [token, id]
                yield value, 1
            else:
                yield from _processor_places(value)


def _id_keys(config: Mapping[str, Any], size: int) -> list[str]:
    """Return the keys of a config.json that hold a token id."""
    return [
        key for key, value in config.items() if key.endswith("_token_id") and type(value) is int and 0 <= value < size
    ]


def _choose(
    tokenizer: Tokenizer, pieces: Mapping[str, int], always: np.ndarray, texts: list[str]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return which tokens are kept, bool [V], and facts about the texts.

    If there are many texts, every tenth is held out first, to see how many of them the others' pieces suffice for.
    """
    used, aside, held_out, count = np.zeros_like(always), np.zeros_like(always), [], 0
    for count, tokens in enumerate(_tokens(tokenizer, texts), 1):
        if count % _HELD_OUT:
            used[tokens] = True
        else:
            held_out.append(tokens)
            aside[tokens] = True
    if not count:
        raise InputError("the corpus to trim the vocabulary to holds no text: give one that is like what will be read")
    record: dict[str, Any] = {"texts": count, "held_out_texts": None, "held_out_share": None}
    if count >= _LEAST_TO_HOLD_OUT:
        known = always | _with_characters(used, pieces)
        whole = sum(bool(known[tokens].all()) for tokens in held_out)
        record |= {"held_out_texts": len(held_out), "held_out_share": whole / len(held_out)}
    return always | _with_characters(used | aside, pieces), record


def _distinct(texts: Iterable[str]) -> list[str]:
    """Return each text of a corpus once, without those that are blank."""
    require_sequence("the corpus", texts)
    given: dict[str, None] = {}
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"the corpus must hold texts; text {i} is a {type(text).__name__}: {str(text)[:60]!r}")
        require_unicode(text, f"text {i} of the corpus: ")
        if text.strip():
            given[text] = None
    return list(given)


def _tokens(tokenizer: Tokenizer, texts: list[str]) -> Iterator[np.ndarray]:
    """Yield the distinct token ids of each text that has any."""
    for chunk in chunks(texts):
        with failures_of("the checkpoint"):
            encodings = tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
        for encoding in encodings:
            if encoding.ids:
                yield np.unique(encoding.ids).astype(np.int32)


def _with_characters(used: np.ndarray, pieces: Mapping[str, int]) -> np.ndarray:
    """Return the used tokens, and every single character of the scripts that they are written in."""
    scripts = {_COMMON} | {_script(character) for piece, i in pieces.items() if used[i] for character in piece}
    found = used.copy()
    for piece, i in pieces.items():
        character = piece.removeprefix(_SPACE) or piece
        found[i] |= len(character) == 1 and _script(character) in scripts
    return found


def _script(character: str) -> str:
    """Return the script of a letter, by the first word of its Unicode name; digits, signs and accents are common."""
    first = unicodedata.name(character, "").partition(" ")[0]
    if unicodedata.category(character)[0] not in "LM" or first in _UNSCRIPTED:
        return _COMMON
    return "CJK" if first == "IDEOGRAPHIC" else first  # the marks of repetition and closure, written among CJK
