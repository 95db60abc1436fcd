#!/bin/sh
# Rank passages with curl.
set -eu

curl --fail-with-body --silent --show-error "${MLX_RERANK_URL:-http://127.0.0.1:8787}/v1/rerank" \
    --header "content-type: application/json" \
    --data '{
        "query": "What do giant pandas eat?",
        "documents": [
            "Paris has been the capital of France since the Middle Ages.",
            "The giant panda eats almost nothing but bamboo.",
            "La batería envejece más deprisa cuando hace calor."
        ],
        "top_n": 2,
        "return_documents": true
    }'
