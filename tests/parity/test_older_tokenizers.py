"""A checkpoint without a tokenizer.json: made from its vocabulary as the original does, or refused with what helps."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from checkpoints import TINY, tiny_tokenizer, write_checkpoint
from fake_hub import FakeHub
from families import test_bert
from families.checks import seeded, write
from tokenizers import Tokenizer

from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.hub import resolve
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError
from mlx_rerank.pairs.samples import sample_pairs

TEXTS = sorted({text for pair in sample_pairs() for text in pair if text})


@pytest.fixture(scope="module")
def pieces() -> bytes:
    """A sentencepiece model, as XLM-RoBERTa's are."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=written, vocab_size=400, hard_vocab_limit=False, minloglevel=2,
        character_coverage=1.0,
    )  # fmt: skip
    return written.getvalue()


@pytest.fixture
def older(pieces: bytes, tmp_path: Path) -> Path:
    """A directory as it was written before there was a tokenizer.json."""
    size = sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size() + 2  # a shift, and the mask
    directory = write_checkpoint(tmp_path / "older", TINY | {"vocab_size": size})
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").unlink()
    (directory / "sentencepiece.bpe.model").write_bytes(pieces)
    return directory


def test_the_tokenizer_is_made_from_the_sentencepiece_model(older: Path, pieces: bytes, tmp_path: Path) -> None:
    encoder = Checkpoint.open(older).encoder()
    original = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    for text in TEXTS:
        ids = [i + 1 if i else 3 for i in original.encode(text)]  # as fairseq numbers them
        assert encoder.tokens(text)[0] == ids
    pairs = [(TEXTS[0], text) for text in TEXTS[1:5]]
    expected = Reranker(older).logits(pairs).logits
    assert len({*expected.tolist()}) == 4
    converted = convert(older, tmp_path / "converted", dtype="float32")
    assert Tokenizer.from_file(str(converted / "tokenizer.json")).get_vocab_size() == encoder_size(older)
    np.testing.assert_array_equal(Reranker(converted).logits(pairs).logits, expected)


def encoder_size(directory: Path) -> int:
    return Checkpoint.open(directory).shape.vocab_size


def test_the_hub_s_older_models(older: Path, hub: FakeHub, tmp_path: Path) -> None:
    hub.publish("test/older", older)
    expected = Reranker(older, dtype="float32").score("panda", "a bear")
    assert Reranker("test/older", dtype="float32", cache_dir=tmp_path / "hub").score("panda", "a bear") == expected
    (older / "tokenizer.json").write_bytes(Checkpoint.open(older).tokenizer_file())
    hub.publish("test/newer", older)
    directory = resolve("test/newer", cache_dir=tmp_path / "hub")
    assert not (directory / "sentencepiece.bpe.model").exists()  # which is not needed then


def test_without_any_vocabulary_the_remedy_helps(tmp_path: Path, tiny: Path) -> None:
    directory = shutil.copytree(tiny, tmp_path / "trained")
    (directory / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer.json: copy that of the model that this one was made"):
        Reranker(directory)
    shutil.copy(tiny / "tokenizer.json", directory)
    assert Reranker(directory).score("panda", "bear") == Reranker(tiny).score("panda", "bear")


def test_a_vocabulary_that_cannot_be_read(older: Path) -> None:
    (older / "sentencepiece.bpe.model").write_bytes(b"no pieces")
    with pytest.raises(CheckpointError, match=r"none can be made from its vocabulary"):
        Reranker(older)


def test_a_tokenizer_of_another_model(tiny: Path, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    directory = shutil.copytree(tiny, tmp_path / "nonsense")
    few = json.loads(tiny_tokenizer().to_str())
    few["model"]["vocab"] = few["model"]["vocab"][:4] + few["model"]["vocab"][-1:]
    few["added_tokens"] = []
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(few))).save_pretrained(directory)
    with pytest.raises(CheckpointError, match=r"has 5 tokens, and the model's table 120 rows: copy the tokenizer.json"):
        Reranker(directory)
    shutil.copy(tiny / "tokenizer.json", directory)
    assert Reranker(directory).score("panda", "bear") > 0


def test_a_bert_of_a_word_list(tmp_path: Path) -> None:
    words = [*test_bert.SPECIAL, *["the", "panda", "bear", "eats", "what", "is", "a", "where", "##s", "?", "."]]
    config = test_bert.TestBert.config | {"vocab_size": len(words)}
    directory = write(tmp_path / "bert", config, seeded(test_bert.FAMILY, config), test_bert.wordpiece())
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (directory / "vocab.txt").write_text("\n".join(words))
    encoder = Checkpoint.open(directory).encoder()
    assert encoder.tokens("The PANDAS eats?")[0] == [words.index(word) for word in ("the", "panda", "##s", "eats", "?")]
    assert Reranker(directory).score("panda", "a bear") != Reranker(directory).score("panda", "the bear")
