"""What tokenizer_config.json and its kin say against tokenizer.json, done as transformers does it, or refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.normalizers import BertNormalizer

from mlx_rerank.checkpoints.config import entry, read_object
from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.family import InTransformers
from mlx_rerank.pairs.frames import Frame

_OF_A_FRAME = ("bos_token", "cls_token", "sep_token", "eos_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def apply_settings(tokenizer: Tokenizer, directory: Path, known: InTransformers) -> None:
    """Change a tokenizer as the files beside its tokenizer.json say.

    Args:
        tokenizer: of tokenizer.json.
        directory: of the checkpoint.
        known: what the family's tokenizer is in transformers.

    Raises:
        CheckpointError: a file is damaged.
        UnsupportedModelError: a setting would make other rows than the family's.

    Source: transformers 5.23 `TokenizersBackend.__init__` and the families' tokenizers;
    tests/parity/test_saved_settings.py.
    """
    config = read_object(directory / "tokenizer_config.json")
    named = (read_object(directory / "special_tokens_map.json") or {}) | (config or {})
    for name in _OF_A_FRAME:
        token = _content(named.get(name))
        if token is not None and token != known.special_tokens.get(name, token):
            raise UnsupportedModelError(
                f"tokenizer_config.json or special_tokens_map.json has {name} {token!r}; mlx-rerank runs these models "
                f"with {known.special_tokens[name]!r} alone"
            )
    registered = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in _added_tokens(named, directory):
        if token.content not in registered:
            tokenizer.add_tokens([token])
            registered.add(token.content)
    if config is not None:  # else nothing is known of how its tokenizer was made
        _configure(tokenizer, config, known.tokenizer)


def _configure(tokenizer: Tokenizer, config: Mapping[str, Any], own: str) -> None:
    """Change a tokenizer as its tokenizer_config.json says; a class of its own is made of these settings alone."""
    tokenizer.encode_special_tokens = entry(config, "split_special_tokens", bool, False)
    if entry(config, "tokenizer_class", str, own).removesuffix("Fast") != own:
        return
    if not entry(config, "add_prefix_space", bool, True):
        raise UnsupportedModelError(
            "tokenizer_config.json has add_prefix_space False, and texts are read as after a space here: write "
            "tokenizer.json as it is meant, and leave this setting out"
        )
    if isinstance(tokenizer.normalizer, BertNormalizer):
        tokenizer.normalizer = BertNormalizer(
            clean_text=True,
            handle_chinese_chars=entry(config, "tokenize_chinese_chars", bool, True),
            strip_accents=entry(config, "strip_accents", bool),
            lowercase=entry(config, "do_lower_case", bool, True),
        )


def check_template(tokenizer: Tokenizer, frame: Frame, directory: Path) -> None:
    """Check that a tokenizer joins two texts as the family's frame does.

    Args:
        tokenizer: that neither truncates nor pads.
        frame: of the family.
        directory: of the checkpoint.

    Raises:
        UnsupportedModelError: it joins them otherwise, or does not tell the second from the first as it should.
    """
    if tokenizer.post_processor is None:  # then transformers puts the family's own there
        return
    query, document = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("a", "b"))
    joined = tokenizer.encode("a", "b")
    (row,) = frame.rows(query, [document])
    second = joined.type_ids.index(1) if 1 in joined.type_ids else 0
    if joined.ids != row.ids.tolist() or (frame.segments and second != row.second):
        raise UnsupportedModelError(
            f"{directory}: tokenizer.json joins the texts 'a' and 'b' to the ids {joined.ids} with the segments "
            f"{joined.type_ids}; mlx-rerank runs these models with {row.ids.tolist()}, the document being the "
            f"{'second segment' if frame.segments else 'same segment'}"
        )
    names = entry(read_object(directory / "tokenizer_config.json") or {}, "model_input_names", list)
    if frame.segments and names is not None and "token_type_ids" not in names:
        raise UnsupportedModelError(
            f"tokenizer_config.json has model_input_names {names}, without token_type_ids; mlx-rerank runs these "
            "models with the document as second segment: add the name if that is right"
        )


def _added_tokens(named: Mapping[str, Any], directory: Path) -> Iterator[AddedToken]:
    """Yield the tokens that transformers adds to those of tokenizer.json, in its order."""
    saved: dict[str, Any] = entry(named, "added_tokens_decoder", dict, {})
    if not saved:  # older versions kept the ids by content
        ids = read_object(directory / "added_tokens.json") or {}
        saved = {str(number): content for content, number in ids.items()}
    if not all(map(str.isdecimal, saved)):
        raise CheckpointError(f"the checkpoint's added_tokens_decoder has {list(saved)!r:.80}, where ids are expected")
    for number in sorted(saved, key=int):
        flags = saved[number] if isinstance(saved[number], Mapping) else {}
        yield _token(saved[number], {flag: flags[flag] for flag in _FLAGS if isinstance(flags.get(flag), bool)})
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = entry(named, key, list | dict, [])
        yield from (_token(token, {"special": True}) for token in (more.values() if isinstance(more, dict) else more))


def _token(saved: Any, flags: Mapping[str, bool]) -> AddedToken:
    """Return a token that was saved."""
    content = _content(saved)
    if content is None:
        raise CheckpointError(f"the checkpoint has the added token {saved!r:.80}, where a text is expected")
    return AddedToken(content, **flags)


def _content(token: Any) -> str | None:
    """Return the text of a token, which is saved alone or with flags; None where there is none."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None
