"""The benchmarks' pure parts: statistics, whose turn it is, arithmetic by shape, texts, and what is told of a run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import TINY, shape_of, tiny_tokenizer

from mlx_rerank.bench.checkpoints import SHAPES, hugging_face, seeded
from mlx_rerank.bench.contenders import OWN, REFERENCE, choose, roster
from mlx_rerank.bench.flops import by_name, ceiling, operations
from mlx_rerank.bench.measures import Spread, growth, plan_rounds, quantile, ratios
from mlx_rerank.bench.memory import choose_shapes
from mlx_rerank.bench.padding import count
from mlx_rerank.bench.race import Results
from mlx_rerank.bench.report import output_path, write
from mlx_rerank.bench.roofline import bounds
from mlx_rerank.bench.speed import max_delta, scaling_workloads, sizes_of, summarise
from mlx_rerank.bench.texts import Counter, Texts, Workload
from mlx_rerank.checkpoints.hub import EMBEDDED
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.errors import InputError, OutputError
from mlx_rerank.models.cost import Cost

SMALL = Cost(shape_of(TINY | {"hidden_size": 4, "num_attention_heads": 2, "intermediate_size": 8}))
PLENTY = [("what is the panda", f"the bear is {word} and the panda is {i}") for i in range(40) for word in ("a", "an")]


def test_a_spread_is_the_median_between_its_ends() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)


def test_quantiles_are_numpys() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 9.0, 3.0]
    for share in (0.0, 0.5, 0.95, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))
    assert quantile([7.0], 0.95) == 7


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == Spread(2.0, 1.0, 3.0)


def test_every_round_begins_with_the_next() -> None:
    assert plan_rounds(["a", "b", "c"], 4) == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]
    assert plan_rounds([], 3) == []


def test_growth_leaves_the_warm_up_out() -> None:
    values = [1.0] * 10 + [100.0] * 20 + [105.0] * 20 + [110.0] * 20
    assert growth(values, 10) == pytest.approx(0.1)
    assert growth([50.0, 100.0, 100.0], 1) == 0


def test_flops_of_a_layer_worked_out_by_hand() -> None:
    # D 4, F 8, two layers, 2 rows of 3 tokens: 6 tokens.
    found = {each.name: each for each in by_name(operations(SMALL, [(2, 3)], itemsize=2))}
    assert found["projections"].flops == 2 * (2 * 6 * 4 * 12 + 2 * 6 * 4 * 4)
    assert found["attention"].flops == 2 * (2 * (2 * 3 * 3 * 4) + 2 * (2 * 3 * 3 * 4))  # scores, then values
    assert found["feed-forward"].flops == 2 * (2 * 6 * 4 * 8 * 2)
    assert found["head"].flops == 2 * 2 * 4 * 4 + 2 * 2 * 4
    qkv, out = 6 * 4 + 4 * 12 + 6 * 12, 6 * 4 + 4 * 4 + 6 * 4
    assert found["projections"].bytes == 2 * 2 * (qkv + out)
    assert found["attention"].bytes == 2 * 2 * 4 * 6 * 4  # queries, keys, values and the result
    assert found["embeddings"].bytes == 2 * 3 * 6 * 4


def test_the_last_layer_may_carry_on_the_first_token_alone() -> None:
    full = operations(SMALL, [(2, 3)], itemsize=2)
    less = operations(SMALL, [(2, 3)], itemsize=2, first_token_only=True)
    found = {each.name: each.flops for each in by_name(less)}
    last = 2 * 6 * 4 * 8 + 2 * 2 * 4 * 4 + 2 * 2 * 4 * 4  # keys and values of 6 tokens; queries and output of 2
    assert found["projections"] == 2 * 6 * 4 * 12 + 2 * 6 * 4 * 4 + last
    assert found["attention"] == 4 * 2 * 3 * 3 * 4 + 4 * 2 * 1 * 3 * 4
    assert found["feed-forward"] == 2 * 6 * 4 * 8 * 2 + 2 * 2 * 4 * 8 * 2
    assert sum(each.bytes for each in less) < sum(each.bytes for each in full)
    # With one token a row nothing is saved.
    assert operations(SMALL, [(2, 1)], 2, first_token_only=True) == operations(SMALL, [(2, 1)], 2)


def test_the_ceiling_is_bound_by_arithmetic_or_by_memory() -> None:
    found = operations(SMALL, [(2, 3)], itemsize=2)
    flops, moved = sum(each.flops for each in found), sum(each.bytes for each in found)
    assert ceiling(found, 10.0, float("inf")) == pytest.approx(flops / 10)
    assert ceiling(found, float("inf"), 10.0) == pytest.approx(moved / 10)
    assert ceiling(found, 10.0, 10.0) > max(flops, moved) / 10  # no operation overlaps with another


def test_bounds_count_padding_apart() -> None:
    found = bounds(SMALL, np.array([10, 9, 3]), 64, 4, 1e9, 1e9)["all of every layer"]
    assert found["flops"] > found["flops_without_padding"]
    assert sum(part["flops"] for part in found["parts"]) == found["flops"]


def test_samples_come_in_a_seeded_order_and_never_twice() -> None:
    first, again = Texts.read(None, 1).natural(500), Texts.read(None, 1).natural(500)
    assert first == again
    assert len(set(first)) == 500
    assert set(Texts.read(None, 1).natural(132)) == set(Texts.read(None, 2).natural(132))
    assert Texts.read(None, 2).natural(500) != first


def test_texts_are_cut_to_their_length_in_tokens() -> None:
    counter = Counter(EMBEDDED["mini"])
    for tokens in (16, 32, 512):
        pairs = Texts.read(None).cut(counter.tokenizer, tokens, 5, special_tokens=4)
        assert counter.lengths(pairs).tolist() == [tokens] * 5
        assert len(set(pairs)) == 5
    with pytest.raises(InputError, match="0 of 1 pairs of 5000 tokens"):
        Texts("small", PLENTY[:1]).cut(tiny_tokenizer(), 5000, 1, special_tokens=4)


def test_a_set_in_the_beir_layout(tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "what is it"}\n')
    rows = [{"_id": "1", "title": "a title", "text": "and a text"}, {"_id": "2", "text": " "}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Texts.read(tmp_path).pairs == [("what is it", "a title and a text")]
    (tmp_path / "queries.jsonl").write_text("")
    with pytest.raises(InputError, match="holds no query"):
        Texts.read(tmp_path)
    with pytest.raises(InputError, match=r"missing.queries.jsonl cannot be read"):
        Texts.read(tmp_path / "missing")


def test_scaling_scores_the_same_pairs_in_calls_of_each_size(tiny: Path) -> None:
    found = scaling_workloads(Texts("own", PLENTY), Counter(tiny), [10, 40])
    assert [[len(call) for call in workload.calls] for workload in found] == [[10] * 4, [40]]
    assert [pair for call in found[0].calls for pair in call] == found[1].calls[0]
    assert found[0].tokens == found[1].tokens == int(Counter(tiny).lengths(found[1].calls[0]).sum())


def test_padding_of_each_way_of_batching() -> None:
    calls = [np.array([10] * 16 + [30] * 16 + [10] * 16)]
    found = count(calls, 4096)
    assert found["tokens"] == 800
    assert 800 <= found["padded_tokens"] < 900
    assert found["padded_tokens_sorted"] == 32 * 30 + 16 * 10
    assert found["padded_tokens_unsorted"] == 32 * 30 + 16 * 10
    assert count([np.array([30, 10] * 32)], 4096)["padded_tokens_unsorted"] == 64 * 30


def test_shapes_are_different_and_within_the_budget() -> None:
    shapes = choose_shapes(200, 256, 64)
    assert len(set(shapes)) == 200
    assert all(rows * length <= 256 and 16 <= length <= 64 for rows, length in shapes)
    with pytest.raises(InputError, match="raise --tokens"):
        choose_shapes(1000, 64, 64)


def test_everybody_reads_the_same_weights_in_the_same_dtype() -> None:
    found = roster("here", 64, "cpu", "graph")
    assert {(each.directory, each.max_length, each.dtype, each.device) for each in found} == {
        ("here", 64, "float32", "cpu")
    }
    on_gpu = {(each.library, each.dtype): each.device for each in roster("here", 64, "gpu", "graph")}
    assert on_gpu["mlx_rerank", "float16"] == "gpu"
    assert on_gpu["flag_embedding", "float16"] == on_gpu["sentence_transformers", "float32"] == "mps"
    assert on_gpu["reference", "float32"] == "cpu"
    assert [each.name for each in choose(found, [REFERENCE, OWN])] == [OWN, REFERENCE]
    with pytest.raises(InputError, match="no contender 'nobody'; there are mlx-rerank, FlagEmbedding"):
        choose(found, ["nobody"])


def test_a_summary_by_hand() -> None:
    pairs = [("q", str(i)) for i in range(4)]
    workload = Workload("two calls", [pairs[:2], pairs[2:]], tokens=40, padded=44)
    results = Results()
    for number, (own, other) in enumerate((([1.0, 1.0], [3.0, 1.0]), ([0.5, 0.5], [2.0, 3.0])), 1):
        for name, seconds in ((OWN, own), ("other", other)):
            results.rounds.append({"round": number, "contender": name, "workload": "two calls", "seconds": seconds})
    results.logits = {REFERENCE: {"two calls": [1.0, 2.0]}, "other": {"two calls": [1.5, 1.9]}}
    found = summarise(results, workload, "other")
    assert found
    assert found["pairs_per_second"] == {"median": pytest.approx(0.9), "low": 0.8, "high": 1.0}
    assert found["tokens_per_second"]["high"] == 10
    assert found["p50_seconds"] == 2.5
    assert found["times_mlx_rerank"] == {"median": 3.5, "low": 2.0, "high": 5.0}
    assert found["max_delta_logit"] == 0.5
    assert summarise(results, workload, "nobody") is None
    assert max_delta(results, "two calls", REFERENCE) is None


def test_lists_of_sizes() -> None:
    assert sizes_of("10, 30,100") == [10, 30, 100]
    assert sizes_of("0") == sizes_of("") == []
    with pytest.raises(InputError, match="'ten' must be whole numbers"):
        sizes_of("ten")


def test_checkpoints_for_everybody(tiny: Path, tmp_path: Path) -> None:
    from mlx_rerank import Reranker

    assert hugging_face(tiny, tmp_path) == tiny
    packed = convert(tiny, tmp_path / "packed", layers=Quantization(64, 8, "affine"),
                     embeddings=Quantization(32, 4, "affine"))  # fmt: skip
    written = hugging_face(packed, tmp_path)
    pair = ("what is the panda", "the bear")
    copy, own, other = (
        Reranker(model, device="cpu", dtype="float32").score(*pair, raw_scores=True)
        for model in (written, packed, tiny)
    )
    assert copy == pytest.approx(own)
    assert other != pytest.approx(own)


def test_seeded_weights_of_a_shape(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_rerank import Reranker

    shape = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    monkeypatch.setitem(SHAPES, "small", shape)
    reranker = Reranker(seeded("small", tmp_path, tiny))
    assert (reranker.config.vocab_size, reranker.config.hidden_size) == (tiny_tokenizer().get_vocab_size(), 16)
    assert reranker.max_length == 512
    assert len(set(reranker.logits([("a", "b"), ("a", "panda")]).logits.tolist())) == 2
    with pytest.raises(InputError, match="'huge' is not one of base, large"):
        seeded("huge", tmp_path)


def test_a_report_is_written_whole_and_its_place_is_checked_first(tmp_path: Path) -> None:
    path = output_path("speed", tmp_path / "out.json")
    write(path, {"text": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": "é"}
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]
    with pytest.raises(OutputError, match="is not a directory"):
        output_path("speed", tmp_path / "missing" / "out.json")


def test_the_command_that_is_told_names_no_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mlx_rerank.cli.benching import _about

    places = [tmp_path / "model", tmp_path / "data", tmp_path / "out.json"]
    words = ["bench", "speed", "--model", str(places[0]), f"--data={places[1]}", "--output", str(places[2])]
    monkeypatch.setattr(sys, "argv", ["anywhere", *words])
    places[0].mkdir()
    facts = _about("speed", str(places[0]), *places[1:])
    assert facts["command"] == "mlx-rerank bench speed --model model --data=data --output out.json"
    assert facts["machine"]["cores"] >= 1
    assert "mlx" in facts["versions"]
