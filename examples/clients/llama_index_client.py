"""Rank LlamaIndex nodes: pip install llama-index-postprocessor-cohere-rerank."""

import os

from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank

URL = os.environ.get("MLX_RERANK_URL", "http://127.0.0.1:8787")
QUERY = "What do giant pandas eat?"
PASSAGES = [
    "Paris has been the capital of France since the Middle Ages.",
    "The giant panda eats almost nothing but bamboo.",
    "La batería envejece más deprisa cuando hace calor.",
]

# In a query engine: index.as_query_engine(node_postprocessors=[ranker])
ranker = CohereRerank(model="mini", base_url=URL, api_key="none", top_n=2)
nodes = [NodeWithScore(node=TextNode(text=passage)) for passage in PASSAGES]
for found in ranker.postprocess_nodes(nodes, query_str=QUERY):
    print(f"{found.score:.3f}  {found.node.get_content()}")
