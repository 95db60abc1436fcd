"""Pairs for comparison where a user gives none."""

from mlx_rerank.pairs.samples import pairs_from_corpus, sample_pairs


def test_the_packages_own() -> None:
    pairs = sample_pairs()
    queries = list(dict.fromkeys(query for query, _ in pairs))
    assert len(pairs) == len(set(pairs)) == 132
    assert len(queries) == 6
    assert [query for query, _ in pairs] == [query for query in queries for _ in range(22)]
    assert any(not document for _, document in pairs)


def test_a_corpus_gives_queries_of_a_few_words_and_documents_from_all_of_it() -> None:
    texts = [f"{i} " + "word " * 20 for i in range(100)]
    pairs = pairs_from_corpus(texts)
    documents = [document for _, document in pairs[: len(pairs) // 4]]
    assert [texts.index(document) for document in documents] == list(range(0, 100, 7))  # 15 of at most 16
    expected = [" ".join(text.split()[:12]) for text in documents[:4]]
    assert pairs == [(query, document) for query in expected for document in documents]


def test_small_corpora() -> None:
    assert pairs_from_corpus([]) == pairs_from_corpus(["", " \n"]) == []
    assert pairs_from_corpus(["one text", " ", ""]) == [("one text", "one text")]
    assert len(pairs_from_corpus(list(map(str, range(16))))) == 64
    assert len(pairs_from_corpus(list(map(str, range(17))))) == 4 * 9
