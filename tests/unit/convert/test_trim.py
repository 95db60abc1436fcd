"""Trimming the vocabulary: what is kept, that texts of kept pieces read as before, and tokenizers that are refused."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import TINY, embedded_tokenizer, write_checkpoint
from corpora import CORPORA, HOSTILE, SAMPLES
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.hub import EMBEDDED
from mlx_rerank.convert import convert
from mlx_rerank.convert.trim import Trimming, trim
from mlx_rerank.errors import CheckpointError

WORDS = sorted({word for text in SAMPLES + HOSTILE for word in text.split()})
PARTS = [*"aeinrst ", "panda", "<mask>", "<s>", "ﬁ", "熊", "\u0301", "🐼", "ꙮ"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def trimmed(directory: Path, texts: list[str]) -> tuple[Trimming, Tokenizer]:
    trimming = trim(Checkpoint.open(directory), texts)
    return trimming, Tokenizer.from_str(trimming.files["tokenizer.json"])


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def require_same_reading(full: Tokenizer, left: tuple[Trimming, Tokenizer], text: str) -> bool:
    """Check that a text reads as before if the full tokenizer's tokens are all kept, and tell whether they are."""
    trimming, ours = left
    before = ids_of(full, text)
    kept = set(before) <= set(trimming.kept.tolist())
    if kept:
        assert trimming.kept[ids_of(ours, text)].tolist() == before
    return kept


@pytest.fixture(scope="module")
def mini_vocabularies() -> dict[str, tuple[Trimming, Tokenizer]]:
    return {name: trimmed(EMBEDDED["mini"], texts) for name, texts in CORPORA.items()}


@pytest.fixture(scope="module")
def mini_full() -> Tokenizer:
    return embedded_tokenizer()


@pytest.mark.parametrize("name", CORPORA)
def test_the_corpus_reads_as_before(mini_vocabularies: dict, mini_full: Tokenizer, name: str) -> None:
    assert all(require_same_reading(mini_full, mini_vocabularies[name], text) for text in CORPORA[name])


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(CORPORA)),
    st.one_of(
        st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
        st.text(st.sampled_from(sorted(set("".join(WORDS)))), max_size=30),
        st.lists(st.sampled_from(PARTS)).map("".join),
    ),
)
def test_any_text_of_kept_pieces_reads_as_before(
    mini_vocabularies: dict, mini_full: Tokenizer, name: str, text: str
) -> None:
    event(f"kept: {require_same_reading(mini_full, mini_vocabularies[name], text)}")


def vocabulary(*pieces: tuple[str, float], byte_fallback: bool = False) -> Tokenizer:
    """Return a Unigram tokenizer of special tokens, pieces and a mask, split at spaces."""
    entries = [*((token, 0.0) for token in SPECIAL), *pieces, ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(entries, unk_id=3, byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([*SPECIAL, AddedToken("<mask>", lstrip=True, special=True)])
    return tokenizer


def trim_it(tokenizer: Tokenizer, texts: list[str], **config: object) -> tuple[Trimming, Tokenizer]:
    raw = TINY | {"vocab_size": tokenizer.get_vocab_size()} | config
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save(f"{directory}/tokenizer.json")
        (Path(directory) / "config.json").write_text(json.dumps(raw))
        trimming = trim(Checkpoint.open(directory), texts)
    return trimming, Tokenizer.from_str(trimming.files["tokenizer.json"])


LETTERS = "abбв"  # of two scripts, so that a corpus of one of them leaves single characters out
PIECES = st.text(st.sampled_from("▁" + LETTERS + "ж"), min_size=1, max_size=3)
SCORES = st.sampled_from([-1.0, -2.0, -3.0, -5.0, -60.0, -150.0])  # few, so that paths tie
TEXTS = st.text(st.sampled_from(LETTERS + "ж "), max_size=8)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(PIECES, SCORES), max_size=20),
    st.lists(TEXTS, min_size=1, max_size=3),
    st.lists(TEXTS, min_size=1, max_size=8),
    st.booleans(),
)
def test_any_vocabulary_reads_its_corpus_and_texts_of_kept_pieces_as_before(
    pieces: list[tuple[str, float]], corpus: list[str], others: list[str], byte_fallback: bool
) -> None:
    some_bytes = [(f"<0x{byte:02X}>", -4.0) for byte in "ж".encode()] if byte_fallback else []
    full = vocabulary(*pieces, *some_bytes, byte_fallback=byte_fallback)  # a piece may come twice, with another score
    trimming, ours = trim_it(full, [*corpus, "a"])
    assert all(require_same_reading(full, (trimming, ours), text) for text in corpus)
    for text in others:
        require_same_reading(full, (trimming, ours), text)


