"""One list of checks for every family: a new one fails them until it is complete.

A test file of a family derives a class from `FamilyChecks` and states what is the family's own. Weights are seeded, of
std 0.15: with 0.02 every pair would have nearly the same logit, and a wrong model would pass.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer

from families.tiny import original_logits, seeded, write
from mlx_rerank import CrossEncoder, FlagReranker, Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.mapped import inputs_of
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.checkpoints.weights import stored_shapes
from mlx_rerank.convert import convert
from mlx_rerank.dtypes import NAMES, audit, parse_dtype
from mlx_rerank.models import FAMILIES, family_named, family_of
from mlx_rerank.models.family import Family, module_at
from mlx_rerank.pairs.batching import pad
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows
from mlx_rerank.proof.audit import audit_checkpoint
from mlx_rerank.proof.verify import verify
from mlx_rerank.train import Example, TrainingOptions, train

PAIRS = [
    ("what is a panda?", "the panda is a bear that eats bamboo"),
    ("what is a panda?", "rain"),
    ("where does the rain come from", "the rain comes from the sea, and the sea from the rain."),
    ("panda", ""),
    ("", "a bear"),
    ("bear bear bear bear bear bear bear bear", "no"),
    ("what is it?", "the panda " * 40),
    ("the bear " * 40, "what the panda eats"),
]
IDENTITY = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}


class FamilyChecks:
    """The list. Derive a class named Test... from it, and set what is the family's own."""

    name: ClassVar[str]  # of the family, as it is recorded
    config: ClassVar[dict[str, Any]]  # of a tiny checkpoint
    real: ClassVar[dict[str, Any]]  # changes of it to a shape that people use
    refused: ClassVar[list[tuple[dict[str, Any], str]]]  # changes that make a relative that is not run, and the reason
    original = staticmethod(original_logits)
    prompt: ClassVar[int] = 0  # tokens of a row that surround its texts, beside those that mark their ends
    trims: ClassVar[bool]  # whether vocabularies of its tokenizers can be trimmed

    @staticmethod
    def tokenizer() -> Tokenizer:
        """Return a tokenizer like the family's, with the words and letters of the pairs."""
        raise NotImplementedError

    @staticmethod
    def readable(directory: Path) -> Path:
        """Return where the originals find the same model."""
        return directory

    @pytest.fixture(scope="class")
    @classmethod
    def family(cls) -> Family:
        return family_named(cls.name)

    @pytest.fixture(scope="class")
    @classmethod
    def directory(cls, family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return cls.written(tmp_path_factory.mktemp(cls.name) / "tiny", family, cls.config)

    @classmethod
    def written(cls, target: Path, family: Family, config: Mapping[str, Any]) -> Path:
        """Write a seeded checkpoint."""
        return write(target, config, seeded(family, config), cls.tokenizer())

    @pytest.fixture(scope="class")
    @classmethod
    def short(cls, directory: Path) -> list[tuple[str, str]]:
        """Pairs that fit."""
        reranker = Reranker(directory)
        cut = reranker.logits(PAIRS).truncated_tokens
        return [pair for pair, tokens in zip(PAIRS, cut, strict=True) if not tokens]

    def test_it_is_registered_and_recognised_by_its_configuration_alone(self, family: Family) -> None:
        assert family in FAMILIES
        assert family_of(self.config) is family
        assert family.mapping.name

    def test_relatives_that_are_not_run_are_refused_saying_what_was_found(self) -> None:
        for change, reason in self.refused:
            with pytest.raises(Exception, match=reason) as caught:
                family_of(self.config | change)
            assert type(caught.value).__name__ == "UnsupportedModelError"

    def test_the_table_names_what_transformers_saves(self, family: Family, tmp_path: Path) -> None:
        import transformers

        its = family.in_transformers
        config = getattr(transformers, its.config).from_dict(dict(its.translated(self.config)))
        getattr(transformers, its.model)(config).save_pretrained(tmp_path)
        shapes = stored_shapes([tmp_path / "model.safetensors"])
        saved = {own: shapes[name] for own, name in family.names(shapes).items()}
        read = {name: shape for name, shape in saved.items() if not name.startswith(family.ignored)}
        expected = family.source_shapes(family.shape(self.config))
        assert read == {name: shape for name, shape in expected.items() if "/" not in name}  # modules are not its

    def test_every_parameter_has_a_rule(self, family: Family) -> None:
        shape = family.shape(self.config)
        from mlx.utils import tree_flatten

        parameters = {name for name, _ in tree_flatten(family.build(shape).parameters())}  # pyright: ignore
        assert {rule.target for rule in family.table(shape)} == parameters
        packable = [path for matrices in family.packable(shape) for path in matrices]
        assert {f"{path}.weight" for path in (*packable, family.words)} <= parameters

    def test_rows_are_those_of_the_tokenizers_own_pairs(self, directory: Path) -> None:
        from transformers import AutoTokenizer

        encoder, tokenizer = Checkpoint.open(directory).encoder(), AutoTokenizer.from_pretrained(directory)
        encoded = encoder.encode(PAIRS[:4], Limits(200))
        for (query, document), place in zip(PAIRS[:4], encoded.inverse, strict=True):
            row, expected = encoded.sequences[place], tokenizer([query], [document])
            assert row.ids.tolist() == expected["input_ids"][0]
            if encoder.frame.segments:
                assert [int(i >= row.second) for i in range(row.tokens)] == expected["token_type_ids"][0]

    def test_float32_logits_are_those_of_transformers(self, directory: Path, short: list[tuple[str, str]]) -> None:
        expected = self.original(directory, short)
        assert np.ptp(expected) > 0.5  # or equal logits would prove nothing
        found = Reranker(directory, device="cpu").logits(short).logits
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)

    def test_a_real_shape(self, family: Family, tmp_path: Path, short: list[tuple[str, str]]) -> None:
        config = self.config | self.real
        tokenizer = self.tokenizer()  # with more tokens, or it would be taken for another model's
        tokenizer.add_tokens([f"<{i}>" for i in range(config["vocab_size"] // 2)])
        directory = write(tmp_path / "real", config, seeded(family, config, std=0.06), tokenizer)
        expected = self.original(directory, short)
        assert np.ptp(expected) > 0.05
        np.testing.assert_allclose(Reranker(directory).logits(short).logits, expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_near(self, directory: Path, short: list[tuple[str, str]], dtype: str) -> None:
        exact = Reranker(directory).logits(short).logits
        found = Reranker(directory, dtype=dtype).logits(short).logits
        np.testing.assert_allclose(found, exact, atol=2e-2 if dtype == "float16" else 0.25, rtol=0)

    def test_padding_and_company_change_nothing(self, directory: Path) -> None:
        together = Reranker(directory).logits(PAIRS).logits
        alone = Reranker(directory, deterministic=True).logits(PAIRS).logits
        np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)

    def test_long_pairs_and_windows(self, directory: Path) -> None:
        whole = Reranker(directory, long_documents=Windows(16, 4), max_length=64 + self.prompt)
        scored = whole.logits(PAIRS[:7] if self.prompt else PAIRS)  # a prompt's query is read whole, or refused
        assert scored.truncated_tokens[6] == 0
        assert (scored.spans[6] != (0, len(PAIRS[6][1]))).any()
        assert Reranker(directory, max_length=16 + self.prompt).logits(PAIRS).truncated_tokens[6] > 0

    def test_the_audit_finds_nothing_and_names_a_planted_upcast(self, directory: Path, family: Family) -> None:
        cells = audit_checkpoint(str(directory))
        assert {cell.dtype for cell in cells} == set(NAMES)
        assert not [violation for cell in cells for violation in cell.report.violations]
        checkpoint, dtype = Checkpoint.open(directory), parse_dtype("float16")
        model = checkpoint.load(dtype, keep_quantized=False)
        path = next(iter(family.packable(checkpoint.shape)[0]))
        planted = module_at(model, path)
        planted.bias = mx.zeros(planted.weight.shape[0], mx.float32)
        row = checkpoint.encoder().encode(PAIRS[:1], Limits(64 + self.prompt)).sequences[0]
        found = audit(model, dtype, **inputs_of(pad([row], 0), checkpoint.shape, None))
        assert [violation.path for violation in found] == [path]

    def test_a_converted_directory_records_the_model_and_scores_alike(self, directory: Path, tmp_path: Path) -> None:
        target = convert(directory, tmp_path / "target", dtype="float32")
        record = json.loads((target / "config.json").read_text())["mlx_rerank"]
        checkpoint = Checkpoint.open(target)
        assert record["family"] == self.name == checkpoint.family.name
        assert (record["score_rule"], record["mapping"]) == (checkpoint.family.score_rule, checkpoint.mapping.name)
        assert record["frame"]["segments"] is checkpoint.encoder().frame.segments
        # The same weights and graph, but another process-wide batch plan is not promised the same bits.
        np.testing.assert_allclose(
            Reranker(target).logits(PAIRS).logits, Reranker(directory).logits(PAIRS).logits, atol=1e-5, rtol=0
        )

    @pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
    def test_packed_weights_load_again(self, directory: Path, tmp_path: Path, mode: str) -> None:
        sizes = {"affine": (32, 8), "mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}
        packing = Quantization(*sizes[mode], mode)
        target = convert(directory, tmp_path / "target", dtype="float32", layers=packing, embeddings=packing)
        packed, exact = Reranker(target).logits(PAIRS).logits, Reranker(directory).logits(PAIRS).logits
        assert np.isfinite(packed).all()
        if packing.bits == 8 and mode == "affine":
            assert np.abs(packed - exact).max() < 0.25  # what `verify` allows packed weights
        assert verify(target, pairs=PAIRS[:3], dtype="float32").passed  # against the same weights, unpacked by numpy

    def test_trimming_keeps_scores_or_says_why_not(self, directory: Path, tmp_path: Path) -> None:
        texts = [text for pair in PAIRS for text in pair]
        if not self.trims:
            with pytest.raises(Exception, match="can be trimmed"):
                convert(directory, tmp_path / "target", trim_vocab=texts)
            return
        target = convert(directory, tmp_path / "target", dtype="float32", trim_vocab=texts)
        np.testing.assert_allclose(
            Reranker(target).logits(PAIRS).logits, Reranker(directory).logits(PAIRS).logits, atol=1e-5, rtol=0
        )

    def test_mapped_embeddings_give_the_same_bits(self, directory: Path) -> None:
        mapped, resident = (Reranker(directory, embeddings=kind, deterministic=True) for kind in ("mapped", "resident"))
        np.testing.assert_array_equal(mapped.logits(PAIRS).logits, resident.logits(PAIRS).logits)

    @pytest.mark.parametrize("source", ["hugging face", "converted"])
    def test_it_verifies(self, directory: Path, tmp_path: Path, source: str) -> None:
        if source == "converted":
            directory = convert(directory, tmp_path / "target", dtype="float32")
        report = verify(directory, pairs=PAIRS, dtype="float32")
        assert report.passed, report.problems
        assert report.followed > 3

    def test_words_are_explained(self, directory: Path) -> None:
        found = Reranker(directory).explain("what is a panda?", "the panda is a bear")
        assert len(found.document_highlights) == 5
        assert all(np.isfinite(one.weight) for one in (*found.query_highlights, *found.document_highlights))
        assert max(abs(one.weight) for one in found.document_highlights) > 0

    def test_it_is_a_first_stage(self, directory: Path) -> None:
        documents = [document for _, document in PAIRS]
        ranked = Reranker(directory, first_stage=Reranker(directory), keep=3).rank("what is a panda?", documents)
        assert len(ranked) == 3
        assert all(0 <= result.score <= 1 for result in ranked)

    @pytest.mark.parametrize("rank", [0, 2])
    def test_it_trains(self, directory: Path, tmp_path: Path, rank: int) -> None:
        examples = [
            Example("what is a panda?", ("the panda is a bear", "rain"), (1.0, 0.0)),
            Example("where is the rain", ("the rain is in the sea", "bamboo", "a panda"), (1.0, 0.0, 0.0)),
        ]
        options = TrainingOptions(epochs=12, learning_rate=2e-3, lora_rank=rank, batch_size=2)
        target = train(examples, tmp_path / "trained", model=directory, options=options, dtype="float32")
        trained = Reranker(target)
        for example in examples:
            pairs = [(example.query, document) for document in example.documents]
            assert trained.logits(pairs).logits.argmax() == 0
        assert verify(target, pairs=PAIRS[:4], dtype="float32").passed

    def test_flag_reranker_agrees_with_the_original(self, directory: Path, short: list[tuple[str, str]]) -> None:
        from FlagEmbedding import FlagReranker as Original

        cut = Reranker(directory, max_length=64).logits(short).truncated_tokens  # FlagEmbedding's own cut may fail
        pairs = [pair for pair, tokens in zip(short, cut, strict=True) if all(pair) and not tokens]
        original = Original(str(self.readable(directory)), devices="cpu", max_length=128)
        original.model.float()
        found = FlagReranker(str(directory), devices="cpu", max_length=128).compute_score(pairs)
        expected: Any = original.compute_score(pairs)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("change", [{}, IDENTITY])
    def test_cross_encoder_agrees_with_the_original(self, family: Family, tmp_path: Path, change: dict) -> None:
        from sentence_transformers import CrossEncoder as Original

        config = self.config | change
        directory = write(tmp_path / "model", config, seeded(family, config), self.tokenizer())
        found = CrossEncoder(str(directory), device="cpu", max_length=128).predict(PAIRS)
        expected = Original(str(self.readable(directory)), device="cpu", max_length=128).predict(PAIRS)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
        logits = Reranker(directory).logits(PAIRS[:3]).logits
        assert np.allclose(found[:3], logits, atol=1e-3) == bool(change)  # Identity leaves them as they are
        assert 0 <= Reranker(directory).score("what is a panda?", "a bear") <= 1  # here scores always are in 0..1
