"""The rival: a bi-encoder, whose cosines teach the model that is to be better. What it has read once is kept on disk.

Sources: multilingual E5, its prefixes and its mean pooling: Wang et al. 2024 (arXiv 2402.05672).
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from encoder import means, pack
from tokenizers import Tokenizer
from transformers import XLMRobertaModel

LONGEST = 400  # tokens of a text
_TOKENS = 4096  # of a pass, at most


class Kept:
    """Vectors on disk by the hash of their text: a file that only grows, and may end anywhere."""

    def __init__(self, path: Path, size: int) -> None:
        """Read what is there.

        Args:
            path: of the file; its directory is made if need be.
            size: of a vector.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._record = path, np.dtype([("key", "<u8"), ("vector", "<f2", size)])
        content = path.read_bytes() if path.exists() else b""
        rows = np.frombuffer(content, self._record, len(content) // self._record.itemsize)
        if content[rows.nbytes :]:
            os.truncate(path, rows.nbytes)
        self._rows = dict(zip(rows["key"].tolist(), rows["vector"], strict=True))

    def __contains__(self, text: str) -> bool:
        return _key(text) in self._rows

    def __getitem__(self, text: str) -> np.ndarray:
        return self._rows[_key(text)]

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keep a vector for each text."""
        rows = np.empty(len(texts), self._record)
        rows["key"], rows["vector"] = [_key(text) for text in texts], vectors
        with self._path.open("ab", buffering=0) as file:
            file.write(rows.tobytes())
        self._rows.update(zip(rows["key"].tolist(), rows["vector"], strict=True))


def _key(text: str) -> int:
    """Return 64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Rival:
    """Cosine of mean-pooled "query: " and "passage: " texts."""

    def __init__(self, folder: Path, kept: Path, dtype: torch.dtype = torch.float32) -> None:
        """Load a Hugging Face directory.

        Args:
            folder: with XLM-RoBERTa's weights and tokenizer.json.
            kept: file of the vectors.
            dtype: of products.
        """
        self._bfloat16 = dtype == torch.bfloat16
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._model = XLMRobertaModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
        self._tokenizer.enable_truncation(min(LONGEST, self._model.config.max_position_embeddings - 2))
        self.kept = Kept(kept, self._model.config.hidden_size)

    def cosines(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the cosine of a query with each of some texts, all of them read before."""
        rows = np.stack([self.kept[f"passage: {text}"] for text in texts]).astype(np.float32)
        return (rows @ self.kept[f"query: {query}"].astype(np.float32)).tolist()

    def read(self, queries: Sequence[str], texts: Sequence[str]) -> None:
        """Keep a unit vector of everything that is new."""
        wanted = [f"query: {query}" for query in queries] + [f"passage: {text}" for text in texts]
        fresh = [text for text in dict.fromkeys(wanted) if text not in self.kept]
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(fresh)]
        order = sorted(range(len(fresh)), key=lambda i: len(encoded[i]))
        while order:
            rows = max(1, _TOKENS // len(encoded[order[-1]]))
            order, places = order[:-rows], order[-rows:]
            packed, back = pack([encoded[i] for i in places])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
                vectors = torch.nn.functional.normalize(means(self._model, packed)[back], dim=-1)
            self.kept.add([fresh[i] for i in places], vectors.numpy())
