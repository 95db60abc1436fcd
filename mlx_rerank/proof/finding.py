"""What a check of this machine found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A number that was measured, and the largest that is right.

    Args:
        what: was measured, in words.
        measured: largest error, or count of what went wrong; NaN or infinite where no number came out.
        bound: the largest that rounding explains.
        remedy: what helps where it is exceeded, if that is known.
    """

    what: str
    measured: float
    bound: float
    remedy: str = ""

    @property
    def passed(self) -> bool:
        """Whether this is as it should be; NaN is not."""
        return self.measured <= self.bound
