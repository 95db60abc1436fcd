"""How a server is set up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """All that is not about models.

    Args:
        hosts: names, beside those of this machine, that the server may be called by.
        origins: of pages, such as https://chat.example, that may use it.
        keys: a request must have one of them; none needed if empty.
        body_bytes: most of a request's body.
        body_timeout: seconds in which a request's head has to arrive, and then its body.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    body_bytes: int = 8 * 10**6
    body_timeout: float = 30.0
