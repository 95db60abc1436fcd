"""The hash of a file."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it is no plain file, or cannot be read.
    """
    if not path.is_file():  # to read a pipe or a device might never end
        raise FileNotFoundError(f"{path} is not there, or no plain file")
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
