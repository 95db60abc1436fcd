"""The class, whose methods do what sentence-transformers' do."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.compat.arguments import device_named, options_named
from mlx_rerank.compat.sentence_transformers.activation import Activation, activated, activation_named, tensor_of
from mlx_rerank.compat.sentence_transformers.attributes import Attributes
from mlx_rerank.compat.sentence_transformers.pool import Compute, chosen
from mlx_rerank.compat.sentence_transformers.prompts import all_prompts, chosen_prompt
from mlx_rerank.compat.warning import old_names, warn, warn_unused
from mlx_rerank.errors import InputError
from mlx_rerank.pairs.arguments import Document, check_pairs, pairs_to_rank, require_sequence, require_whole_number
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.scoring.reranker import Reranker
from mlx_rerank.scoring.results import log_truncation


class CrossEncoder(Attributes):
    """Drop-in replacement for `sentence_transformers.CrossEncoder`, to predict and to rank.

    Not here: training and saving (`fit`, `save_pretrained`, `push_to_hub`), and what is torch's (`model`, `to`).

    Source: sentence-transformers 6.2.0 `cross_encoder/model.py`; tests/parity/test_sentence_transformers.py. It differs
    where sentence-transformers has defects. A text alone is an error, not scored as if it were a pair. Documents given
    as one text are an error, not ranked letter by letter. A negative top_k is an error; there it leaves out the last
    results. A tokenizer that states no length does not get two tokens more than the model has positions for. Two long
    texts do not fill the memory; there every pair of their parts is made, and thrown away. Truncation is logged. A
    logit of NaN is an error.
    """

    @old_names(
        model_name="model_name_or_path",
        automodel_args="model_kwargs",
        tokenizer_args="processor_kwargs",
        tokenizer_kwargs="processor_kwargs",
        config_args="config_kwargs",
        cache_dir="cache_folder",
        default_activation_function="activation_fn",
        classifier_dropout=None,
    )
    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Activation | None = None,
        device: Any = None,
        *,
        modules: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        model_card_data: Any = None,
        backend: str = "torch",
        keep_in_fp32_modules: Sequence[str] | None = None,
        cpu_threads: int | None = None,
    ) -> None:
        """Load a model. Where an argument has no effect, a warning names it.

        Args:
            model_name_or_path: as `Reranker`'s model.
            num_labels: 1 if anything.
            max_length: most tokens of a pair. If None, what the tokenizer states. The model's limit where that is less.
            activation_fn: makes scores of logits; if None, what the checkpoint names, or else the sigmoid. It is given
                a float32 array [N, 1], or, where it cannot take that, a torch tensor of this shape.
            device: "cpu" for the CPU; "mps", "cuda" ... for the GPU; a warning says so if there is none.
            modules: unused.
            prompts: texts that may be put before a query, by name, besides those of the checkpoint.
            default_prompt_name: of the prompt that is used, unless a call says otherwise.
            cache_folder: where hub downloads are kept; if None, what SENTENCE_TRANSFORMERS_HOME says.
            trust_remote_code: unused: no code from a checkpoint is ever run.
            revision: branch, tag or commit of a hub model.
            local_files_only: stay off the network: a hub model must have been downloaded before.
            token: for the hub, to read what is not public; the one stored on this machine if None or True.
            model_kwargs: "dtype" or "torch_dtype" is what to compute in: float32 if neither is there, and with "auto"
                what `Reranker` chooses. All else is unused.
            processor_kwargs: "model_max_length" is max_length, where that is None; "truncation_side" says where texts
                are cut, whatever the checkpoint says. All else is unused.
            config_kwargs: "num_labels" is num_labels, where that is None. All else is unused.
            model_card_data: what evaluators hand their metrics to.
            backend: unused.
            keep_in_fp32_modules: unused.
            cpu_threads: as for `Reranker`; sentence-transformers has no such argument.

        Raises:
            InputError: num_labels is not 1, the default prompt is unknown, max_length leaves no room for text, or the
                checkpoint names an activation that only torch has.
            RerankError: as `Reranker`.
        """
        of_model = options_named("model_kwargs", model_kwargs)
        of_processor = options_named("processor_kwargs", processor_kwargs)
        of_config = options_named("config_kwargs", config_kwargs)
        dtypes = (of_model.pop(name, None) for name in ("dtype", "torch_dtype"))
        dtype = next((found for found in dtypes if found is not None), "float32")
        self._truncation_side = of_processor.pop("truncation_side", None)
        max_length = of_processor.pop("model_max_length", None) if max_length is None else max_length
        labels = of_config.pop("num_labels", 1) if num_labels is None else num_labels
        if labels != 1:
            raise InputError(f"num_labels must be 1, not {labels!r}: these models give each pair one score")
        left = {"model_kwargs": of_model, "processor_kwargs": of_processor, "config_kwargs": of_config}
        unused = {f"{name}[{key!r}]": True for name, options in left.items() for key in options}
        unused |= {"modules": modules, "trust_remote_code": trust_remote_code, "backend": backend != "torch"}
        unused |= {"keep_in_fp32_modules": keep_in_fp32_modules or None}
        warn_unused("CrossEncoder", unused)
        checkpoint = Checkpoint.open(
            "" if model_name_or_path is None else model_name_or_path,
            revision=revision,
            cache_dir=(os.environ.get("SENTENCE_TRANSFORMERS_HOME") or None) if cache_folder is None else cache_folder,
            local_files_only=local_files_only,
            token=token,
        )
        super().__init__(checkpoint, model_card_data)
        saved = checkpoint.settings
        self.activation_fn = activation_named(saved.activation) if activation_fn is None else activation_fn
        self.prompts = all_prompts(saved.prompts, prompts)
        self.default_prompt_name = saved.default_prompt_name if default_prompt_name is None else default_prompt_name
        chosen_prompt(self.prompts, self.default_prompt_name, None, None)  # refuses a default that is unknown
        self.max_length = saved.length(self._shape.max_length) if max_length is None else max_length
        self._limits()  # refuses a side that is unknown
        self.reranker = Reranker(
            checkpoint.directory,
            dtype=None if dtype == "auto" else str(dtype).removeprefix("torch."),
            device=device_named(device),
            max_length=self.max_length,
            cpu_threads=cpu_threads,
        )
        checkpoint.require_unchanged()  # or the settings would be of other files than the Reranker's
        if saved.float32_modules and keep_in_fp32_modules is None and self.reranker.dtype != "float32":
            warn(f"{', '.join(saved.float32_modules)} compute in {self.reranker.dtype}, not in float32 as was saved")

    @old_names(sentences="inputs", activation_fct="activation_fn")
    def predict(
        self,
        inputs: Sequence[str] | Iterable[Sequence[str]] | np.ndarray,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score pairs of query and document.

        Args:
            inputs: one (query, document) pair, or a list of them.
            prompt_name: name of the prompt to put before every query; the default one if None.
            prompt: the text to put before every query, in place of a named one.
            batch_size: most pairs computed at once.
            show_progress_bar: on stderr; on a terminal and after a second if None.
            activation_fn: makes scores of logits; the constructor's if None.
            apply_softmax: without effect on one score a pair, as in sentence-transformers.
            convert_to_numpy: return numpy's types, not torch's.
            convert_to_tensor: return a torch tensor, whatever convert_to_numpy says.
            device: a list of devices has as many processes share the pairs; another one than the model's is not used,
                as a warning says.
            pool: processes of `start_multi_process_pool` that share the pairs.
            chunk_size: pairs that a process takes at a time; all are taken at once if None.
            kwargs: `processing_kwargs={"text": {"max_length": 64}}` cuts pairs to that. All else is unused; a warning
                names it.

        Returns:
            float32 [N], or one float32 for one pair: a numpy array or number; a tensor if convert_to_tensor; a list of
            tensors, or one, if not convert_to_numpy. For no pairs at all, numpy's array is an empty float64 one.

        Raises:
            InputError: something is not a pair of texts, the prompt's name is unknown, batch_size is below one, or the
                activation does not give one score for each logit.
            NonFiniteScoreError: the model produced NaN or infinity.
            MissingDependencyError: a tensor is wanted, and torch is not installed.
        """
        limits = self._limits(kwargs.pop("processing_kwargs", None))
        warn_unused("CrossEncoder.predict", kwargs)
        require_sequence("inputs", inputs)
        pairs = list(inputs)
        single = self.is_singular_input(pairs)
        pairs = check_pairs([pairs] if single else pairs)  # pyright: ignore[reportArgumentType]
        before = chosen_prompt(self.prompts, self.default_prompt_name, prompt, prompt_name)
        with ExitStack() as ending:
            compute = chosen(self.reranker, device, pool, chunk_size, ending)
            scores = self._scores(compute, pairs, before, limits, activation_fn, batch_size, show_progress_bar)
        if convert_to_numpy and not convert_to_tensor:
            return scores[0] if single else scores if pairs else np.array([])
        tensor = tensor_of(scores)
        return tensor[0] if single else tensor if convert_to_tensor else list(tensor)

    @old_names(
        activation_fct="activation_fn",
        num_workers=None,
        apply_softmax=None,
        convert_to_numpy=None,
        convert_to_tensor=None,
    )
    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rank documents by their relevance to a query.

        Args:
            query: what is asked.
            documents: texts.
            top_k: how many to return; all if None.
            return_documents: return each with its text.
            prompt_name: as for `predict`, like all below.
            prompt: to put before the query.
            batch_size: most pairs computed at once.
            show_progress_bar: on stderr.
            activation_fn: makes scores of logits.
            device: as for `predict`, like the next two.
            pool: processes that share the pairs.
            chunk_size: pairs that a process takes at a time.

        Returns:
            The best first, equal ones in the order given: each with its "corpus_id", the place in documents, its
            "score", a float, and, if it was asked for, its "text".

        Raises:
            InputError: as `predict`; or top_k is negative.
            NonFiniteScoreError: the model produced NaN or infinity.
        """
        if top_k is not None:
            require_whole_number("top_k", top_k, least=0)
        texts, pairs = pairs_to_rank(query, documents)
        before = chosen_prompt(self.prompts, self.default_prompt_name, prompt, prompt_name)
        with ExitStack() as ending:
            compute = chosen(self.reranker, device, pool, chunk_size, ending)
            found = self._scores(compute, pairs, before, self._limits(), activation_fn, batch_size, show_progress_bar)
        scores = found.tolist()
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:top_k]
        return [{"corpus_id": i, "score": scores[i]} | ({"text": texts[i]} if return_documents else {}) for i in order]

    def _scores(
        self,
        compute: Compute,
        pairs: Sequence[tuple[str, str]],
        prompt: str,
        limits: Limits,
        activation_fn: Activation | None,
        batch_size: int,
        show_progress: bool | None,
    ) -> np.ndarray:
        """Return the score of each pair, float32 [N]."""
        given = [(prompt + query, document) for query, document in pairs]
        logits, cut = compute(given, limits, batch_size, show_progress)
        log_truncation(cut, limits.max_length)
        return activated(self.activation_fn if activation_fn is None else activation_fn, logits)

    def _limits(self, processing: Any = None) -> Limits:
        """Return how pairs are cut, as the model or the options of one call say."""
        of_call = options_named("processing_kwargs", processing)
        of_text = options_named("processing_kwargs['text']", of_call.pop("text", None))
        max_length = of_text.pop("max_length", self.max_length)
        of_text.pop("truncation", None)  # pairs are always cut
        warn_unused("CrossEncoder.predict", {f"processing_kwargs[{key!r}]": True for key in of_call | of_text})
        return Limits(max_length, longest_first=True, truncation_side=self._truncation_side)
