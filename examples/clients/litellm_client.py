"""Rank passages with LiteLLM: pip install litellm."""

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it fetches a price list when imported
import litellm

URL = os.environ.get("MLX_RERANK_URL", "http://127.0.0.1:8787")
QUERY = "What do giant pandas eat?"
PASSAGES = [
    "Paris has been the capital of France since the Middle Ages.",
    "The giant panda eats almost nothing but bamboo.",
    "La batería envejece más deprisa cuando hace calor.",
]

ranking = litellm.rerank(
    model="mini", custom_llm_provider="hosted_vllm", api_base=URL, query=QUERY, documents=PASSAGES, top_n=2
)
for result in ranking.results:
    print(f"{result['relevance_score']:.3f}  {result['document']['text']}")
