"""The rerank server: HTTP in, scores out; a shell around the reranker."""
