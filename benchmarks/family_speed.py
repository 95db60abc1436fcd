"""How fast each family of models is beside sentence-transformers, on the same texts, in turns.

    python benchmarks/family_speed.py [--models MiniLM gte] [--data DATA] [--pairs 100] [--rounds 5] [--threads 1]
        [--device cpu] [--output families.json]

Weights are random ones in the shapes of real models, so scores mean nothing and speed is that of the real ones.
Tokenizers are made of the pieces of the embedded model's, to as many as the real ones have. DATA is a directory in the
BEIR layout; the package's samples if none. Each library has a process of its own for each model, and its own batches.
Prints pairs a second of both, how many times as long sentence-transformers takes, and the most memory of each process.
A model whose family is not run is left out with a line that says so.
"""

import argparse
import json
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mlx_rerank.bench.checkpoints import random_tensors
from mlx_rerank.bench.contenders import OWN, Contender
from mlx_rerank.bench.measures import Spread, plan_rounds, ratios
from mlx_rerank.bench.process import Answer, Worker
from mlx_rerank.bench.report import about, show, spread, write
from mlx_rerank.bench.texts import Pairs, Texts
from mlx_rerank.checkpoints.hub import EMBEDDED
from mlx_rerank.device.names import parse_device
from mlx_rerank.errors import UnsupportedModelError, WorkerError
from mlx_rerank.models import family_of

PEER = "sentence-transformers"
MAX_LENGTH = 512  # tokens of a pair, which all of these models can read
_BASE = {"hidden_size": 768, "num_attention_heads": 12, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
CONFIGS: dict[str, dict[str, Any]] = {
    "MiniLM": _BASE | {  # cross-encoder/ms-marco-MiniLM-L6-v2
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 30522,
        "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536, "hidden_act": "gelu",
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    },
    "ModernBERT": _BASE | {  # Alibaba-NLP/gte-reranker-modernbert-base
        "architectures": ["ModernBertForSequenceClassification"], "model_type": "modernbert", "vocab_size": 50368,
        "num_hidden_layers": 22, "intermediate_size": 1152, "hidden_activation": "gelu",
        "max_position_embeddings": 8192, "norm_eps": 1e-5, "norm_bias": False, "attention_bias": False,
        "mlp_bias": False, "classifier_bias": False, "classifier_activation": "gelu", "classifier_pooling": "mean",
        "global_attn_every_n_layers": 3, "local_attention": 128, "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "DeBERTa": _BASE | {  # mixedbread-ai/mxbai-rerank-base-v1
        "architectures": ["DebertaV2ForSequenceClassification"], "model_type": "deberta-v2", "vocab_size": 128100,
        "num_hidden_layers": 12, "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512,
        "type_vocab_size": 0, "layer_norm_eps": 1e-7, "relative_attention": True, "position_buckets": 256,
        "max_relative_positions": -1, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
        "norm_rel_ebd": "layer_norm", "position_biased_input": False, "pooler_hidden_act": "gelu",
        "pooler_hidden_size": 768, "pooler_dropout": 0, "pad_token_id": 0,
    },
    "gte": _BASE | {  # Alibaba-NLP/gte-multilingual-reranker-base, as transformers reads it
        "architectures": ["GteForSequenceClassification"], "model_type": "gte", "vocab_size": 250048,
        "num_hidden_layers": 12, "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 8192,
        "type_vocab_size": 1, "layer_norm_eps": 1e-12, "pad_token_id": 1,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 160000.0, "factor": 8 ** (2 / 64)},
    },
}  # fmt: skip