def test_the_lowest_score_stays_so_that_unknown_characters_cost_the_same() -> None:
    pieces = [("▁", -1.0), ("▁a", -60.0), ("bж", -60.0), ("▁ab", -5.0), ("ввв", -150.0)]
    full = vocabulary(*pieces)
    trimming, ours = trim_it(full, ["abж", "ab"])
    assert full.encode("abж").tokens == ["▁a", "bж"]  # -120, against -5 - 160 with an unknown character
    assert ours.encode("abж").tokens == ["▁a", "bж"]
    assert ours.token_to_id("ввв") is not None
    assert "в" not in trimming.files["tokenizer.json"].replace("ввв", "")


def pieces_of(tokenizer: Tokenizer) -> str:
    return " ".join(str(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size()))


def test_what_is_kept() -> None:
    pieces = "▁bear ▁bears ▁ a b B é ▁d 7 ▁8 , 熊 熊猫 猫 ж ▁ж ▁the е\u0301 \u0301 🐼 low"
    full = vocabulary(*((piece, -2.0 - i) for i, piece in enumerate(pieces.split())))
    kept = pieces_of(trim_it(full, ["bear 熊猫"])[1])
    assert kept == "<s> <pad> </s> <unk> ▁bear ▁ a b B é ▁d 7 ▁8 , 熊 熊猫 猫 \u0301 🐼 low <mask>"
    marks = ["▁bear", "ー", "々", "\ufe0f", "ˇ", "ж", "熊", "マ", "low"]
    common = vocabulary(*((piece, -2.0 - i) for i, piece in enumerate(marks)))
    assert pieces_of(trim_it(common, ["bear"])[1]) == "<s> <pad> </s> <unk> ▁bear ー \ufe0f ˇ low <mask>"
    assert pieces_of(trim_it(common, ["熊"])[1]) == "<s> <pad> </s> <unk> ー 々 \ufe0f ˇ 熊 low <mask>"
    kept = pieces_of(trim_it(full, ["<s> 7 </s>"])[1])  # special tokens have no script
    assert kept == "<s> <pad> </s> <unk> ▁ 7 ▁8 , \u0301 🐼 low <mask>"


def test_bytes_are_kept_for_unknown_characters() -> None:
    pieces = [("▁", -1.0), ("a", -2.0), *((f"<0x{byte:02X}>", -3.0 - byte) for byte in range(256))]
    full = vocabulary(*pieces, byte_fallback=True)
    trimming, ours = trim_it(full, ["a"])
    assert require_same_reading(full, (trimming, ours), "жa🐼")
    assert ours.encode("ж").tokens == ["▁", "<0xD0>", "<0xB6>"]


def test_every_id_follows() -> None:
    full = vocabulary(*((piece, -2.0 - i) for i, piece in enumerate(["▁x", "▁yy", "▁zz", "▁a"])))
    full.add_tokens(["<extra>"])  # behind the vocabulary, with no score
    template = processors.TemplateProcessing(
        "<mask> $A </s>", "$A </s> $B <extra>", [("<mask>", 8), ("</s>", 2), ("<extra>", 9)]
    )
    full.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    full.enable_padding(pad_id=1, pad_token="<pad>")
    ids = {"mask_token_id": 8, "decoder_start_token_id": 2, "forced_eos_token_id": None, "sep_token_id": 99}
    trimming, ours = trim_it(full, ["a <extra>"], vocab_size=12, **ids)
    assert trimming.kept.tolist() == [0, 1, 2, 3, 4, 7, 8, 9]  # <unk>, ▁x (a single letter), ▁a, <mask>, <extra>
    assert trimming.config["vocab_size"] == 8
    followed = ("mask_token_id", "decoder_start_token_id", "forced_eos_token_id", "sep_token_id", "pad_token_id")
    assert [trimming.config[key] for key in followed] == [6, 2, None, 99, 1]
    for text in ("a", "a <mask> b", "a<extra>x"):
        assert ours.encode(text).tokens == full.encode(text).tokens
        assert trimming.kept[ours.encode(text).ids].tolist() == full.encode(text).ids
        assert trimming.kept[ours.encode(text, "x").ids].tolist() == full.encode(text, "x").ids
    source, written = json.loads(full.to_str()), json.loads(trimming.files["tokenizer.json"])
    assert [token["id"] for token in written["added_tokens"]] == [0, 1, 2, 3, 6, 7]
    assert {key: written[key] for key in ("normalizer", "pre_tokenizer", "decoder")} == {
        key: source[key] for key in ("normalizer", "pre_tokenizer", "decoder")
    }
    full.post_processor = processors.RobertaProcessing(("<mask>", 8), ("<s>", 0))
    trimming, ours = trim_it(full, ["a"])
    assert trimming.kept[ours.encode("a").ids].tolist() == full.encode("a").ids


