"""FlagReranker: FlagEmbedding's reranker interface over this package's, for programs that change one import line."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlx_rerank.compat.arguments import device_named
from mlx_rerank.compat.warning import warn, warn_unused
from mlx_rerank.errors import InputError
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.pairs.arguments import check_pairs, require_sequence
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.pairs.switches import require_boolean
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.results import log_truncation

logger = logging.getLogger("mlx_rerank")


class FlagReranker:
    """Drop-in replacement for `FlagEmbedding.FlagReranker`.

    Source: FlagEmbedding 1.4.2 `inference/reranker/encoder_only/base.py`; tests/parity/test_flagembedding.py. It
    differs where FlagEmbedding has defects: an empty list gives an empty list, a bare string is an error, and the error
    that stops the work is the one that is raised.
    """

    def __init__(
        self,
        model_name_or_path: str,
        use_fp16: bool = False,
        query_instruction_for_rerank: str | None = None,
        query_instruction_format: str = "{}{}",
        passage_instruction_for_rerank: str | None = None,
        passage_instruction_format: str = "{}{}",
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        devices: str | int | Sequence[str | int] | None = None,
        batch_size: int = 128,
        query_max_length: int | None = None,
        max_length: int = 512,
        normalize: bool = False,
        *,
        cpu_threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Load a model.

        Args:
            model_name_or_path: as `Reranker`'s model.
            use_fp16: compute in float16; on a CPU, where that is slower, in float32 all the same.
            query_instruction_for_rerank: put before every query.
            query_instruction_format: how, with two ``{}``: instruction and query.
            passage_instruction_for_rerank: put before every passage.
            passage_instruction_format: how, with two ``{}``: instruction and passage.
            trust_remote_code: unused, as a warning says: no code from a checkpoint is ever run.
            cache_dir: where hub downloads are kept.
            devices: "cpu" for the CPU; "mps", "cuda:0", 0 ... for the GPU; a warning says so if there is none, or if
                only the first of several is used.
            batch_size: most pairs computed at once.
            query_max_length: most tokens of a query; three quarters of max_length if None.
            max_length: most tokens of a pair; the model's limit where that is less, with a warning.
            normalize: return sigmoids of the logits.
            cpu_threads: as for `Reranker`; FlagEmbedding has no such argument.
            kwargs: anything else is unused; a warning names it.

        Raises:
            RerankError: as `Reranker`.
        """
        trusted = require_boolean("trust_remote_code", trust_remote_code)
        warn_unused("FlagReranker", {**dict.fromkeys(kwargs, True), "trust_remote_code": trusted})
        _require_template("query_instruction_format", query_instruction_format)
        _require_template("passage_instruction_format", passage_instruction_format)
        device = _device_of(devices)
        self.model_name_or_path = model_name_or_path
        self.query_instruction_for_rerank = query_instruction_for_rerank
        self.query_instruction_format = query_instruction_format
        self.passage_instruction_for_rerank = passage_instruction_for_rerank
        self.passage_instruction_format = passage_instruction_format
        self.batch_size = batch_size
        self.query_max_length = query_max_length
        self.max_length = max_length
        self.normalize = require_boolean("normalize", normalize)
        dtype = None if require_boolean("use_fp16", use_fp16) else "float32"
        self.reranker = Reranker(
            model_name_or_path, dtype=dtype, device=device, cache_dir=cache_dir, cpu_threads=cpu_threads
        )
        self.use_fp16 = self.reranker.dtype == "float16"
        if use_fp16 and not self.use_fp16:
            logger.info("use_fp16 has no effect on a CPU: computing in float32")

    def compute_score(
        self,
        sentence_pairs: Sequence[str] | Sequence[Sequence[str]],
        batch_size: int | None = None,
        query_max_length: int | None = None,
        max_length: int | None = None,
        normalize: bool | None = None,
        **kwargs: Any,
    ) -> float | list[float]:
        """Score pairs of query and passage.

        Args:
            sentence_pairs: one (query, passage) pair, or a list of them.
            batch_size: most pairs computed at once; the constructor's if None; likewise below.
            query_max_length: most tokens of a query.
            max_length: most tokens of a pair.
            normalize: return sigmoids of the logits.
            kwargs: anything else is unused; a warning names it.

        Returns:
            A float for one pair, a list of floats for a list of pairs. Logits, unless normalized.

        Raises:
            InputError: something is not a pair of texts.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        warn_unused("compute_score", dict.fromkeys(kwargs, True))
        wanted = require_boolean("normalize", self.normalize if normalize is None else normalize)
        require_sequence("sentence_pairs", sentence_pairs)
        pairs = list(sentence_pairs)
        single = bool(pairs) and isinstance(pairs[0], str)
        if single:
            pairs = [pairs]
        if any(isinstance(pair, (list, tuple)) and len(pair) > 2 for pair in pairs):
            warn("what follows the first two texts of a pair is not used")
            pairs = [pair[:2] if isinstance(pair, (list, tuple)) else pair for pair in pairs]
        limit = self._limit(self.max_length if max_length is None else max_length)
        scored = self.reranker.logits(
            self._instructed(check_pairs(pairs)),  # pyright: ignore[reportArgumentType]
            limits=Limits(limit, self.query_max_length if query_max_length is None else query_max_length),
            batch_size=self.batch_size if batch_size is None else batch_size,
        )
        log_truncation(scored.truncated_tokens, limit)
        logits = scored.logits.astype(np.float64)  # so that the highest sigmoids do not all become 1
        scores = (SIGMOID(logits) if wanted else logits).tolist()  # FlagEmbedding's own rule, whatever the model's is
        return scores[0] if single else scores

    def _limit(self, max_length: int) -> int:
        """Return max_length or, with a warning, the model's own limit if that is less: short texts still fit."""
        limit = self.reranker.config.max_length
        if max_length > limit:
            warn(f"max_length {max_length} exceeds this model's {limit} tokens: longer pairs are cut to {limit}")
        return min(max_length, limit)

    def _instructed(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the pairs with their instructions."""
        return [
            (
                _instruct(self.query_instruction_format, self.query_instruction_for_rerank, query),
                _instruct(self.passage_instruction_format, self.passage_instruction_for_rerank, passage),
            )
            for query, passage in pairs
        ]


def _instruct(template: str, instruction: str | None, text: str) -> str:
    """Put an instruction before a text; a literal backslash-n in the template is a line break, as in FlagEmbedding."""
    return text if instruction is None else template.replace("\\n", "\n").format(instruction, text)


def _require_template(name: str, template: str) -> None:
    """Raise InputError for a template that does not take an instruction and a text."""
    try:
        template.format("instruction", "text")
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise InputError(f"{name} {template!r} must have two {{}}, for the instruction and the text") from error


def _device_of(devices: str | int | Sequence[str | int] | None) -> str | None:
    """Map FlagEmbedding's device names to "cpu" or MLX's default device: a Mac has one GPU."""
    if devices is not None and not isinstance(devices, (str, int)):
        if len(devices) > 1:
            warn(f"several devices {list(devices)} were given: only one is used")
        devices = devices[0] if len(devices) else None
    return device_named(devices)
