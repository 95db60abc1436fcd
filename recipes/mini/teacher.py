"""The teacher: a bi-encoder such as intfloat/multilingual-e5-small, whose cosines soften the targets."""

from collections.abc import Sequence
from pathlib import Path

import torch
from targets import Draft
from tokenizers import Tokenizer
from transformers import XLMRobertaModel

UNTAUGHT = ("lohelp", "fairytaleqa_train", "fairytaleqa_val", "medquad")  # where it is no better than its student
_MAX_LENGTH = 192
_ROWS = 32  # of a batch
_PAD = 1


class Teacher:
    """Cosine of mean-pooled "query: " and "passage: " texts. Texts already seen are remembered."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load a Hugging Face directory.

        Args:
            folder: with XLM-RoBERTa's weights and tokenizer.json.
            threads: of torch.
        """
        torch.set_num_threads(threads)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_LENGTH)
        self._model = XLMRobertaModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
        self._known: dict[str, torch.Tensor] = {}

    def score(self, drafts: Sequence[Draft]) -> list[list[float] | None]:
        """Return a score of every text of each draft; None for passages of the sources that are not taught."""
        taught = [d if d.kind == "sentence" or not d.source.startswith(UNTAUGHT) else None for d in drafts]
        queries = [f"query: {draft.query}" for draft in taught if draft]
        self._encode(queries + [f"passage: {text}" for draft in taught if draft for text in draft.texts])
        return [self._cosines(draft) if draft else None for draft in taught]

    def _cosines(self, draft: Draft) -> list[float]:
        """Return the score of each text."""
        query = self._known[f"query: {draft.query}"].float()
        return [float(query @ self._known[f"passage: {text}"].float()) for text in draft.texts]

    def _encode(self, texts: Sequence[str]) -> None:
        """Remember a unit vector, in float16, of every text that is new."""
        fresh = list(dict.fromkeys(text for text in texts if text not in self._known))
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(fresh)]
        order = sorted(range(len(fresh)), key=lambda i: len(encoded[i]))
        for start in range(0, len(order), _ROWS):
            places = order[start : start + _ROWS]
            for i, vector in zip(places, self._vectors([encoded[i] for i in places]), strict=False):
                self._known[fresh[i]] = vector.clone()

    def _vectors(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return a vector of each row, and of the empty rows that fill the batch: few shapes are fast on a CPU."""
        width = -(-max(map(len, rows)) // 16) * 16
        ids = torch.full((_ROWS, width), _PAD)
        ids[:, 0] = 0
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        mask = (ids != _PAD).long()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return torch.nn.functional.normalize((hidden * mask[..., None]).sum(1), dim=-1).half()
