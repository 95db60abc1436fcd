"""Bodies of requests."""

DOCUMENTS = ["the bear", "what is panda", "熊猫吃竹子", "", "a bear eats the panda", "the bear"]
BODY = {"query": "panda", "documents": DOCUMENTS}
TEXTS = {"query": "panda", "texts": DOCUMENTS}
