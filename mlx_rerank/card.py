"""The README.md of a converted directory, as the Hugging Face hub shows it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_rerank.config import CONVERSION_KEY, ModelConfig

_BODY = """
# {name}

{source} for [mlx-rerank](https://pypi.org/project/mlx-rerank): a cross-encoder that tells which of a list of documents
answer a query, on Apple's MLX.

| | |
|---|---|
| converted from | {source}{revision} |
| with | mlx-rerank {version} |
| weights | {dtype}{packing} |
| longest pair | {max_length} tokens |

```python
from mlx_rerank import Reranker

reranker = Reranker("{name}")
for result in reranker.rank("what is a panda?", ["hi", "The giant panda is a bear native to China."]):
    print(result.score, result.document)
```
"""


def model_card(config: Mapping[str, Any], source_card: Path, *, name: str) -> str:
    """Return the text of a model card.

    Args:
        config: the converted directory's config.json.
        source_card: the README.md of the source, whose licence and languages are taken over; it need not exist.
        name: what the model is called.
    """
    from huggingface_hub import ModelCard, ModelCardData  # here, because scoring does without it

    try:
        known = ModelCard.load(source_card).data.to_dict()
    except Exception:  # there is none, or its YAML is broken in one of many ways: then nothing is known
        known = {}
    done = config[CONVERSION_KEY]
    data = ModelCardData(
        license=known.get("license"),
        language=known.get("language"),
        library_name="mlx",
        pipeline_tag="text-ranking",
        tags=["mlx", "mlx-rerank", "reranker", "cross-encoder"],
        base_model=done["source"] if "/" in done["source"] else None,
    )
    body = _BODY.format(
        name=name,
        source=done["source"],
        revision=f" at {done['revision']}" if done["revision"] else "",
        version=done["version"],
        dtype=config["dtype"],
        packing=f"; {done['packing']}" if "packing" in done else "",
        max_length=ModelConfig.from_dict(config).max_length,
    )
    return f"---\n{data.to_yaml()}\n---\n{body}"


def renamed(card: str, name: str) -> str:
    """Return a model card under another name: in its headline and its first example, and nowhere else."""
    header, mark, body = card.partition("\n---\n") if card.startswith("---\n") else ("", "", card)
    text, fence, code = body.partition("```")  # a comment in code, or in the header, looks like a headline
    text = re.sub(r"^# .*", lambda _: f"# {name}", text, count=1, flags=re.MULTILINE)
    body = re.sub(r'Reranker\(".*?"\)', lambda _: f'Reranker("{name}")', text + fence + code, count=1)
    return header + mark + body
