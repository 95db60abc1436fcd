"""Errors that nobody expected, logged without their messages, which may quote a document."""

import logging
import traceback

logger = logging.getLogger("mlx_rerank.server")


def log_failure(error: BaseException) -> None:
    """Log an error's kind, and the places that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-8:]]
    logger.error("failed", extra={"error": type(error).__name__, "where": " ".join(where)})
