"""Strict JSON, counted before it is read.

The server runs this file as a program too, which reads bodies in a process of its own: hence nothing but the standard
library, and refusals that are values.
"""

import gc
import json
import marshal
import math
import os
import signal
import struct
import sys
from collections.abc import Collection
from typing import Any

HEAD = struct.Struct("!QQ")  # of a question: bytes of the body, most items of a list
LENGTH = struct.Struct("!Q")  # of an answer, in bytes
_DEEPEST = 64  # levels of nesting; no client needs more than four
_VALUES = 100_000  # of a body, the names of fields among them; or more where more documents are allowed
_DIGITS = 400  # of a number; reading one takes a time that grows with their square
_PART = 2**20  # bytes that are counted first, as they mostly tell
_NICE = 5  # a quarter of what those get who answer, where both have work

Refusal = tuple[int, str, str, str | None]  # status of HTTP, code, message, field of the request


def read(body: bytes, most_items: int, names: Collection[str]) -> tuple[Any, Refusal | None]:
    """Return what a body says, or why it is refused: it is not JSON, a list is too long, or it has too many values.

    Args:
        body: as it came.
        most_items: of each of its lists.
        names: fields that anybody reads; of each other one True is left, as what it holds would only be carried about,
            or null, which says nothing.
    """
    most = max(_VALUES, 10 * most_items)
    # Counted before they are made, as a byte can become an object of a hundred; most bodies are known to have few.
    if 2 * punctuation(body) > most and _values(body, most) > most:
        message = f"the body holds more than {most} JSON values: leave out fields that are not read, or send less"
        return None, (413, "too_many_values", message, None)
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse, parse_int=_whole, parse_float=_finite)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        return None, (400, "invalid_json", f"the body is not UTF-8 text: {error.reason}", None)
    except RecursionError:
        return None, (400, "invalid_json", "the body is nested too deeply: send a flat object", None)
    except ValueError as error:
        return None, (400, "invalid_json", f"the body is not JSON: {str(error)[:200]}", None)
    if _depth(value) > _DEEPEST:
        message = f"the body is nested more than {_DEEPEST} deep: send a flat object"
        return None, (400, "invalid_json", message, None)
    for name, items in value.items() if isinstance(value, dict) else ():
        if isinstance(items, list) and len(items) > most_items:
            message = f"{len(items)} {name[:40]} are more than the {most_items} that a request may have: send fewer"
            return None, (422, "too_many_documents", message, name[:40])
    if isinstance(value, dict):
        value = {name: given if name in names or given is None else True for name, given in value.items()}
    return value, None


def punctuation(body: bytes) -> int:
    """Return how many values and names a body has at most, by what stands before them."""
    return 1 + sum(map(body.count, (b",", b"[", b"{")))


def answer(names: Collection[str]) -> None:
    """Read the bodies that standard input brings, and write what they say, until there are no more."""
    os.nice(_NICE)
    for stop in (signal.SIGINT, signal.SIGTERM):  # which a whole group of processes may get: the server ends this one
        signal.signal(stop, signal.SIG_IGN)
    gc.disable()  # JSON has no cycles
    with open(0, "rb") as questions, open(1, "wb") as answers:
        while head := questions.read(HEAD.size):
            size, most_items = HEAD.unpack(head)
            said = marshal.dumps(read(questions.read(size), most_items, names))
            answers.write(LENGTH.pack(len(said)) + said)
            answers.flush()


def _refuse(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads but JSON does not have."""
    raise ValueError(f"{name} is not a JSON value")


def _values(body: bytes, most: int) -> int:
    """Return how many values a body has, or more than `most`; names of fields count too.

    Nothing is made of them, so that this takes hundredths of a second, whatever the body. What follows an error in it
    is counted as something else than it looks like, but never read.
    """
    count = 0
    for part in (body[:_PART], body):
        bare = part.replace(rb"\\", b"").replace(rb"\"", b"")  # then a quotation mark begins or ends a string
        count = bare.count(b'"') // 2
        count += punctuation(b"".join(bare.split(b'"')[::2])) if count <= most else 0
        if count > most:
            break
    return count


def _whole(text: str) -> int:
    """Read a whole number of a sensible length."""
    if len(text) > _DIGITS:
        raise ValueError(f"{text[:40]}... is too long a number")
    return int(text)


def _finite(text: str) -> float:
    """Read a number, unless it is beyond what a float holds."""
    number = float(text) if len(text) <= _DIGITS else math.inf
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _depth(value: Any) -> int:
    """Return how deep a value is nested, or a little more than the most that is allowed."""
    depth, level = 0, [value]
    while level and depth <= _DEEPEST:
        depth += 1
        level = [
            item
            for outer in level
            if isinstance(outer, (list, dict))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


if __name__ == "__main__":
    answer(frozenset(sys.argv[1:]))
