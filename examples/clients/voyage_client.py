"""Rank passages with Voyage AI's client: pip install voyageai."""

import os

import voyageai

URL = os.environ.get("MLX_RERANK_URL", "http://127.0.0.1:8787")
QUERY = "What do giant pandas eat?"
PASSAGES = [
    "Paris has been the capital of France since the Middle Ages.",
    "The giant panda eats almost nothing but bamboo.",
    "La batería envejece más deprisa cuando hace calor.",
]

client = voyageai.Client(api_key="none", base_url=f"{URL}/voyage/v1")
ranking = client.rerank(QUERY, PASSAGES, model="mini", top_k=2)
for result in ranking.results:
    print(f"{result.relevance_score:.3f}  {result.document}")
