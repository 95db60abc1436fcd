"""Functions wrapped for a moment, to see what goes through them, in one thread alone."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]
Patch = tuple[Any, str, Callable[[Function], Function]]  # owner, the function's name there, and what wraps it

_patching = threading.RLock()  # patches must come off in reverse order


@contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """Wrap functions of classes and modules while the context lasts.

    Other threads call the functions as they were, and wait to patch any themselves.
    """
    thread = threading.get_ident()

    def here_only(wrapped: Function, original: Function) -> Function:
        def call(*args: Any, **kwargs: Any) -> Any:
            return (wrapped if threading.get_ident() == thread else original)(*args, **kwargs)

        return call

    with _patching:
        originals = [(owner, name, getattr(owner, name), name in vars(owner)) for owner, name, _ in patches]
        try:
            for (owner, name, wrapper), (*_, original, _) in zip(patches, originals, strict=True):
                setattr(owner, name, here_only(wrapper(original), original))
            yield
        finally:
            for owner, name, original, own in originals:
                if own:
                    setattr(owner, name, original)
                elif name in vars(owner):  # it was inherited
                    delattr(owner, name)
