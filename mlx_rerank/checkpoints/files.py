"""The files of a model's directory: which of them decide a score, and whether they are still those that were opened.

A directory is read more than once: configuration and tokenizer at the start, weights again after they were unloaded,
rows of the word embeddings at each batch. Each read must find the files of the first: else a score is of two models.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mlx_rerank.errors import CheckpointError

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
# What a tokenizer is made of without a tokenizer.json.
VOCABULARIES = ("sentencepiece.bpe.model", "vocab.txt", "vocab.json", "merges.txt")
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = WEIGHTS_FILE + ".index.json"
TORCH_WEIGHTS_FILE = "pytorch_model.bin"  # read where there are no safetensors
TORCH_INDEX_FILE = TORCH_WEIGHTS_FILE + ".index.json"  # and this where that is in parts
TORCH_SHARDS = "pytorch_model-*.bin"
ADAPTER_FILE = "adapter_config.json"  # says that a directory is no model, but a change of one

# How the makers of a model want it to be used. They go with every copy; config.json is written anew.
TOKENIZER_SETTINGS_FILE = "tokenizer_config.json"
ADDED_TOKENS_FILE = "added_tokens.json"
SENTENCE_TRANSFORMERS_FILE = "config_sentence_transformers.json"
MODULES_FILE = "modules.json"
SETTINGS = (
    TOKENIZER_SETTINGS_FILE,
    "special_tokens_map.json",
    ADDED_TOKENS_FILE,
    SENTENCE_TRANSFORMERS_FILE,
    "sentence_bert_config.json",
    MODULES_FILE,
)
OF_MODULES = ("[0-9]*_*/config.json", "[0-9]*_*/model.safetensors")  # of a head that sentence-transformers saved
# With which sentence-transformers says that a language model reranks; a converted config.json says it itself.
LOGIT_SCORE_FILE = "1_LogitScore/config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
DECLARING = (LOGIT_SCORE_FILE, CHAT_TEMPLATE_FILE)
TEXTS = ("LICENSE*", "NOTICE*")  # decide nothing, and go with every copy, too

_TICK = 0.02  # seconds: two changes that are nearer to each other may leave a file with the same times
Stamp = tuple[int, int, int, tuple[int, int]]  # device, inode, bytes; when bytes and file were last changed, in ns


@dataclass(frozen=True)
class Identity:
    """Which files of a directory decide a score, and which they were when it was opened.

    Args:
        directory: where they are.
        stamps: by name. A file that is replaced, or written to, gets another.
    """

    directory: Path
    stamps: dict[str, Stamp]

    @classmethod
    def of(cls, directory: Path) -> "Identity":
        """Look at the files of a directory. Where one was changed just now, wait until another change would show."""
        while True:
            stamps = _stamps(directory)
            if all(map(settled, stamps.values())):
                return cls(directory, stamps)
            time.sleep(_TICK)

    @property
    def key(self) -> str:
        """A short hash of the stamps, by which a copy of the files is found again; a device's number may change."""
        return sha256(repr(sorted((name, stamp[1:]) for name, stamp in self.stamps.items())).encode()).hexdigest()[:16]

    def changed(self) -> list[str]:
        """Return the names of the files that are not what they were, or are new or gone."""
        now = _stamps(self.directory)
        return sorted(name for name in self.stamps | now if self.stamps.get(name) != now.get(name))


def deciding(directory: Path) -> Iterator[Path]:
    """Yield the files of a directory that decide a score, as they are read: none but these is.

    Source: what AutoModel, AutoTokenizer and sentence-transformers read of a checkpoint.
    """
    tensors: list[Path] = []
    with suppress(OSError):  # the directory is gone
        tensors = sorted(directory.glob("*.safetensors"))
    tokenizer = (TOKENIZER_FILE,) if (directory / TOKENIZER_FILE).is_file() else VOCABULARIES
    yield from (directory / name for name in (CONFIG_FILE, *SETTINGS, *DECLARING, *tokenizer, INDEX_FILE))
    if not tensors:
        with suppress(OSError):
            tensors = sorted(directory.glob(TORCH_SHARDS))
        yield from (directory / name for name in (TORCH_WEIGHTS_FILE, TORCH_INDEX_FILE))
    yield from tensors
    with suppress(OSError):
        yield from (path for pattern in OF_MODULES for path in sorted(directory.glob(pattern)))


def own(path: Path, directory: Path) -> Path:
    """Return the path of a directory's file that is to be copied or sent: what a link leads to may be anything.

    Args:
        path: below the directory.
        directory: of a model. The hub's cache has links in it, to the blobs beside it.

    Raises:
        CheckpointError: it is a link that leads elsewhere, or to itself.
    """
    try:
        leads_to, home = path.resolve(), directory.resolve()
    except (OSError, RuntimeError) as error:  # a loop
        raise CheckpointError(f"{path} is a link that leads nowhere ({error}): remove it") from error
    cached = home.parent.name == "snapshots" and leads_to.is_relative_to(home.parent.parent / "blobs")
    if cached or leads_to.is_relative_to(home):
        return path
    raise CheckpointError(
        f"{path} is a link to {leads_to}, which is not the model's: put the file itself there, or remove the link"
    )


def stamp_of(path: Path) -> Stamp:
    """Return what tells a file from one that replaces it, and from itself after it was written to.

    Raises:
        OSError: it is not there.
    """
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, (status.st_mtime_ns, status.st_ctime_ns)


def settled(stamp: Stamp) -> bool:
    """Tell whether another change of the file would give it another stamp."""
    return not 0 <= time.time() - max(stamp[-1]) / 1e9 < _TICK


def _stamps(directory: Path) -> dict[str, Stamp]:
    """Return the stamps of the files that are there and decide a score, by name."""
    found = {}
    for path in deciding(directory):
        with suppress(OSError):  # not there, or no longer
            found[path.relative_to(directory).as_posix()] = stamp_of(path)
    return found
