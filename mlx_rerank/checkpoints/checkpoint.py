"""A checkpoint directory, Hugging Face's or this package's own, and the model in it."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from tokenizers import Tokenizer

from mlx_rerank.checkpoints import hub, weights
from mlx_rerank.checkpoints.config import conversion_record, is_converted, require_unpacked
from mlx_rerank.checkpoints.declared import with_template
from mlx_rerank.checkpoints.files import (
    TOKENIZER_FILE,
    Identity,
    deciding,
)
from mlx_rerank.checkpoints.fit import Shapes, require_fit
from mlx_rerank.checkpoints.modules import shapes_of_modules, with_modules
from mlx_rerank.checkpoints.packing import quantization_of
from mlx_rerank.checkpoints.reading import read_bytes
from mlx_rerank.checkpoints.settings import Settings
from mlx_rerank.checkpoints.tensors import open_tensors, shapes_of
from mlx_rerank.checkpoints.tokenizer import read_tokenizer, require_large_enough
from mlx_rerank.checkpoints.tokenizer_settings import apply_settings, check_template
from mlx_rerank.checkpoints.unread import config_of
from mlx_rerank.errors import ChangedCheckpointError, CheckpointError
from mlx_rerank.models import family_named, family_of
from mlx_rerank.models.family import Family, drop_module
from mlx_rerank.models.layers import Model
from mlx_rerank.models.mapping import ScoreMapping, mapping_named
from mlx_rerank.models.shape import Shape
from mlx_rerank.models.templates import declared
from mlx_rerank.pairs.encoder import PairEncoder
from mlx_rerank.pairs.tokenizing import failures_of


@dataclass(frozen=True)
class Checkpoint:
    """A directory whose config.json has been read and found usable.

    Args:
        directory: where the files are.
        identity: which files these are.
        raw: config.json as it stands, and the template that the caller named.
        family: of the model.
        shape: of the model.
        mapping: of its logits to scores.
        converted: whether this package's converter wrote it.
    """

    directory: Path
    identity: Identity
    raw: Mapping[str, Any]
    family: Family
    shape: Shape
    mapping: ScoreMapping
    converted: bool

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        template: str | None = None,
    ) -> "Checkpoint":
        """Find a model's directory, downloading it if need be, and read its config.json.

        Its shape is compared with the headers of safetensors; a pytorch_model.bin, which torch has to open, is left to
        `tensors`.

        Args:
            model: the name of an embedded model, a local directory, or a hub id.
            revision: branch, tag or commit on the hub.
            cache_dir: where downloads are kept.
            local_files_only: download nothing.
            token: for the hub.
            template: prompt that a language model is read with, where its files do not say.

        Raises:
            InputError: a revision of what is not on the hub, a template of no use, or an argument of the wrong kind.
            CheckpointNotFoundError: the name leads nowhere.
            CheckpointError: config.json cannot be read, or contradicts itself.
            UnsupportedModelError: it describes a model that this package does not run.
            WeightsError: it contradicts the weights.
        """
        directory = hub.resolve(
            model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
        )
        identity = Identity.of(directory)  # first, so that no file is read before its stamp is
        raw = with_template(with_modules(config_of(directory), directory), directory, template)
        record = conversion_record(raw)
        if not is_converted(raw):
            require_unpacked(raw)
        family = family_named(record["family"]) if "family" in record else family_of(raw)
        if record.get("score_rule", family.score_rule) != family.score_rule:
            raise CheckpointError(
                f"config.json records the score rule {record['score_rule']!r}; {family.name} has {family.score_rule!r}"
            )
        mapping = mapping_named(record["mapping"]) if "mapping" in record else family.mapping
        opened = cls(directory, identity, raw, family, family.shape(raw), mapping, is_converted(raw))
        with opened.reading():
            files = weights.safetensors_files(directory)
            if files:
                opened._require_fit(weights.stored_shapes(files) | shapes_of_modules(directory))
        return opened

    def tensors(self) -> MutableMapping[str, Any]:
        """Return the weights' tensors by name, each read when it is used; their shapes are those of config.json.

        Raises:
            CheckpointError: the weights cannot be read, or config.json does not say how a parameter is packed.
            WeightsError: they do not match the shape in config.json.
            MissingDependencyError: they need torch to be read, and it is not installed.
        """
        tensors = open_tensors(self.directory)
        self._require_fit(shapes_of(tensors))
        return tensors

    def _require_fit(self, found: Shapes) -> None:
        """Compare the shape with that of the weights, before anything of that size is made."""
        require_fit(found, self.raw, self.family, self.shape, converted=self.converted)

    @cached_property
    def settings(self) -> Settings:
        """How its makers want it to be used.

        Raises:
            CheckpointError: they cannot be read, or are not supported.
        """
        with self.reading():
            its = self.family.in_transformers
            return Settings.read(self.directory, self.raw, its.tokenizer, *its.other_tokenizers)

    @property
    def quantized(self) -> bool:
        """Whether some weights are packed to fewer bits than a dtype's."""
        return "quantization" in self.raw

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """Return a hash of everything on disk that this checkpoint's logits depend on.

        Args:
            digest: returns the hash of a file's bytes; all hashes have one length.

        Raises:
            CheckpointError: a file is not there, or the index of the weights is damaged.
        """
        with self.reading():
            try:
                files = [path for path in deciding(self.directory) if path.is_file()]
                digests = [(path.relative_to(self.directory).as_posix(), digest(path)) for path in files]
            except OSError as error:
                raise CheckpointError(f"{self.directory} cannot be read: {error}") from error
        return sha256(repr(digests).encode()).hexdigest()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read files of the directory within; none of them may have changed since it was opened.

        Raises:
            ChangedCheckpointError: one has, before or meanwhile.
        """
        try:
            yield
        except Exception:  # files that change may break whatever reads them
            self.require_unchanged()
            raise
        self.require_unchanged()

    def require_unchanged(self) -> None:
        """Refuse what would be of two models.

        Raises:
            ChangedCheckpointError: a file has changed since the directory was opened.
        """
        if changed := self.identity.changed():
            raise ChangedCheckpointError(
                f"{self.directory} has changed since it was opened ({', '.join(changed)}): load the model again"
            )

    @property
    def table_names(self) -> frozenset[str]:
        """Names that the word embeddings' parameters may have; scales and biases exist only if they are packed."""
        return frozenset(f"{self.family.words}.{kind}" for kind in ("weight", "scales", "biases"))

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        with self.reading():
            return read_tokenizer(self.directory)

    def tokenizer_file(self) -> bytes:
        """Return the tokenizer as tokenizer.json has it, or would have it; raises what `tokenizer` does."""
        path = self.directory / TOKENIZER_FILE
        with self.reading():
            return read_bytes(path) if path.exists() else self.tokenizer().to_str().encode()

    def encoder(self, instruction: str | None = None) -> PairEncoder:
        """Return what turns pairs into rows of token ids, as the tokenizer and the model's frame say.

        Args:
            instruction: what the model is told to do; what its template says if None.

        Raises:
            InputError: the model reads no instruction.
            CheckpointError: the tokenizer cannot be read, or does not belong to the model; its subclasses say why.
        """
        with self.reading(), failures_of(self.directory):
            tokenizer = self.tokenizer()
            apply_settings(tokenizer, self.directory, self.family.in_transformers)
            frame = self.family.frame(tokenizer, self.shape)
            if (own := declared(self.raw).get("instruction")) is not None:
                frame = frame.told(own)
            recorded = conversion_record(self.raw).get("frame")
            if recorded not in (None, self.family.record(frame)["frame"]):
                raise CheckpointError(
                    f"the tokenizer in {self.directory} makes the frame {frame}; config.json records {recorded}"
                )
            if instruction is not None:
                frame = frame.told(instruction)
            side = self.settings.truncation_side or (tokenizer.truncation or {}).get("direction", "right")
            encoder = PairEncoder(tokenizer, frame, self.shape.vocab_size, side, self.directory / TOKENIZER_FILE)
            require_large_enough(tokenizer, self.shape.vocab_size, self.directory)
            check_template(tokenizer, frame, self.directory)
        return encoder

    def load(self, dtype: mx.Dtype, *, keep_quantized: bool, evaluate: bool = True, words: bool = True) -> Model:
        """Read the weights into a model, one tensor at a time, every one in the same dtype.

        Args:
            dtype: of all weights that are not packed.
            keep_quantized: leave packed weights packed, for devices with fast quantized products. Otherwise they are
                dequantized here, once.
            evaluate: read and check the weights now. Otherwise each is read when it is first used; an audit reads none,
                except from a pytorch_model.bin.
            words: load the word embeddings too. Otherwise they are not read, and each batch must bring the embeddings
                of its words (mapped.py).

        Raises:
            CheckpointError: the weights cannot be read, or are not those that were opened.
            WeightsError: they do not match the shape in config.json.
            MissingDependencyError: they need torch to be read, and it is not installed.
        """
        with self.reading():
            tensors = self.tensors()
            model = self.family.build(self.shape)
            absent = frozenset() if words else self.table_names
            float32 = self.family.float32(self.shape)
            if not words:
                drop_module(model, self.family.words)
            if not self.converted:
                parameters = weights.port(tensors, self.family, self.shape, dtype)
            elif self.quantized and keep_quantized:
                nn.quantize(model, class_predicate=lambda path, _: _packing(path, tensors, self.raw))
                parameters = weights.cast(tensors, dtype, float32)
            else:
                parameters = weights.unpack(tensors, self.raw, dtype, float32)
            parameters = ((name, value) for name, value in parameters if name not in absent)
            weights.load_into(model, dict(weights.evaluate(parameters) if evaluate else parameters), float32)
        return model


def _packing(path: str, tensors: Mapping[str, Any], raw: Mapping[str, Any]) -> bool | dict[str, Any]:
    """Return the arguments that make the module at `path` a quantized one, or False where it is not."""
    return vars(quantization_of(raw, path)) if path + ".scales" in tensors else False
