"""The README.md of a converted directory, as the Hugging Face hub shows it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_rerank.checkpoints.config import conversion_record
from mlx_rerank.checkpoints.files import own
from mlx_rerank.checkpoints.reading import read_text
from mlx_rerank.errors import CheckpointError, printable

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LONGEST_WORD = 100  # characters of a licence or a language
_BODY = """
# {name}

{source} for [mlx-rerank](https://pypi.org/project/mlx-rerank): a cross-encoder that tells which of a list of documents
answer a query, on Apple's MLX.

| | |
|---|---|
| converted from | {source}{revision} |
| with | mlx-rerank {version} |
| weights | {dtype}{packing} |{vocabulary}{training}
| longest pair | {max_length} tokens |

```python
from mlx_rerank import Reranker

reranker = Reranker({quoted})
for result in reranker.rank("what is a panda?", ["hi", "The giant panda is a bear native to China."]):
    print(result.score, result.document)
```
"""


def model_card(config: Mapping[str, Any], max_length: int, source_card: Path, *, name: str) -> str:
    """Return the text of a model card.

    Args:
        config: the converted directory's config.json.
        max_length: most tokens of a pair.
        source_card: the README.md of the source, whose licence and languages are taken over; it need not exist.
        name: what the model is called.

    Raises:
        CheckpointError: the record of what was done is damaged.
    """
    from huggingface_hub import ModelCardData  # here, because scoring does without it

    known, done = _known(source_card), conversion_record(config)
    try:
        data = ModelCardData(
            license=known.get("license"),
            language=None if "vocabulary" in done else known.get("language"),  # a trimmed vocabulary reads fewer
            library_name="mlx",
            pipeline_tag="text-ranking",
            tags=["mlx", "mlx-rerank", "reranker", "cross-encoder"],
            base_model=done["source"] if _HUB_ID.fullmatch(done["source"]) else None,
        )
        body = _BODY.format(
            name=_plain(name),
            quoted=json.dumps(printable(name), ensure_ascii=False),
            source=_plain(done["source"]),
            revision=f" at {_plain(done['revision'])}" if done["revision"] else "",
            version=_plain(done["version"]),
            dtype=_plain(config["dtype"]),
            packing=f"; {_plain(done['packing'])}" if "packing" in done else "",
            vocabulary=f"\n| vocabulary | {describe_trimming(done['vocabulary'])} |" if "vocabulary" in done else "",
            training=f"\n| trained | {_plain(describe_training(done['training']))} |" if "training" in done else "",
            max_length=max_length,
        )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"config.json's record of a conversion is damaged ({error!r}): convert again") from error
    return f"---\n{data.to_yaml()}\n---\n{body}"


def _known(card: Path) -> dict[str, Any]:
    """Return the licence and the languages that a model card states, where they are words."""
    from huggingface_hub import ModelCard

    own(card, card.parent)
    try:
        stated = ModelCard(read_text(card)).data.to_dict()
    except Exception:  # there is none, or its YAML is broken in one of many ways: then nothing is known
        return {}
    license_, language = stated.get("license"), stated.get("language")
    languages = language if isinstance(language, list) else [language]
    known = {"license": license_} if _is_word(license_) else {}
    return known | ({"language": language} if all(map(_is_word, languages)) else {})


def _is_word(value: object) -> bool:
    """Tell whether a value of a stranger's model card may be taken over."""
    return isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_WORD


def _plain(words: object) -> str:
    """Return words that may be a stranger's on one line, with nothing that Markdown or HTML would act on."""
    return re.sub(r"[\\`*<>|#\[\]]", r"\\\g<0>", printable(words))


def describe_trimming(record: Mapping[str, Any]) -> str:
    """Say in words what was kept of a vocabulary, from the conversion record."""
    saved = f"{record['bytes'] / 1e6:.1f} MB instead of {record['source_bytes'] / 1e6:.1f} MB"
    words = (
        f"{record['pieces']:,} of {record['source_pieces']:,} pieces, those of {record['texts']:,} texts; "
        f"word embeddings of {saved}"
    )
    if record["held_out_share"] is None:
        return words
    share, count = record["held_out_share"], record["held_out_texts"]
    return f"{words}; with the pieces of the other texts alone, {share:.1%} of {count:,} held-out texts keep all tokens"


def describe_training(record: Mapping[str, Any]) -> str:
    """Say in words how a model was trained, from the record of the run."""
    options, history = record["options"], record["history"]
    rank, losses = options["lora_rank"], options["losses"]
    if rank:
        trained = f"low-rank updates of rank {rank}, merged"
    else:
        trained = "all weights" if options["train_embeddings"] else "all weights but the word embeddings"
    words = [
        f"on {record['queries']:,} queries, {options['epochs']} times each",
        trained,
        "losses " + ", ".join(f"{weight:g} x {name}" for name, weight in losses.items()),
    ]
    seen = [row["dev_ndcg"] for row in history if "dev_ndcg" in row]
    if seen:
        words.append(f"nDCG@10 of the dev set {seen[0]:.3f} before and {seen[-1]:.3f} after")
    return "; ".join(words)


def renamed(card: str, name: str) -> str:
    """Return a model card with another name in its headline and first example, and nowhere else."""
    header, mark, body = card.partition("\n---\n") if card.startswith("---\n") else ("", "", card)
    text, fence, code = body.partition("```")  # a comment in code, or in the header, looks like a headline
    text = re.sub(r"^# .*", lambda _: f"# {name}", text, count=1, flags=re.MULTILINE)
    body = re.sub(r'Reranker\(".*?"\)', lambda _: f'Reranker("{name}")', text + fence + code, count=1)
    return header + mark + body
