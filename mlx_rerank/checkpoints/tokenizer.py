"""The tokenizer of a checkpoint: its tokenizer.json, or what transformers makes of an older checkpoint's vocabulary."""

from pathlib import Path

from tokenizers import Tokenizer

from mlx_rerank.checkpoints.files import TOKENIZER_FILE, VOCABULARIES
from mlx_rerank.checkpoints.reading import read_bytes
from mlx_rerank.errors import CheckpointError
from mlx_rerank.pairs.tokenizing import failures_of, parse_tokenizer


def read_tokenizer(directory: Path) -> Tokenizer:
    """Read the tokenizer of a checkpoint's directory.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    path = directory / TOKENIZER_FILE
    return parse_tokenizer(read_bytes(path), path) if path.exists() else _made_from_vocabulary(directory)


def require_large_enough(tokenizer: Tokenizer, vocab_size: int, directory: Path) -> None:
    """Refuse the tokenizer of another model, such as one that a library made of nothing but special tokens.

    Args:
        tokenizer: of a directory.
        vocab_size: rows of the model's table of word embeddings.
        directory: of the checkpoint.

    Raises:
        CheckpointError: it has far fewer tokens than the table has rows.
    """
    if 2 * (size := tokenizer.get_vocab_size()) < vocab_size:  # a table may have a few rows more
        raise CheckpointError(
            f"the tokenizer in {directory} has {size} tokens, and the model's table {vocab_size} rows: copy the "
            f"{TOKENIZER_FILE} of the model that this one was made from into it"
        )


def _made_from_vocabulary(directory: Path) -> Tokenizer:
    """Have transformers make the tokenizer, as it does for the original."""
    if not any((directory / name).is_file() for name in VOCABULARIES):  # without, transformers makes one of five tokens
        raise CheckpointError(
            f"{directory} has no {TOKENIZER_FILE}: copy that of the model that this one was made from into it"
        )
    from transformers import AutoTokenizer

    try:
        with failures_of(directory):
            made = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            text = made.backend_tokenizer.to_str().encode()
        return parse_tokenizer(text, directory)
    except Exception as error:  # transformers, sentencepiece and tokenizers raise whatever they like
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{directory} has no {TOKENIZER_FILE}, and none can be made from its vocabulary ({reason}): copy that of "
            "the model that this one was made from into it"
        ) from error
