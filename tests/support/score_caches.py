"""Scores to keep in a score cache, caches that are full of them, and damage."""

from hashlib import sha256
from pathlib import Path
from random import Random

from mlx_rerank.scoring.score_cache import CachedScore, ScoreCache


def key(number: int) -> bytes:
    return sha256(str(number).encode()).digest()[:16]


def scores(start: int, stop: int) -> dict[bytes, CachedScore]:
    return {key(n): CachedScore(n / 4, n, 0, 9) for n in range(start, stop)}


def full(path: Path, count: int = 5_000) -> dict[bytes, CachedScore]:
    """Fill a cache and close it."""
    cache = ScoreCache(path)
    cache.put(scores(0, count))
    cache.close()
    return scores(0, count)


def overwrite(path: Path, seed: int) -> None:
    """Put random bytes into the middle of pages, all over a database."""
    random = Random(seed)
    with path.open("r+b") as file:
        for offset in range(4096 + 64, path.stat().st_size, 20_000):
            file.seek(offset + random.randrange(4000))
            file.write(random.randbytes(64))
