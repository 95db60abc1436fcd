"""The tokenizer of a checkpoint: its tokenizer.json, or what transformers makes of an older checkpoint's vocabulary."""

from pathlib import Path

from tokenizers import Tokenizer

from mlx_rerank.checkpoints.files import TOKENIZER_FILE, VOCABULARIES
from mlx_rerank.errors import CheckpointError


def read_tokenizer(directory: Path, vocab_size: int) -> Tokenizer:
    """Read the tokenizer of a directory.

    Args:
        directory: of a checkpoint.
        vocab_size: rows of the model's table of word embeddings.

    Raises:
        CheckpointError: there is none, it cannot be read, or it is of another model.
    """
    path = directory / TOKENIZER_FILE
    if path.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{path} cannot be read: {error}") from error
    else:
        tokenizer = _made_from_vocabulary(directory)
    if 2 * (size := tokenizer.get_vocab_size()) < vocab_size:  # a table may have a few rows more
        raise CheckpointError(
            f"the tokenizer in {directory} has {size} tokens, and the model's table {vocab_size} rows: copy the "
            f"{TOKENIZER_FILE} of the model that this one was made from into it"
        )
    return tokenizer


def _made_from_vocabulary(directory: Path) -> Tokenizer:
    """Have transformers make the tokenizer, as it does for the original."""
    if not any((directory / name).is_file() for name in VOCABULARIES):  # without, transformers makes one of five tokens
        raise CheckpointError(
            f"{directory} has no {TOKENIZER_FILE}: copy that of the model that this one was made from into it"
        )
    from transformers import AutoTokenizer

    try:
        made = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        return Tokenizer.from_str(made.backend_tokenizer.to_str())
    except Exception as error:  # transformers, sentencepiece and tokenizers raise whatever they like
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{directory} has no {TOKENIZER_FILE}, and none can be made from its vocabulary ({reason}): copy that of "
            "the model that this one was made from into it"
        ) from error
