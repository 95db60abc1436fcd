"""A table of LanceDB, and searches in it."""

import zlib
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa

from mlx_rerank.integrations.lancedb import MLXReranker

QUERY = "What do giant pandas eat?"
TEXTS = [
    "Paris has been the capital of France since the Middle Ages.",
    "Eat, Panda, Eat is a giant of the record shops.",
    "The giant panda eats almost nothing but bamboo.",
    "A panda is a bear.",
    "Bamboo is a giant grass.",
    "In zoos pandas are given bamboo, and fruit as well.",
]
SIZE = 16


def embedded(text: str) -> list[float]:
    """Return a vector that counts a text's words, each at a place that its checksum says."""
    vector = np.zeros(SIZE, np.float32)
    np.add.at(vector, [zlib.crc32(word.strip("?.").lower().encode()) % SIZE for word in text.split()], 1)
    return vector.tolist()


SCHEMA = pa.schema(
    {
        "id": pa.int16(),
        "text": pa.string(),
        "vector": pa.list_(pa.float32(), SIZE),
        "heading": pa.dictionary(pa.int8(), pa.string()),
        "read": pa.timestamp("ms", "UTC"),
        "tags": pa.list_(pa.string()),
        "place": pa.struct({"page": pa.int32()}),
    }
)


def rows_of(texts: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "text": text,
            "vector": embedded(text or ""),
            "heading": f"h{i % 2}",
            "read": datetime(2020, 1, 1 + i, tzinfo=timezone.utc),
            "tags": [f"t{i}"],
            "place": {"page": i},
        }
        for i, text in enumerate(texts)
    ]


def search(table: Any, kind: str, query: str = QUERY) -> Any:
    """Start a search of one of the three kinds."""
    if kind == "hybrid":
        return table.search(query_type="hybrid").vector(embedded(query)).text(query)
    return table.search(query, query_type="fts") if kind == "fts" else table.search(embedded(query))


def reranked(table: Any, kind: str, reranker: MLXReranker, query: str = QUERY) -> Any:
    named = {"query_string": query} if kind == "vector" else {}
    return search(table, kind, query).rerank(reranker, **named)
