"""How much there is to tokenise in a text, for every character and every way to normalise it."""

import sys
import threading
import time
import unicodedata

import pytest
from checkpoints import TINY, embedded_tokenizer, encoder_of, shape_of, tiny_tokenizer
from tokenizers import normalizers

from mlx_rerank.pairs.encoder import chunks, weight

CHARACTERS = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
NORMALIZERS = {
    "embedded": lambda: embedded_tokenizer().normalizer,
    "NFKC": normalizers.NFKC,
    "NFKD": normalizers.NFKD,
    "BERT": normalizers.BertNormalizer,
    "lower case": normalizers.Lowercase,
}


@pytest.mark.parametrize("name", NORMALIZERS)
def test_no_character_is_written_out_at_more_length_than_it_weighs(name: str) -> None:
    normalizer = NORMALIZERS[name]()
    lengths = {c: len(normalizer.normalize_str(c * 2)) / 2 for c in CHARACTERS}
    assert [c for c in CHARACTERS if lengths[c] > max(weight(c), 2.5 * len(c.encode()))] == []


def test_weight() -> None:
    assert weight("") == 0
    assert weight("bear") == weight("熊熊熊熊") == weight("ﬁ" * 4) == 4
    assert weight("a\ufdfa\ufdfb\ufdfa") == 1 + 18 + 8 + 18


def test_a_text_that_takes_long_holds_up_no_other_thread() -> None:
    encoder = encoder_of(tiny_tokenizer(), shape_of(TINY))
    turns, done = list[float](), threading.Event()

    def work() -> None:
        encoder.tokens("panda bear " * 100_000)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        turns.append(time.monotonic())
        time.sleep(0.001)
    thread.join()
    assert len(turns) > 10  # one where it does


def test_parts_of_the_work_are_bounded() -> None:
    assert list(chunks(["a"] * 1100)) == [["a"] * 512, ["a"] * 512, ["a"] * 76]
    assert [len(part) for part in chunks(["a" * 600_000] * 5)] == [2, 2, 1]
    assert [len(part) for part in chunks(["\ufdfa" * 60_000] * 3)] == [1, 1, 1]
    assert list(chunks([])) == []