def unigram(size: int) -> Tokenizer:
    """Return the embedded model's tokenizer, with pieces up to a size that no text has."""
    tokenizer = json.loads((EMBEDDED["mini"] / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    lowest = min(score for _, score in vocabulary)
    vocabulary += [[f"<unused{i}>", lowest] for i in range(size - len(vocabulary))]
    return Tokenizer.from_str(json.dumps(tokenizer))


def wordpiece(size: int) -> Tokenizer:
    """Return a WordPiece tokenizer of the embedded model's pieces, as many as fit, the first of them."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = json.loads((EMBEDDED["mini"] / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = [piece.lower() for piece, _ in known]
    letters = [piece.strip("▁") for piece in words if len(piece.strip("▁")) == 1]
    pieces += letters + [f"##{letter}" for letter in letters]
    pieces += [word[1:] if word.startswith("▁") else f"##{word}" for word in words if word != "▁"]
    pieces = list(dict.fromkeys(pieces))[:size]
    pieces += [f"[unused{i}]" for i in range(size - len(pieces))]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(pieces[:5])
    return tokenizer


def write_model(directory: Path, config: dict[str, Any]) -> None:
    """Write a Hugging Face directory of random weights, which both libraries can read.

    Raises:
        UnsupportedModelError: mlx-rerank does not run this family.
    """
    its = family_of(config).in_transformers
    directory.mkdir()
    tokenizer = (unigram if "<s>" in its.special_tokens.values() else wordpiece)(config["vocab_size"])
    tokenizer.save(str(directory / "tokenizer.json"))
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if config.get("type_vocab_size") == 2 else [])]
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_LENGTH, "model_input_names": names}
    (directory / "tokenizer_config.json").write_text(json.dumps(dict(its.special_tokens) | tokens), encoding="utf-8")
    (directory / "config.json").write_text(json.dumps(config | {"dtype": "float32"}), encoding="utf-8")
    save_file(random_tensors(config, 0), directory / "model.safetensors", {"format": "pt"})


def measure(directory: Path, pairs: Pairs, device: str, rounds: int, threads: int) -> dict[str, Any]:
    """Return both libraries' seconds by round, their last answers' memory, and how far apart their logits are.

    Raises:
        WorkerError: a library's process ended before its work did.
    """
    peers = "mps" if device == "gpu" else device
    contenders = [
        Contender(OWN, "mlx_rerank", str(directory), MAX_LENGTH, device=device),
        Contender(PEER, "sentence_transformers", str(directory), MAX_LENGTH, device=peers),
    ]
    with ExitStack() as stack:
        workers = {one.name: stack.enter_context(Worker(one, threads)) for one in contenders}
        answers: dict[str, list[Answer]] = {name: [worker.score(pairs)] for name, worker in workers.items()}
        for order in plan_rounds(list(workers), rounds):
            for name in order:
                answers[name].append(workers[name].score(pairs))
    first = {name: found.pop(0).logits for name, found in answers.items()}  # of the turn that does not count
    return {
        "seconds": {name: [answer.seconds for answer in found] for name, found in answers.items()},
        "peak_bytes": {name: found[-1].process_peak for name, found in answers.items()},
        "mlx": answers[OWN][-1].mlx,
        "max_delta_logit": max(abs(a - b) for a, b in zip(first[OWN], first[PEER], strict=True)),
    }


def row(name: str, found: dict[str, Any], pairs: int) -> list[str]:
    """Return a model's line of the table."""
    own, peer = found["seconds"][OWN], found["seconds"][PEER]
    rates = [spread(Spread.of([pairs / seconds for seconds in taken])) for taken in (own, peer)]
    peaks = [f"{found['peak_bytes'][library] / 1e6:,.0f}" for library in (OWN, PEER)]
    return [name, *rates, spread(ratios(peer, own), 2), *peaks, f"{found['max_delta_logit']:.1e}"]


def main() -> None:
    """Measure each model, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("gpu", "cpu"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device = "gpu" if parse_device(options.device).type.name == "gpu" else "cpu"
    facts = about("family_speed", shlex.join(["python", "benchmarks/family_speed.py", *sys.argv[1:]]))
    texts = Texts.read(options.data)
    pairs, measured = texts.natural(options.pairs), {}
    for name in options.models:
        with tempfile.TemporaryDirectory(prefix="mlx-rerank-bench-") as work:
            try:
                write_model(Path(work) / "model", CONFIGS[name])
                measured[name] = measure(Path(work) / "model", pairs, device, options.rounds, options.threads)
            except (UnsupportedModelError, WorkerError) as error:
                print(f"{name} is left out: {error}")
    machine = facts["machine"]
    title = (
        f"{len(pairs)} pairs of {texts.name}, {device}, {options.threads} threads; {machine['chip']}, {facts['date']}"
    )
    header = ["shape", f"{OWN} pairs/s", f"{PEER} pairs/s", "times as long", "peak MB", f"{PEER}", "max |delta logit|"]
    show(title, header, [row(name, found, len(pairs)) for name, found in measured.items()])
    if options.output:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        write(options.output, {**facts, "texts": texts.name, "settings": settings, "models": measured})


if __name__ == "__main__":
    main()
