"""Others' reranker interfaces over this package's, for programs that change one import line."""
