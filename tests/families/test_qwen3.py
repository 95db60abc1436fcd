"""Qwen3-Reranker: a language model that says yes or no, whose rows are the published prompt's."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from families.checks import PAIRS, FamilyChecks, seeded
from mlx_rerank import Reranker
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.errors import InputError, UnsupportedModelError
from mlx_rerank.models.decoders.qwen3 import TEMPLATE
from mlx_rerank.models.templates import TEMPLATE_KEY
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.windows import Windows
from mlx_rerank.proof.verify import verify
from mlx_rerank.scoring.score_cache import ScoreCache

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
SPLIT = (  # of Qwen's tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIZE = 420


def byte_level() -> Tokenizer:
    """Return a byte-level BPE with Qwen's pieces of text, trained so that "?\\n" and ">:" are tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    texts = [text for pair in PAIRS for text in pair] + [TEMPLATE.prefix, TEMPLATE.content, TEMPLATE.suffix]
    texts += ["what?\n", "yes", "no", " yes", " no"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=SIZE - len(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


TOKENIZER = byte_level().to_str()


def published(tokenizer: Tokenizer, query: str, document: str, length: int = 8192) -> list[int]:
    """Return a row as the model card makes it: the content is one text, cut on the right."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    prefix, suffix = ids(TEMPLATE.prefix), ids(TEMPLATE.suffix)
    content = f"<Instruct>: {TEMPLATE.instruction}\n<Query>: {query}\n<Document>: {document}"
    return prefix + ids(content)[: length - len(prefix) - len(suffix)] + suffix


def original(directory: Path, pairs: list[tuple[str, str]], length: int = 8192) -> np.ndarray:
    """Return the logits of yes less no at the last token, as AutoModelForCausalLM has them; float32 [N]."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory).float().eval()
    tokenizer, found = Tokenizer.from_file(str(directory / "tokenizer.json")), []
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    for query, document in pairs:
        with torch.no_grad():
            logits = model(torch.tensor([published(tokenizer, query, document, length)])).logits[0, -1]
        found.append((logits[yes] - logits[no]).item())
    return np.array(found, dtype=np.float32)


class TestQwen3(FamilyChecks):
    name = "qwen3"
    config: ClassVar[dict[str, Any]] = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": SIZE + 12,  # a table has a few rows more
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,  # which is not hidden_size / num_attention_heads
        "intermediate_size": 96,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        TEMPLATE_KEY: TEMPLATE.declare(Tokenizer.from_str(TOKENIZER)),
    }
    real: ClassVar[dict[str, Any]] = {  # of Qwen3-Reranker-0.6B, with fewer layers and rows
        "vocab_size": 1000,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
    }
    refused: ClassVar[list[tuple[dict[str, Any], str]]] = [
        ({TEMPLATE_KEY: {}}, "found a chat model.*--template, one of 'qwen3-reranker'"),
        ({TEMPLATE_KEY: {"name": "other"}}, "the template 'other'"),
        ({"architectures": ["Qwen3Model"]}, "another head"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "attention_bias"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
    ]
    trims = False
    # FlagEmbedding and sentence-transformers read such a model by other files: see below
    test_flag_reranker_agrees_with_the_original: Any = None
    test_cross_encoder_agrees_with_the_original: Any = None
    original = staticmethod(original)
    prompt = len(published(Tokenizer.from_str(TOKENIZER), "", ""))

    @staticmethod
    def tokenizer() -> Tokenizer:
        return Tokenizer.from_str(TOKENIZER)

    def test_rows_are_those_of_the_tokenizers_own_pairs(self, directory: Path) -> None:
        encoder = Checkpoint.open(directory).encoder()
        encoded = encoder.encode(PAIRS, Limits(1024))
        for (query, document), place in zip(PAIRS, encoded.inverse, strict=True):
            assert encoded.sequences[place].ids.tolist() == published(self.tokenizer(), query, document)

    def test_an_untied_head(self, family, tmp_path: Path) -> None:
        config = self.config | {"tie_word_embeddings": False}
        directory = self.written(tmp_path / "untied", family, config)
        expected = original(directory, PAIRS[:4])
        np.testing.assert_allclose(Reranker(directory).logits(PAIRS[:4]).logits, expected, atol=1e-4, rtol=0)

    def test_long_pairs_are_cut_as_published(self, directory: Path) -> None:
        encoder = Checkpoint.open(directory).encoder()
        length = self.prompt + 20
        reranker = Reranker(directory, max_length=length)
        scored = reranker.logits(PAIRS)
        assert scored.truncated_tokens[6] > 0 < scored.truncated_tokens[7]  # a document, and a query
        rows = encoder.encode(PAIRS, Limits(length))
        for (query, document), place in zip(PAIRS, rows.inverse, strict=True):
            assert rows.sequences[place].ids.tolist() == published(self.tokenizer(), query, document, length)
        np.testing.assert_allclose(scored.logits, original(directory, PAIRS, length), atol=1e-4, rtol=0)

    @pytest.mark.parametrize(
        "options", [{"query_max_length": 5}, {"longest_first": True}, {"long_documents": Windows(16, 4)}], ids=str
    )
    def test_a_query_is_never_cut_within_its_prompt(self, directory: Path, options: dict[str, Any]) -> None:
        encoder, length = Checkpoint.open(directory).encoder(), self.prompt + 100
        with pytest.raises(InputError, match="cannot read a part of it: shorten the query, or use a larger"):
            encoder.encode([("bear " * 90, "the panda " * 80)], Limits(length, **options))
        larger: dict[str, Any] = {"query_max_length": 500} if "query_max_length" in options else options
        encoder.encode([("bear " * 90, "the panda " * 80)], Limits(self.prompt + 900, **larger))

    def test_a_template_must_be_declared(self, directory: Path, tmp_path: Path) -> None:
        bare = Path(shutil.copytree(directory, tmp_path / "bare"))
        config = {key: value for key, value in self.config.items() if key != TEMPLATE_KEY}
        (bare / "config.json").write_text(json.dumps(config))
        known = Path(shutil.copytree(bare, tmp_path / "models--Qwen--Qwen3-Reranker-0.6B" / "snapshots" / ("a" * 40)))
        assert Checkpoint.open(known).raw[TEMPLATE_KEY] == self.config[TEMPLATE_KEY]
        with pytest.raises(UnsupportedModelError, match=r"a chat model.*template=.*'qwen3-reranker'"):
            Reranker(bare)
        with pytest.raises(InputError, match="'other' is not one of qwen3-reranker"):
            Reranker(bare, template="other")
        found = Reranker(bare, template="qwen3-reranker").logits(PAIRS[:3]).logits
        np.testing.assert_array_equal(found, Reranker(directory).logits(PAIRS[:3]).logits)
        target = convert(bare, tmp_path / "target", dtype="float32", template="qwen3-reranker")
        np.testing.assert_allclose(Reranker(target).logits(PAIRS[:3]).logits, found, atol=1e-5, rtol=0)
        assert verify(target, against=bare, pairs=PAIRS[:3], dtype="float32").passed
        with pytest.raises(InputError, match="of use with a language model alone"):
            Reranker("mini", template="qwen3-reranker")

    def test_sentence_transformers_files_declare_it(self, directory: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(directory, tmp_path / "copy"))
        config = {key: value for key, value in self.config.items() if key != TEMPLATE_KEY}
        modules = [("Transformer", ""), ("LogitScore", "1_LogitScore")]
        saved = {
            "config.json": config,
            "modules.json": [{"path": path, "type": f"sentence_transformers.{kind}"} for kind, path in modules],
            "1_LogitScore/config.json": self.config[TEMPLATE_KEY],
            "config_sentence_transformers.json": {
                "model_type": "CrossEncoder", "prompts": {"query": "find a bear"}, "default_prompt_name": "query",
            },
        }  # fmt: skip
        (copy / "1_LogitScore").mkdir()
        for name, value in saved.items():
            (copy / name).write_text(json.dumps(value))
        with pytest.raises(UnsupportedModelError, match="has no prompt that mlx-rerank knows"):
            Reranker(copy)
        (copy / "chat_template.jinja").write_text(TEMPLATE.prefix + TEMPLATE.content + TEMPLATE.suffix)
        expected = Reranker(directory, instruction="find a bear").logits(PAIRS[:3]).logits
        np.testing.assert_array_equal(Reranker(copy).logits(PAIRS[:3]).logits, expected)
        target = convert(copy, tmp_path / "target", dtype="float32")
        np.testing.assert_allclose(Reranker(target).logits(PAIRS[:3]).logits, expected, atol=1e-5, rtol=0)
        (copy / "1_LogitScore" / "config.json").write_text('{"true_token_id": 1, "false_token_id": null}')
        with pytest.raises(UnsupportedModelError, match="true_token_id 1; the template 'qwen3-reranker' reads"):
            Reranker(copy)

    def test_an_instruction_is_read_and_keeps_scores_apart(self, directory: Path, tmp_path: Path) -> None:
        cache = tmp_path / "scores"
        plain, told = (Reranker(directory, score_cache=cache, instruction=text) for text in (None, "find a bear"))
        row = told.encoder.encode(PAIRS[:1], told.limits).sequences[0].ids.tolist()
        assert "<Instruct>: find a bear\n<Query>: what is a panda?" in self.tokenizer().decode(row)
        before, after = (reranker.logits(PAIRS[:2]).logits for reranker in (plain, told))
        assert np.abs(before - after).min() > 1e-3
        with pytest.raises(InputError, match="reads no instruction"):
            Reranker("mini", instruction="find a bear")
        assert ScoreCache(cache)

    @pytest.mark.parametrize("how", ["as it is", "converted", "packed"])
    def test_the_row_of_scores_stays_float32(self, family, directory: Path, tmp_path: Path, how: str) -> None:
        packing = Quantization(32, 4, "affine") if how == "packed" else None
        if how != "as it is":
            source, directory = directory, tmp_path / "target"
            convert(source, directory, dtype="float16", layers=packing, embeddings=packing)
        model: Any = Checkpoint.open(directory).load(mx.float16, keep_quantized=how == "packed")
        table, declared = seeded(family, self.config)["model.embed_tokens.weight"], self.config[TEMPLATE_KEY]
        expected = table[declared["true_token_id"]] - table[declared["false_token_id"]]
        assert model.head.norm.weight.dtype == mx.float16
        np.testing.assert_array_equal(np.array(model.head.row)[0], expected)

    def test_a_prefix_is_computed_once(self, directory: Path) -> None:
        """Keys and values of what rows begin with give the same logits as the rows do."""
        checkpoint = Checkpoint.open(directory)
        model: Any = checkpoint.load(mx.float32, keep_quantized=False)
        encoder = checkpoint.encoder()
        rows = encoder.encode([("what is it?", text) for text in ("rain", "a bear in the sea")], Limits(200)).sequences
        ids = [mx.array(row.ids[None]) for row in rows]
        expected = [model(row).item() for row in ids]
        states: Any = []
        x = model.embeddings(ids[0][:, :40], None, mx.float32)
        for layer in model.layers:
            _, k, v = mx.split(layer.attention.qkv_proj(layer.attention_norm(x)), [128, 192], axis=-1)
            states.append(layer.attention._keys(k, v, None))
            x = layer(x)
        found = [model(row[:, 40:], prefix=states).item() for row in ids]
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


TEXTS = st.text(alphabet=st.sampled_from("ab ?!\n\t.:<>'é\u0301漢0Ω"), max_size=30)


@settings(deadline=None, max_examples=200)
@given(query=TEXTS, document=TEXTS)
def test_a_prompts_ids_are_those_of_one_text(query: str, document: str) -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER)
    encoder = PairEncoder(tokenizer, TEMPLATE.frame(tokenizer, 0, 1), SIZE)
    for length in (1000, len(published(tokenizer, "", "")) + 8):
        (row,) = encoder.encode([(query, document)], Limits(length)).sequences
        assert row.ids.tolist() == published(tokenizer, query, document, length)
