"""Words of a text: where they begin and end, in every script."""

import pytest
from explanations import explained, shown

from mlx_rerank import Reranker


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one", ["one"]),
        (" \t one\u00a0two\u3000 three\n", ["one", "two", "three"]),
        ("panda,\nbear -- 3.5%", ["panda,", "bear", "--", "3.5%"]),
        ("他说「你好」，然后", ["他", "说", "「你", "好」，", "然后"]),
        ("パンダはbambooを食べる。", ["パン", "ダ", "は", "bamboo", "を", "食べ", "る。"]),
        ("แพนด้ากินไผ่", ["แพ", "น", "ด้า", "กิน", "ไผ่"]),
        ("ﷺ ㎏ ½cup", ["ﷺ", "㎏", "½cup"]),
        ("A㎏ b", ["A㎏", "b"]),  # whose second character has half a token
        ("👩\u200d👩\u200d👧 🇨🇳!", ["👩\u200d👩\u200d👧", "🇨🇳!"]),
        ("e\u0301te\u0301 que", ["e\u0301te\u0301", "que"]),
        ("a<s> </s> b", ["a<s>", "</s>", "b"]),
        ("x" * 900, ["x" * 900]),
        ("", []),
        (" \n\t", []),
        ("\x07", []),
        ("a \x07 b", ["a", "b"]),
    ],
)
def test_words(small: Reranker, text: str, expected: list[str]) -> None:
    assert shown(text, explained(small, "q", text).document_highlights) == expected
    found = explained(small, text, "")
    assert found.truncated_tokens or shown(text, found.query_highlights) == expected
    assert found.document_highlights == ()
