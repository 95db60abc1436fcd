"""What tokenizer_config.json and its kin say against tokenizer.json, done as transformers does it, or refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import ByteLevel

from mlx_rerank.checkpoints.config import entry, read_object
from mlx_rerank.errors import CheckpointError, UnsupportedModelError
from mlx_rerank.models.family import InTransformers
from mlx_rerank.pairs.frames import Frame

_OF_A_FRAME = ("bos_token", "cls_token", "sep_token", "eos_token")
_NAMED = (*_OF_A_FRAME, "unk_token", "pad_token", "mask_token")
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
    named = {**({} if config is None else config)}
    if "added_tokens_decoder" not in named:  # else newer versions saved it, and read no more than these settings
        named |= read_object(directory / "special_tokens_map.json") or {}
    for name in _OF_A_FRAME:
        token = _content(named.get(name))
        if token is not None and token != known.special_tokens.get(name, token):
            raise UnsupportedModelError(
                f"tokenizer_config.json or special_tokens_map.json has {name} {token!r}; mlx-rerank runs these models "
                f"with {known.special_tokens[name]!r} alone"
            )
    own = config is not None and _of_class(config, known.tokenizer, *known.other_tokenizers)
    if own:
        named = {**known.special_tokens, **{name: token for name, token in named.items() if token is not None}}
    registered = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in (*_added_tokens(named, directory), *_known_tokens(named, tokenizer)):
        if token.content not in registered:
            tokenizer.add_tokens([token])
            registered.add(token.content)
    if config is not None:  # else nothing is known of how its tokenizer was made
        tokenizer.encode_special_tokens = entry(config, "split_special_tokens", bool, False)
    if own:
        _configure(tokenizer, named, known.prefix_space)


def _of_class(config: Mapping[str, Any], *own: str) -> bool:
    """Tell whether a tokenizer_config.json is of the family's own classes of tokenizers, made of its settings alone."""
    return entry(config, "tokenizer_class", str, own[0]).removesuffix("Fast") in own


def _configure(tokenizer: Tokenizer, config: Mapping[str, Any], prefix_space: bool) -> None:
    """Change a tokenizer of the family's own class as its settings say."""
    if isinstance(tokenizer.pre_tokenizer, ByteLevel) and prefix_space:
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=entry(config, "add_prefix_space", bool, False))
    elif entry(config, "add_prefix_space", bool, prefix_space) != prefix_space:
        kind = "as after a space" if prefix_space else "as they are"
        raise UnsupportedModelError(
            f"tokenizer_config.json has add_prefix_space {not prefix_space}, and texts are read {kind} here: write "
            "tokenizer.json as it is meant, and leave this setting out"
        )
    unknown = _content(config.get("unk_token"))
    if isinstance(tokenizer.model, WordPiece) and unknown is not None:
        if tokenizer.token_to_id(unknown) is None:
            raise CheckpointError(f"the checkpoint's unk_token {unknown!r} is not in its vocabulary: correct it")
        tokenizer.model.unk_token = unknown  # pyright: ignore[reportAttributeAccessIssue]
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
    if frame.templated:
        _check_joint(tokenizer, frame, directory)
        return
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


def _check_joint(tokenizer: Tokenizer, frame: Frame, directory: Path) -> None:
    """Check that no token reaches across what is tokenised with a query and what is with a document."""
    texts = frame.around_query("a?"), frame.around_document("b")
    apart = [number for text in texts for number in tokenizer.encode(text, add_special_tokens=False).ids]
    if apart != tokenizer.encode("".join(texts), add_special_tokens=False).ids:
        raise UnsupportedModelError(
            f"{directory}: tokenizer.json joins {texts[0][-20:]!r} and {texts[1]!r} to tokens that reach across the "
            "two, and mlx-rerank tokenises them apart: use the tokenizer.json that the model's makers published"
        )


def _added_tokens(named: Mapping[str, Any], directory: Path) -> Iterator[AddedToken]:
    """Yield the tokens that transformers adds to those of tokenizer.json, in its order."""
    others = [value for name, value in named.items() if name.endswith("_token") and name not in _NAMED]
    more = [value for value in others if _content(value) is not None]  # add_bos_token is a boolean
    for name in ("additional_special_tokens", "extra_special_tokens"):
        listed = entry(named, name, list | dict, [])
        more += listed.values() if isinstance(listed, dict) else listed
    saved: dict[str, Any] = entry(named, "added_tokens_decoder", dict, {})
    if "added_tokens_decoder" not in named:  # older versions kept the ids by content
        ids = read_object(directory / "added_tokens.json") or {}
        contents = {_content(token) for token in (*more, *map(named.get, _NAMED))}
        saved = {str(number): {"content": content, "special": content in contents} for content, number in ids.items()}
    if not all(map(str.isdecimal, saved)):
        raise CheckpointError(f"the checkpoint's added_tokens_decoder has {list(saved)!r:.80}, where ids are expected")
    for number in sorted(saved, key=int):
        yield _token(saved[number])
    yield from (_token(token, special=True) for token in more)


def _known_tokens(named: Mapping[str, Any], tokenizer: Tokenizer) -> Iterator[AddedToken]:
    """Yield the special tokens with a name of transformers' own that are in the vocabulary; others have no row."""
    for saved in map(named.get, _NAMED):
        content = _content(saved)
        if content is not None and tokenizer.token_to_id(content) is not None:
            yield _token(saved, special=True)


def _token(saved: Any, **flags: bool) -> AddedToken:
    """Return a token that was saved, alone or with flags, some of which are given."""
    content = _content(saved)
    if content is None:
        raise CheckpointError(f"the checkpoint has the added token {saved!r:.80}, where a text is expected")
    own = saved if isinstance(saved, Mapping) else {}
    return AddedToken(content, **{flag: own[flag] for flag in _FLAGS if isinstance(own.get(flag), bool)} | flags)


def _content(token: Any) -> str | None:
    """Return the text of a token, which is saved alone or with flags; None where there is none."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None
