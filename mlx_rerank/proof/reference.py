"""The PyTorch path: transformers' own model and tokenizer, to prove the MLX path right and to stand in for it.

Its scoring shares nothing with the path it checks: no tokenizer, truncation, batching or weight table. It is the only
file that imports torch, and only when it is used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rerank.checkpoints.config import SPECIAL_TOKENS_PER_PAIR, ModelConfig, is_converted, read_config
from mlx_rerank.device.optional import imported
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.pairs.arguments import Document, require_unicode
from mlx_rerank.proof import restore
from mlx_rerank.scoring.results import PairLogits, RankedDocument, require_finite


class ReferenceReranker:
    """Scores pairs with transformers on torch, in float32 on the CPU unless told otherwise."""

    def __init__(self, directory: Path, *, max_length: int | None = None, dtype: str = "float32") -> None:
        """Load a checkpoint.

        Args:
            directory: a Hugging Face directory, or a converted one, whose weights are put back first.
            max_length: most tokens of a pair, special tokens included; 512, or the model's limit, if None.
            dtype: float16, bfloat16 or float32.

        Raises:
            CheckpointError: the directory's files cannot be used.
            UnsupportedModelError: it is not a single-label XLM-RoBERTa cross-encoder.
            InputError: the dtype is unknown or the length out of range.
            MissingDependencyError: torch is not installed.
        """
        self._torch = imported("torch")
        transformers = imported("transformers")
        transformers.utils.logging.disable_progress_bar()
        config = read_config(directory)
        limit = ModelConfig.from_dict(config).max_length
        self.max_length = min(512, limit) if max_length is None else max_length
        if not SPECIAL_TOKENS_PER_PAIR < self.max_length <= limit:
            raise InputError(f"max_length {max_length} is not between {SPECIAL_TOKENS_PER_PAIR + 1} and {limit}")
        if dtype not in ("float16", "bfloat16", "float32"):  # spelt out: dtypes.py needs MLX, which may be what fails
            raise InputError(f"dtype {dtype!r} is not one of float16, bfloat16, float32")
        try:
            self.model, self.tokenizer = self._load(transformers, directory, config)
        except Exception as error:  # transformers, torch, tokenizers and numpy raise whatever they like
            reason = str(error).strip().partition("\n")[0]
            raise CheckpointError(
                f"{directory} cannot be loaded by PyTorch: {type(error).__name__}: {reason}"
            ) from error
        self.model.to(getattr(self._torch, dtype)).eval()

    def _load(self, transformers: Any, directory: Path, config: dict[str, Any]) -> tuple[Any, Any]:
        """Return model and tokenizer of a directory, Hugging Face's or a converted one."""
        if not is_converted(config):
            model = transformers.AutoModelForSequenceClassification.from_pretrained(directory)
            return model, transformers.AutoTokenizer.from_pretrained(directory)
        config.pop("quantization_config", None)  # transformers would look for a quantizer of that name
        model = transformers.XLMRobertaForSequenceClassification(transformers.XLMRobertaConfig.from_dict(config))
        state = {name: self._torch.from_numpy(value) for name, value in restore.state_dict(directory).items()}
        model.load_state_dict(state, strict=True)
        names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
        return model, transformers.PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"), **names)

    def logits(self, pairs: Sequence[tuple[str, str]], batch_size: int = 16) -> PairLogits:
        """Run the model on (query, document) pairs, in batches of similar length."""
        for text in {text for pair in pairs for text in pair}:
            require_unicode(text)
        encoded = [self._encode(query, document) for query, document in pairs]
        rows = [ids for ids, _, _ in encoded]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        logits = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), batch_size):
            batch = order[start : start + batch_size]
            logits[batch] = self._forward([rows[i] for i in batch])
        require_finite(logits, pairs, f"The weights are damaged, or {self.model.dtype} is too narrow")
        cut, ends = (np.array([row[i] for row in encoded], dtype=np.int64) for i in (1, 2))
        return PairLogits(logits, cut, np.stack([np.zeros_like(ends), ends], axis=1))

    def score(self, pairs: Sequence[tuple[str, str]], *, raw_scores: bool = False) -> np.ndarray:
        """Return the sigmoid of every logit, or the logit itself, float32 [N]."""
        logits = self.logits(pairs).logits
        return logits if raw_scores else self._torch.sigmoid(self._torch.from_numpy(logits)).numpy()

    def rank(
        self, query: str, documents: Sequence[Document], *, top_n: int | None = None, raw_scores: bool = False
    ) -> list[RankedDocument]:
        """Rank documents, the best first, ties by index."""
        texts = [document if isinstance(document, str) else document["text"] for document in documents]
        found = self.logits([(query, text) for text in texts])
        values = self._torch.from_numpy(found.logits)
        scores = (values if raw_scores else self._torch.sigmoid(values)).tolist()
        order = sorted(range(len(texts)), key=lambda i: (-found.logits[i], i))[:top_n]
        cut, ends = found.truncated_tokens.tolist(), found.spans[:, 1].tolist()
        return [RankedDocument(i, scores[i], documents[i], cut[i], (0, ends[i])) for i in order]

    def token_ids(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the token ids of each pair, special tokens included, cut to max_length."""
        return [self._encode(query, document)[0] for query, document in pairs]

    def hidden_states(self, token_ids: Sequence[int]) -> list[np.ndarray]:
        """Return what the embeddings and then each layer give for one pair, float32 [L, D] each."""
        with self._torch.no_grad():
            output = self.model(self._torch.tensor([list(token_ids)]), output_hidden_states=True)
        return [state[0].float().numpy() for state in output.hidden_states]

    def _encode(self, query: str, document: str) -> tuple[list[int], int, int]:
        """Return a pair's ids, the query cut to three quarters of max_length, the rest to fit; how many tokens were
        cut; and where the characters of the document end that were read.
        """
        options = {"add_special_tokens": False, "verbose": False, "return_offsets_mapping": True}
        q, encoded = self.tokenizer(query, **options)["input_ids"], self.tokenizer(document, **options)
        d = encoded["input_ids"]
        total = len(q) + len(d) + 4
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        head = [cls, *q[: min(self.max_length * 3 // 4, self.max_length - 4)], sep, sep]
        ids = [*(head + d)[: self.max_length - 1], sep]
        read = len(d) - max(0, len(head) + len(d) + 1 - len(ids))
        end = len(document) if read == len(d) else encoded["offset_mapping"][read - 1][1] if read else 0
        return ids, total - len(ids), end

    def _forward(self, rows: list[list[int]]) -> np.ndarray:
        """Return float32 logits of one padded batch."""
        batch = self.tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
        with self._torch.no_grad():
            output = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return output.logits.view(-1).float().numpy()


def require_reference() -> None:
    """Check that what the reference and a comparison with it need is installed, before anything that takes long.

    Raises:
        MissingDependencyError: torch, transformers or scipy is not installed.
    """
    for name in ("torch", "transformers", "scipy"):
        imported(name)
