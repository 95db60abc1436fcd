"""Logits that BAAI published for its rerankers.

Source: the model cards of BAAI/bge-reranker-base, -large and -v2-m3, and the README of FlagEmbedding. Most
were computed in float16.
"""

_PANDA = "what is panda?"
_GIANT = (
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species "
    "endemic to China."
)
_FRANCE, _CHINA = "What is the capital of France?", "What is the population of China?"
_PARIS, _BILLION = "Paris is the capital of France.", "The population of China is over 1.4 billion people."

PUBLISHED: dict[str, dict[tuple[str, str], float]] = {
    "BAAI/bge-reranker-base": {
        ("query", "passage"): 0.4474879801273346,
        (_PANDA, "hi"): -8.15439224243164,
        (_PANDA, _GIANT): 6.182111740112305,
        (_FRANCE, _PARIS): 6.15733337,
        (_FRANCE, "Berlin is the capital of Germany."): -3.65939403,
    },
    "BAAI/bge-reranker-large": {
        ("query", "passage"): -1.5263671875,
        (_PANDA, "hi"): -5.60546875,
        (_PANDA, _GIANT): 5.76171875,
        (_FRANCE, _PARIS): 7.984375,
        (_FRANCE, _BILLION): -6.84375,
        (_CHINA, _PARIS): -7.15234375,
        (_CHINA, _BILLION): 5.44921875,
    },
    "BAAI/bge-reranker-v2-m3": {
        ("query", "passage"): -5.65234375,
        (_PANDA, "hi"): -8.1875,
        (_PANDA, _GIANT): 5.26171875,
    },
}
