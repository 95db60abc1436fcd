"""Models of a trimmed vocabulary: scores as before, what is recorded and said, packing, refusals, verification."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import TINY, random_tensors, tiny_tokenizer, write_checkpoint
from commands import run_here
from corpora import CORPORA
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import conversion, convert
from mlx_rerank.convert.trim import Trimming
from mlx_rerank.errors import InputError
from mlx_rerank.proof.verify import verify


def pairs_of(texts: list[str]) -> list[tuple[str, str]]:
    """Return each text beside one of the five shortest: a single pair is of a length that is cut."""
    ordered = sorted(texts, key=len)
    return [(ordered[i % 5], text) for i, text in enumerate(ordered)]


@pytest.mark.one_kernel
@pytest.mark.numeric
@pytest.mark.parametrize(
    "packing", [{}, {"layers": Quantization(32, 4, "affine"), "embeddings": Quantization(32, 4, "affine")}]
)
def test_texts_of_kept_pieces_score_as_before(mini_directory: Path, tmp_path: Path, packing: dict) -> None:
    texts = CORPORA["thirds"][::4]
    whole = convert(mini_directory, tmp_path / "whole", dtype="float32", **packing) if packing else mini_directory
    target = convert(mini_directory, tmp_path / "target", dtype="float32", trim_vocab=texts, **packing)
    options = {"dtype": "float32", "device": "cpu", "deterministic": True}
    expected = Reranker(whole, **options).logits(pairs_of(texts)).logits
    for embeddings in ("resident", "mapped"):
        found = Reranker(target, **options, embeddings=embeddings).logits(pairs_of(texts)).logits
        np.testing.assert_array_equal(found, expected)


@pytest.mark.one_kernel
@pytest.mark.numeric
@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.text(st.sampled_from("abcpanda ing.7é熊猫<Ж"), min_size=1), min_size=1, max_size=6), st.integers(0, 99)
)
def test_any_corpus_scores_as_before(corpus: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = write_checkpoint(Path(directory) / "source", tensors=random_tensors(TINY, seed))
        target = convert(source, Path(directory) / "target", dtype="float32", trim_vocab=[*corpus, "a"])
        options = {"dtype": "float32", "device": "cpu", "deterministic": True}
        pairs = [(query, document) for query in ["a", *corpus] for document in corpus]
        before, after = (Reranker(path, **options).logits(pairs).logits for path in (source, target))
        np.testing.assert_array_equal(after, before)


def test_what_is_recorded_and_said(tiny: Path, tmp_path: Path) -> None:
    texts = [f"{i} cab" for i in range(119)]
    for i in (9, 19, 29):
        texts[i] = f"{i} panda the"  # held out: every tenth text
    texts[28], texts[38], texts[39] = "28 the", "38 the", "39 zq"  # single letters are always kept
    texts[5] = texts[4]  # counts once, so that what follows moves up
    texts.insert(5, "a text more")
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"_id": str(i), "title": "", "text": text} for i, text in enumerate(texts)]
    corpus.write_text("\n".join(map(json.dumps, [*rows, {"text": "", "title": "King"}])))
    command = ["convert", "--hf-path", str(tiny), "--mlx-path", str(tmp_path / "out"), "--trim-vocab", str(corpus)]
    run = run_here(*command)
    record = json.loads((tmp_path / "out" / "config.json").read_text())["mlx_rerank"]["vocabulary"]
    full, kept = tiny_tokenizer(), Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_vocab()
    lost = set(full.get_vocab()) - set(kept)
    assert {"▁bear", "er", "熊"} <= lost
    assert not lost & {"▁panda", "▁the", "ing", "é"}
    assert record == {
        "pieces": len(kept),
        "source_pieces": 96,
        "texts": 120,
        "held_out_texts": 12,
        "held_out_share": 8 / 12,
        "bytes": len(kept) * 128,
        "source_bytes": 120 * 128,
    }
    said = f"{len(kept)} of 96 pieces, those of 120 texts; word embeddings of 0.0 MB instead of 0.0 MB; "
    said += "with the pieces of the other texts alone, 66.7% of 12 held-out texts keep all tokens"
    assert run.stderr.endswith(f"vocabulary: {said}\n")
    assert f"| vocabulary | {said} |\n| longest pair |" in (tmp_path / "out" / "README.md").read_text()


def test_with_measured_packing(tiny: Path, tmp_path: Path) -> None:
    target = convert(tiny, tmp_path / "target", target_bits=6.5, trim_vocab=["what is the panda"])
    assert "packing" in json.loads((target / "config.json").read_text())["mlx_rerank"]
    assert np.isfinite(Reranker(target).score([("what is", "the panda"), ("熊", "bear")])).all()


def test_packing_is_measured_on_what_can_be_read(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[int] = []
    measure = conversion.measured_recipe

    def watched(model: object, family: object, shape: object, batches: list, *arguments: object) -> object:
        tokens.extend(int(token) for batch in batches for token in np.array(batch["input_ids"]).ravel())
        return measure(model, family, shape, batches, *arguments)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(conversion, "measured_recipe", watched)
    texts = (f"what is the panda {word}" for word in ("bear", "bamboo", " "))
    target = convert(tiny, tmp_path / "target", target_bits=6.5, trim_vocab=texts)
    assert tokens
    assert Tokenizer.from_file(str(target / "tokenizer.json")).token_to_id("<unk>") not in tokens


def test_the_card_of_a_trimmed_model_names_no_languages(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny, source)
    (source / "README.md").write_text("---\nlanguage: [en, zh]\n---\n")
    cards = [convert(source, tmp_path / name, trim_vocab=texts) for name, texts in (("a", None), ("b", ["the panda"]))]
    assert ["- zh" in (card / "README.md").read_text() for card in cards] == [True, False]


def test_refusals_leave_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    for texts, message in (
        ([], "holds no text"),
        (["", " \n"], "holds no text"),
        ("corpus.txt", "the corpus must be a list, not a str"),
        (["a", {"text": "b"}], "text 1 is a dict"),
        (["a", "b\ud800"], "text 1 of the corpus: character 1 .* is a lone surrogate"),
    ):
        with pytest.raises(InputError, match=message):
            convert(tiny, tmp_path / "target", trim_vocab=texts)  # pyright: ignore[reportArgumentType]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"\x80", "is not UTF-8"), (b"{}", "has no text"), (b"\n", "no text")],
)
def test_files_that_are_no_corpus(tiny: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    corpus = tmp_path / "corpus"
    if content is not None:
        corpus.write_bytes(content)
    command = ["convert", "--hf-path", str(tiny), "--mlx-path", str(tmp_path / "out"), "--trim-vocab", str(corpus)]
    run = run_here(*command, code=1)
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_verification_compares_what_can_be(mini_directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    texts = ["what do pandas eat?", "Pandas eat bamboo.", "A bear of China."]
    target = convert(mini_directory, tmp_path / "target", dtype="float32", trim_vocab=texts)
    kept, lost = [(texts[0], text) for text in texts], [("熊", "bear"), ("panda", "отель")]
    report = verify(target, against=mini_directory, pairs=kept + lost, device="cpu")
    assert report.passed, report.problems
    assert report.fidelity is not None
    assert report.fidelity.pairs == len(kept)
    assert report.reference.endswith("; 2 of 5 pairs are left out, which the trimmed vocabulary reads otherwise")
    assert verify(target, pairs=kept + lost, device="cpu").passed  # of the same weights, all can be
    with pytest.raises(InputError, match="none of the 2 pairs keeps its tokens"):
        verify(target, against=mini_directory, pairs=lost, device="cpu")


def test_the_command_verifies_on_texts_of_the_corpus(mini_directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    corpus, target = tmp_path / "corpus.jsonl", tmp_path / "target"
    corpus.write_text("\n".join(map(json.dumps, CORPORA["thirds"][::3])), encoding="utf-8")
    command = ["convert", "--hf-path", str(mini_directory), "--mlx-path", str(target), "--dtype", "float32"]
    run_here(*command, "--trim-vocab", str(corpus), "--verify")
    report = json.loads((target / "verification.json").read_text())
    assert report["different_tokens"] == 0
    assert "left out" not in report["reference"]


def test_verification_notices_wrong_rows(mini_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    select = Trimming.select
    monkeypatch.setattr(
        Trimming,
        "select",
        lambda self, parameters: select(replace(self, kept=np.roll(self.kept, 1)), parameters),
    )
    texts = ["what do pandas eat?", "Pandas eat bamboo."]
    target = convert(mini_directory, tmp_path / "target", dtype="float32", trim_vocab=texts)
    assert not verify(target, against=mini_directory, pairs=[(texts[0], texts[1])], device="cpu").passed
