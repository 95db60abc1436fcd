"""The PyTorch path: transformers' own model and tokenizer, to prove the MLX path right and to stand in for it.

Its scoring shares nothing with the path it checks: no frame, truncation, batching or weight table. Torch is imported
only when it is used.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.device.arrays import to_numpy
from mlx_rerank.device.optional import imported, require_at_least
from mlx_rerank.errors import CheckpointError, InputError, RerankError
from mlx_rerank.models.family import MODULES_KEY
from mlx_rerank.models.shape import check_input_ids
from mlx_rerank.models.templates import declared
from mlx_rerank.pairs.arguments import Document, require_unicode
from mlx_rerank.pairs.tokenizing import failures_of
from mlx_rerank.proof import restore
from mlx_rerank.proof.modules import with_head
from mlx_rerank.scoring.results import PairLogits, RankedDocument, require_finite

_OWN_CODE = {"trust_remote_code": False, "local_files_only": True}  # else a terminal is asked, and a prompt answered


class ReferenceRow(NamedTuple):
    """A pair as transformers' model reads it: its token ids, and the segment of each, 0 or 1."""

    ids: list[int]
    segments: list[int]


class ReferenceReranker:
    """Scores pairs with transformers on torch, in float32 on the CPU unless told otherwise."""

    def __init__(
        self,
        model: str | Path,
        *,
        max_length: int | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        template: str | None = None,
        instruction: str | None = None,
    ) -> None:
        """Load a checkpoint.

        Args:
            model: a name, hub id or directory, Hugging Face's or a converted one, whose weights are put back first.
            max_length: most tokens of a pair, special tokens included; 512, or the model's limit, if None.
            dtype: float16, bfloat16 or float32.
            revision: branch, tag or commit of a hub model.
            template: as for `Reranker`.
            instruction: as for `Reranker`.

        Raises:
            CheckpointNotFoundError: the name leads nowhere.
            CheckpointError: the directory's files cannot be used.
            UnsupportedModelError: it is not a single-label cross-encoder of a family that is run here.
            InputError: the dtype is unknown or the length out of range.
            MissingDependencyError: torch is not installed, or transformers is one that may run a checkpoint's code.
        """
        self._torch = imported("torch")
        transformers = imported("transformers")
        require_at_least("transformers", "5.5", "no model is given to transformers that may run code it names")
        transformers.utils.logging.disable_progress_bar()
        checkpoint = Checkpoint.open(model, revision=revision, template=template)
        if dtype not in ("float16", "bfloat16", "float32"):
            raise InputError(f"dtype {dtype!r} is not one of float16, bfloat16, float32")
        self._instruction = (
            checkpoint.encoder(instruction).frame.instruction or ""
        )  # these two refuse a tokenizer or a shape that the libraries would not survive
        checkpoint.tensors()
        with _failures_of(checkpoint.directory):
            self.model, self.tokenizer = self._load(transformers, checkpoint)
        self.model.to(getattr(self._torch, dtype)).eval()
        self._template, self._declared = checkpoint.family.template, declared(checkpoint.raw)
        self._mapping, self._shape, self._directory = checkpoint.mapping, checkpoint.shape, checkpoint.directory
        self._pieces = self.tokenizer.backend_tokenizer
        self._pieces.no_truncation()
        self._pieces.no_padding()
        self._special_tokens = self._pieces.num_special_tokens_to_add(is_pair=True)
        if self._template is not None:
            self._around = [self._ids(text) for text in (self._template.prefix, self._template.suffix)]
            self._special_tokens = sum(map(len, self._around))
            self.tokenizer.padding_side = "right"
        limit = checkpoint.shape.max_length
        usual = checkpoint.settings.usual_length(limit, checkpoint.family.usual_length)
        self.max_length = usual if max_length is None else max_length
        if not self._special_tokens < self.max_length <= limit:
            raise InputError(f"max_length {max_length} is not between {self._special_tokens + 1} and {limit}")

    def _load(self, transformers: Any, checkpoint: Checkpoint) -> tuple[Any, Any]:
        """Return model and tokenizer of a directory, Hugging Face's or a converted one."""
        directory, its = checkpoint.directory, checkpoint.family.in_transformers
        config, state = _config(transformers, checkpoint), {}
        if checkpoint.converted or its.table is not None:
            state = restore.state_dict(directory)
            tensors = {name: self._torch.from_numpy(value) for name, value in state.items() if "/" not in name}
            kept = {"state_dict": tensors, "dtype": self._torch.float32, "output_loading_info": True}
            kind = getattr(transformers, its.restored or its.model)
            model, info = kind.from_pretrained(None, config=config, attn_implementation="eager", **kept)
            if wrong := {problem: sorted(names) for problem, names in info.items() if names}:
                raise ValueError(f"the restored weights do not fit: {wrong}")
        else:
            kind = getattr(transformers, its.model)
            model = kind.from_pretrained(directory, config=config, attn_implementation="eager", **_OWN_CODE)
        if MODULES_KEY in checkpoint.raw:
            found = checkpoint.tensors().items()  # numpy has no bfloat16
            state = state or {n: to_numpy(t.astype(mx.float32)) for n, t in found if "/" in n}
            model = with_head(model, checkpoint.raw, state)
        if not checkpoint.converted:
            return model, transformers.AutoTokenizer.from_pretrained(directory, **_OWN_CODE)
        path, saved = str(directory / "tokenizer.json"), checkpoint.settings.truncation_side
        side = {} if saved is None else {"truncation_side": saved}
        return model, transformers.PreTrainedTokenizerFast(tokenizer_file=path, **its.special_tokens, **side)

    def logits(self, pairs: Sequence[tuple[str, str]], batch_size: int = 16) -> PairLogits:
        """Run the model on (query, document) pairs, in batches of similar length: no row is over half padding."""
        for text in {text for pair in pairs for text in pair}:
            require_unicode(text)
        encoded = [self._encode(query, document) for query, document in pairs]
        rows = [row for row, _, _ in encoded]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        logits = np.empty(len(rows), dtype=np.float32)
        while order:
            longest = 2 * len(rows[order[0]].ids)
            batch = [i for i in order[:batch_size] if len(rows[i].ids) <= longest]
            logits[batch] = self._forward([rows[i] for i in batch])
            del order[: len(batch)]
        require_finite(logits, pairs, f"The weights are damaged, or {self.model.dtype} is too narrow")
        cut, spans = (np.array([one[i] for one in encoded], dtype=np.int64) for i in (1, 2))
        return PairLogits(logits, cut, spans.reshape(-1, 2), self._mapping)

    def score(self, pairs: Sequence[tuple[str, str]], *, raw_scores: bool = False) -> np.ndarray:
        """Return the score of every pair, or its logit, float32 [N]."""
        return self.logits(pairs).scores(raw_scores)

    def rank(
        self, query: str, documents: Sequence[Document], *, top_n: int | None = None, raw_scores: bool = False
    ) -> list[RankedDocument]:
        """Rank documents, the best first, ties by index."""
        texts = [document if isinstance(document, str) else document["text"] for document in documents]
        found = self.logits([(query, text) for text in texts])
        scores = found.scores(raw_scores).tolist()
        order = sorted(range(len(texts)), key=lambda i: (-found.logits[i], i))[:top_n]
        cut, ends = found.truncated_tokens.tolist(), found.spans[:, 1].tolist()
        return [RankedDocument(i, scores[i], documents[i], cut[i], (0, ends[i])) for i in order]

    def rows(self, pairs: Sequence[tuple[str, str]]) -> list[ReferenceRow]:
        """Return each pair as the model reads it, special tokens included, cut to max_length."""
        return [self._encode(query, document)[0] for query, document in pairs]

    def hidden_states(self, row: ReferenceRow) -> list[np.ndarray]:
        """Return what the embeddings and then each layer give for one pair, float32 [L, D] each."""
        with self._torch.no_grad(), _failures_of(self._directory):
            output = self.model(**self.inputs([row]), output_hidden_states=True)
        return [state[0].float().numpy() for state in output.hidden_states]

    def inputs(self, rows: Sequence[ReferenceRow]) -> Any:
        """Return rows as one padded batch of tensors, by name."""
        given = {"input_ids": [row.ids for row in rows], "token_type_ids": [row.segments for row in rows]}
        if self._template is not None:
            del given["token_type_ids"]
        padded = dict(self.tokenizer.pad(given, padding=True, return_tensors="pt"))
        check_input_ids(padded["input_ids"].numpy(), self._shape)
        return padded

    def _encode(self, query: str, document: str) -> tuple[ReferenceRow, int, tuple[int, int]]:
        """Return a pair as a row, how many tokens were cut, and where the read characters of the document stand.

        The query is cut to three quarters of max_length, then the document to fit.
        """
        if self._template is not None:
            return self._encode_prompt(query, document)
        with failures_of(self._directory):
            q, d = (self._pieces.encode(text, add_special_tokens=False) for text in (query, document))
        total, offsets, room = len(q) + len(d), d.offsets, self.max_length - self._special_tokens
        side = self.tokenizer.truncation_side
        q.truncate(min(len(q), self.max_length * 3 // 4, room), direction=side)
        d.truncate(min(len(d), room - len(q)), direction=side)
        read = len(d)
        first = len(offsets) - read if side == "left" else 0
        begin = offsets[first][0] if first and read else 0
        end = len(document) if first + read == len(offsets) else offsets[read - 1][1] if read else 0
        with failures_of(self._directory):
            pair = self._pieces.post_process(q, d)
        known = getattr(self.model.config, "type_vocab_size", 1)
        segment = max(pair.type_ids, default=0)
        if segment >= max(known, 2):
            raise CheckpointError(f"{self._directory}: tokenizer.json gives segment {segment} of {known}")
        segments = pair.type_ids if known > 1 else [0] * len(pair)
        return ReferenceRow(pair.ids, segments), total - len(q) - read, (begin, end)

    def _ids(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return self._pieces.encode(text, add_special_tokens=False).ids

    def _encode_prompt(self, query: str, document: str) -> tuple[ReferenceRow, int, tuple[int, int]]:
        """Return what `_encode` does, of a prompt: its content is one text, cut on the right."""
        template, (prefix, suffix) = self._template, self._around
        assert template is not None
        before, _, after = template.content.replace("{instruction}", self._instruction).partition("{query}")
        before += query + after.removesuffix("{document}")
        with failures_of(self._directory):
            found = self._pieces.encode(before + document, add_special_tokens=False)
        kept = min(len(found.ids), self.max_length - self._special_tokens)
        cut = len(found.ids) - kept
        end = max(0, found.offsets[kept - 1][1] - len(before)) if cut else len(document)
        ids = [*prefix, *found.ids[:kept], *suffix]
        return ReferenceRow(ids, [0] * len(ids)), cut, (0, end)

    def _forward(self, rows: Sequence[ReferenceRow]) -> np.ndarray:
        """Return float32 logits of one padded batch."""
        with self._torch.no_grad(), _failures_of(self._directory):
            given = self.inputs(rows)
            logits = self.model(**given).logits
            if logits.dim() == 3:  # a language model's, of every token and every word
                last = logits[self._torch.arange(len(rows)), given["attention_mask"].sum(dim=-1) - 1].float()
                logits = last[:, self._declared["true_token_id"]] - last[:, self._declared["false_token_id"]]
            return logits.view(-1).float().numpy()


@contextmanager
def _failures_of(directory: Path) -> Iterator[None]:
    """Raise CheckpointError for whatever transformers, torch, tokenizers and numpy raise."""
    try:
        yield
    except RerankError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{directory} cannot be run by PyTorch: {type(error).__name__}: {reason}") from error


def _config(transformers: Any, checkpoint: Checkpoint) -> Any:
    """Return a config.json as transformers' object, of the entries alone that its model has by default, or reads.

    Others name quantizers, or repositories with kernels, whose code would be run. Attention is transformers' own.
    """
    its = checkpoint.family.in_transformers
    kind = getattr(transformers, its.config)
    known = {*kind().to_dict(), "num_labels", *its.settings}
    config = kind.from_dict({name: value for name, value in its.translated(checkpoint.raw).items() if name in known})
    config._attn_implementation = "eager"
    if checkpoint.family.template is not None:
        config.num_labels, config.pad_token_id = 1, checkpoint.encoder().pad_token_id
    return config


def require_reference() -> None:
    """Check, before anything that takes long, that the packages for a comparison with the reference are installed.

    Raises:
        MissingDependencyError: torch, transformers or scipy is not installed.
    """
    for name in ("torch", "transformers", "scipy"):
        imported(name)
