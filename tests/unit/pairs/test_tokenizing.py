"""A stranger's tokenizer.json: what it may do to a text, to the process, and to the ids."""

import json
from typing import Any

import pytest
from checkpoints import TINY, encoder_of, shape_of, tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, models

from mlx_rerank.errors import CheckpointError
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.frames import Frame
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.tokenizing import failures_of, largest_id, parse_tokenizer

EMPTY_PIECES = {"type": "FixedLength", "length": 0}  # on which the library panics whenever it is given a text
BACKTRACKING = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}  # panics on some texts alone
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
CHANGES = [
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AQAA"}}, "Precompiled"),
    ({"pre_tokenizer": EMPTY_PIECES}, "chunk size must be non-zero"),
    ({"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 40}}, r"1\.1e\+12 times as long, and 100 times"),
    ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [DOUBLING] * 9}]}}, "512"),
    ({"normalizer": {"type": "Replace", "pattern": {"Regex": "x*"}, "content": "y" * 200}}, "201 times"),
    ({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "<unk>"}}, "cannot be used"),
    ({"model": {"type": "Unigram", "vocab": [["b", 0.0]], "unk_id": None}}, "`unk_id` is missing"),
    ({"model": 7}, "cannot be used"),
]


def changed(**parts: Any) -> bytes:
    return json.dumps(json.loads(tiny_tokenizer().to_str()) | parts).encode()


@pytest.mark.parametrize(("parts", "message"), CHANGES)
def test_failures_of_the_library_name_the_file(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        parse_tokenizer(changed(**parts), "here/tokenizer.json")
    assert "the tokenizer of here/tokenizer.json cannot be used" in str(caught.value)


def test_a_text_that_the_library_panics_on_is_an_error() -> None:
    tokenizer = parse_tokenizer(changed(normalizer=BACKTRACKING), "here")
    encoder, text = encoder_of(tokenizer, shape_of(TINY)), "a" * 40 + "b"
    encoder.tokens("panda")
    with pytest.raises(CheckpointError, match=r"the tokenizer of tokenizer\.json cannot be used: .*retry-limit"):
        encoder.tokens(text)
    with pytest.raises(CheckpointError, match="retry-limit"):
        encoder.encode([("panda", text)], Limits(64))


def test_other_exits_are_left_alone() -> None:
    with pytest.raises(KeyboardInterrupt), failures_of("here"):
        raise KeyboardInterrupt


def test_its_own_truncation_and_padding_are_off() -> None:
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1}
    truncation = {"max_length": 1, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    tokenizer = parse_tokenizer(
        changed(padding=padding | {"pad_type_id": 0, "pad_token": "<pad>"}, truncation=truncation), "here"
    )
    assert 1 < len(tokenizer.encode("the panda").ids) < 20


WORDS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4}


def with_largest(largest: int) -> list[Tokenizer]:
    """Return tokenizers of several kinds whose largest id is the same; those that know few tokens say little."""
    unigram = Tokenizer(models.Unigram([(f"piece{i}", -1.0) for i in range(largest + 1)], unk_id=0))
    added = Tokenizer(models.Unigram([(f"piece{i}", -1.0) for i in range(largest)], unk_id=0))
    added.add_tokens([AddedToken("extra")])
    gap = WORDS | {"far": largest}
    return [
        unigram,
        added,
        Tokenizer(models.WordLevel(gap, unk_token="<unk>")),
        Tokenizer(models.WordPiece(gap, unk_token="<unk>")),
        Tokenizer(models.BPE(gap, [])),
    ]


@pytest.mark.parametrize("kind", range(5))
def test_the_largest_id_is_compared_and_not_the_number_of_tokens(kind: int) -> None:
    frame = Frame((0,), (2, 2), (2,), 1, 3)
    assert largest_id(with_largest(50)[kind]) == 50
    PairEncoder(with_largest(119)[kind], frame, 120)
    with pytest.raises(CheckpointError, match=r"here/it has a token of id 120; the model's table has 120 rows"):
        PairEncoder(with_largest(120)[kind], frame, 120, name="here/it")


@pytest.mark.parametrize("place", ["start", "middle", "end", "pad", "hidden"])
def test_ids_of_the_frame_are_compared_too(place: str) -> None:
    ids: dict[str, Any] = {"start": (0,), "middle": (2,), "end": (2,), "pad": 1, "hidden": 3}
    ids[place] = (120,) if isinstance(ids[place], tuple) else 120
    with pytest.raises(CheckpointError, match="a token of id 120"):
        PairEncoder(with_largest(50)[0], Frame(**ids), 120)
