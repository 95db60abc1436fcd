"""Which files a process opens, as Linux tells: whatever the language of the code that opens them."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OPEN = 0x20  # IN_OPEN of <sys/inotify.h>
_HEAD = struct.Struct("iIII")  # of an event; the length of the name that follows is last


@contextmanager
def opened_in(directory: Path) -> Iterator[set[str]]:
    """Give a set that holds, at the end, the names of the files of a directory that were opened meanwhile."""
    library = ctypes.CDLL(None, use_errno=True)
    events = library.inotify_init1(os.O_NONBLOCK)
    assert library.inotify_add_watch(events, os.fsencode(directory), _OPEN) >= 0, os.strerror(ctypes.get_errno())
    names: set[str] = set()
    try:
        yield names
    finally:
        read = b""
        with suppress(BlockingIOError):  # when there are no more
            while True:
                read += os.read(events, 65536)
        os.close(events)
        while read:
            length = _HEAD.unpack_from(read)[-1]
            name, read = read[_HEAD.size : _HEAD.size + length], read[_HEAD.size + length :]
            names.add(os.fsdecode(name.rstrip(b"\0")))
        names.discard("")  # the directory itself
