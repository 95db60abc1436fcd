"""Every error that mlx-rerank raises on purpose.

RerankError                  catch this one to catch them all
├── InputError               a text, pair or argument the caller passed (also a ValueError)
├── CheckpointError          a directory that is not what it should be
│   ├── UnsupportedModelError    a readable checkpoint of a model that this package does not run
│   ├── ChangedCheckpointError   a file that is not the one that was opened
│   └── WeightsError             a weight that is missing, unexpected, misshapen or of the wrong dtype
├── CheckpointNotFoundError  a name that leads to no directory (also a FileNotFoundError)
├── OutputError              a conversion cannot write where it was told to (also an OSError)
│   └── OutputExistsError        it would overwrite something (also a FileExistsError)
├── UploadError              a model cannot be sent to the Hugging Face hub (also an OSError)
├── NonFiniteScoreError      the model produced NaN or infinity for a pair (also an ArithmeticError)
├── DeviceError              the device is not there, or failed (also a RuntimeError)
├── StoppedError             a call ended before its work did; it holds what was scored
│   ├── DeadlineError            its timeout passed (also a TimeoutError)
│   └── CancelledError           its event was set
├── RefusedError             a request that a server turns down; it has the HTTP status
├── WorkerError              a benchmark's process ended before its work was done (also a RuntimeError)
└── MissingDependencyError   an optional package is not installed (also an ImportError)

A message names the value, the limit it broke and what to do about it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


_LONGEST = 4000  # characters of a message: a stranger's file may have a name or a value of any length


def printable(text: object) -> str:
    """Return a text on one line, with whatever a terminal, or the reader of a log, would act on as an escape.

    These are control characters, line ends, marks that turn the direction of writing, and half characters. Backslashes
    stay as they are, so that an escaped text is left alone.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


class RerankError(Exception):
    """Base of every error raised by this package."""

    def __str__(self) -> str:
        """Return the message, fit to be printed: it may quote names and values from a stranger's files."""
        message = printable(super().__str__())
        return message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ..."

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it travel between processes with all that it holds, whatever its constructor takes."""
        return _again, (type(self), self.args, vars(self))


class InputError(RerankError, ValueError):
    """A text, pair or argument that cannot be used."""


class CheckpointError(RerankError):
    """A checkpoint directory that is incomplete or damaged."""


class UnsupportedModelError(CheckpointError):
    """A checkpoint that is not a single-label cross-encoder of a family that is run here."""


class ChangedCheckpointError(CheckpointError):
    """A file of a model in use was replaced or written to, so that a score would be of two models."""


class WeightsError(CheckpointError):
    """A weight is missing, unexpected, misshapen or of the wrong dtype."""


class CheckpointNotFoundError(RerankError, FileNotFoundError):
    """A model name that leads to no checkpoint."""


class OutputError(RerankError, OSError):
    """A path that cannot be written."""


class OutputExistsError(OutputError, FileExistsError):
    """A path that would have been overwritten."""


class UploadError(RerankError, OSError):
    """A model that the Hugging Face hub did not take."""


class NonFiniteScoreError(RerankError, ArithmeticError):
    """The model produced NaN or infinity for a pair."""


class DeviceError(RerankError, RuntimeError):
    """A device that is not there, or that could not compute what it was given."""


class StoppedError(RerankError):
    """A call that ended before all its pairs were scored.

    Args:
        message: why, and how far it came.
        indices: int64 [n], places in the caller's list of the pairs that were scored, in the order of completion.
        logits: float32 [n], theirs.
        truncated_tokens: int64 [n], tokens of each that the model did not see.
        spans: int64 [n, 2], the characters of each document that its logit covers.
    """

    def __init__(
        self,
        message: str,
        indices: "np.ndarray",
        logits: "np.ndarray",
        truncated_tokens: "np.ndarray",
        spans: "np.ndarray",
    ) -> None:
        super().__init__(message)
        self.indices = indices
        self.logits = logits
        self.truncated_tokens = truncated_tokens
        self.spans = spans


class DeadlineError(StoppedError, TimeoutError):
    """The time that a call was given has passed."""


class CancelledError(StoppedError):
    """The event that a call was given is set."""


class RefusedError(RerankError):
    """A request that a server turns down.

    Args:
        status: of HTTP, 400 to 599.
        code: a word for the reason, for programs.
        message: for people.
        param: the field of the request that it is about.
        retry_after: seconds after which it may be worth another try.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


class WorkerError(RerankError, RuntimeError):
    """A process of a benchmark that ended before its work was done."""


class MissingDependencyError(RerankError, ImportError):
    """An optional package that is not installed."""


def _again(kind: type[RerankError], args: tuple[Any, ...], held: dict[str, Any]) -> RerankError:
    """Return an error that has travelled."""
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(held)
    return error
