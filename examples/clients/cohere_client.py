"""Rank passages with Cohere's client: pip install cohere."""

import os

import cohere

URL = os.environ.get("MLX_RERANK_URL", "http://127.0.0.1:8787")
QUERY = "What do giant pandas eat?"
PASSAGES = [
    "Paris has been the capital of France since the Middle Ages.",
    "The giant panda eats almost nothing but bamboo.",
    "La batería envejece más deprisa cuando hace calor.",
]

client = cohere.ClientV2(api_key="none", base_url=URL)
ranking = client.rerank(model="mini", query=QUERY, documents=PASSAGES, top_n=2)
for result in ranking.results:
    print(f"{result.relevance_score:.3f}  {PASSAGES[result.index]}")