def test_the_padding_id_stays_because_positions_start_after_it() -> None:
    pieces = [("<unk>", 0.0), ("▁far", -2.0), ("<s>", 0.0), ("<pad>", 0.0), ("a", -1.0), ("low", -9.0), ("off", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0))
    tokenizer.add_special_tokens(["<s>", "<pad>", "<unk>"])
    trimming, _ = trim_it(tokenizer, ["a"], pad_token_id=3, bos_token_id=2, eos_token_id=2)
    assert trimming.kept.tolist() == [0, 1, 2, 3, 4, 5]


def test_scores_are_written_with_all_their_digits(mini_vocabularies: dict, mini_full: Tokenizer) -> None:
    trimming, ours = mini_vocabularies["thirds"]
    before, after = (json.loads(tokenizer.to_str())["model"]["vocab"] for tokenizer in (mini_full, ours))
    assert after == [before[i] for i in trimming.kept]


def test_few_texts_are_not_held_out(tiny: Path) -> None:
    assert trimmed(tiny, [f"{i} cab" for i in range(99)])[0].record["held_out_share"] is None
    assert trimmed(tiny, [f"{i} cab" for i in range(100)])[0].record["held_out_share"] == 1
    assert trimmed(tiny, ["cab"] * 500)[0].record["texts"] == 1


def test_other_tokenizers_are_named(tmp_path: Path) -> None:
    pieces = {token: i for i, token in enumerate([*SPECIAL, *map(chr, range(97, 160))])}
    for name, model in (
        ("a WordLevel one", models.WordLevel(pieces, unk_token="<unk>")),
        ("a BPE one", models.BPE(pieces, [], unk_token="<unk>")),
        ("one without an unknown token", models.Unigram([(token, -1.0) for token in pieces], None)),
    ):
        tokenizer = Tokenizer(model)
        tokenizer.add_special_tokens(SPECIAL)
        source = write_checkpoint(tmp_path / name, tokenizer=tokenizer)
        with pytest.raises(CheckpointError, match=f"only a Unigram tokenizer .* is {name}"):
            convert(source, tmp_path / "target", trim_vocab=["a"])


def test_unusual_files_of_tokenizers(tmp_path: Path) -> None:
    full = vocabulary(("▁a", -2.0), ("▁b", -3.0))
    raw = TINY | {"vocab_size": full.get_vocab_size()}
    (tmp_path / "config.json").write_text(json.dumps(raw))

    def kept_of(change: Callable[[dict], object]) -> dict:
        file = json.loads(full.to_str())
        change(file)
        (tmp_path / "tokenizer.json").write_text(json.dumps(file))
        return json.loads(trim(Checkpoint.open(tmp_path), ["b"]).files["tokenizer.json"])

    assert len(kept_of(lambda file: file.pop("added_tokens"))["model"]["vocab"]) == 6  # <mask> is no special one now
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}
    found = kept_of(lambda file: file.update(padding=padding | {"pad_id": 6, "pad_token": "<mask>"}))
    assert found["padding"]["pad_id"] == [piece for piece, _ in found["model"]["vocab"]].index("<mask>")
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 2], "trim_offsets": True, "add_prefix_space": True}
    with pytest.raises(CheckpointError, match="has token id 500, and the model's table 7 rows"):
        kept_of(lambda file: file.update(post_processor=roberta | {"cls": ["<s>", 500]}))
    template = {"id": "cls", "ids": [0], "tokens": ["<s>"]}  # a name of its author's choice
    single = [{"SpecialToken": {"id": "cls", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    parts = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {"cls": template}}
    assert kept_of(lambda file: file.update(post_processor=parts))["post_processor"] == parts
