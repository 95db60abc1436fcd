"""FlagReranker: the interface of FlagEmbedding's, and where it is better. Parity of scores is in tests/parity."""

import ast
import importlib.util
import inspect
from pathlib import Path

import bounds
import numpy as np
import pytest

from mlx_rerank import FlagReranker, Reranker
from mlx_rerank.errors import InputError
from mlx_rerank.models.mapping import SIGMOID
from mlx_rerank.pairs.limits import Limits
from mlx_rerank.scoring.results import PairLogits

pytestmark = pytest.mark.numeric

PAIRS = [["panda", "the bear"], ["what is panda", "a bear"], ["", ""]]


@pytest.fixture(scope="module")
def flag(tiny: Path) -> FlagReranker:
    return FlagReranker(str(tiny), use_fp16=True, max_length=64)


def test_the_signature_is_flagembeddings() -> None:
    spec = importlib.util.find_spec("FlagEmbedding")  # read, not imported, which takes 2 s
    assert spec
    assert spec.origin
    source = (Path(spec.origin).parent / "inference/reranker/encoder_only/base.py").read_text()
    (theirs,) = (
        each
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "BaseReranker"
        for each in node.body
        if isinstance(each, ast.FunctionDef) and each.name == "__init__"
    )
    assert theirs.args.kwarg
    assert not theirs.args.kwonlyargs + theirs.args.posonlyargs
    names = [each.arg for each in (*theirs.args.args, theirs.args.kwarg)]
    defaults = [ast.literal_eval(each) for each in theirs.args.defaults]
    required = [inspect.Parameter.empty] * (len(theirs.args.args) - len(defaults))
    ours = dict(inspect.signature(FlagReranker.__init__).parameters)
    assert ours.pop("cpu_threads").kind is inspect.Parameter.KEYWORD_ONLY  # ours alone
    assert list(ours) == names
    assert [each.default for each in ours.values()] == [*required, *defaults, inspect.Parameter.empty]


def test_a_list_for_many_and_a_float_for_one(flag: FlagReranker) -> None:
    many = flag.compute_score(PAIRS)
    assert isinstance(many, list)
    assert [type(score) for score in many] == [float] * 3
    for one in (PAIRS[0], tuple(PAIRS[0])):
        score = flag.compute_score(one)
        assert type(score) is float
        assert score == pytest.approx(many[0], abs=1e-5)
    assert flag.compute_score([PAIRS[0]]) == [pytest.approx(many[0], abs=1e-5)]
    assert flag.compute_score([]) == []


def test_logits_unless_normalized(tiny: Path, flag: FlagReranker) -> None:
    reranker = Reranker(tiny)
    logits, scores = reranker.score(PAIRS, raw_scores=True), reranker.score(PAIRS)
    np.testing.assert_allclose(flag.compute_score(PAIRS), logits, rtol=0, atol=bounds.COMPANY)
    np.testing.assert_allclose(flag.compute_score(PAIRS, normalize=True), scores, rtol=0, atol=bounds.SCORE)
    normalizing = FlagReranker(str(tiny), normalize=True, max_length=64)
    np.testing.assert_allclose(normalizing.compute_score(PAIRS), scores, rtol=0, atol=bounds.SCORE)
    np.testing.assert_allclose(normalizing.compute_score(PAIRS, normalize=False), logits, rtol=0, atol=bounds.COMPANY)


def test_half_precision_is_for_the_gpu(tiny: Path) -> None:
    import mlx.core as mx

    has_gpu = mx.default_device().type == mx.gpu
    assert FlagReranker(str(tiny), use_fp16=True).reranker.dtype == ("float16" if has_gpu else "float32")
    assert FlagReranker(str(tiny)).reranker.dtype == "float32"
    on_cpu = FlagReranker(str(tiny), use_fp16=True, devices="cpu")
    assert (on_cpu.reranker.dtype, on_cpu.use_fp16) == ("float32", False)


@pytest.mark.filterwarnings("ignore:mlx-rerank. there is no device")
@pytest.mark.parametrize("devices", [None, "mps", "cuda:0", 0, ["cpu"], [], "cpu"])
def test_device_names_of_flagembedding_work(tiny: Path, devices: object) -> None:
    FlagReranker(str(tiny), devices=devices)  # pyright: ignore[reportArgumentType]


def test_options_of_a_call_outweigh_the_constructors(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = FlagReranker(str(tiny), max_length=40, query_max_length=7, batch_size=5)
    logits, seen = flag.reranker.logits, []
    monkeypatch.setattr(
        flag.reranker, "logits", lambda pairs, **options: (seen.append(options), logits(pairs, **options))[1]
    )
    flag.compute_score(PAIRS)
    flag.compute_score(PAIRS, batch_size=2, query_max_length=6, max_length=30)
    assert seen == [
        {"limits": Limits(40, 7), "batch_size": 5},
        {"limits": Limits(30, 6), "batch_size": 2},
    ]


@pytest.mark.filterwarnings("ignore:mlx-rerank. there is no device")
def test_only_one_device_is_used(tiny: Path) -> None:
    with pytest.warns(UserWarning, match="only one is used"):
        FlagReranker(str(tiny), devices=["cuda:0", "cuda:1"])


def test_unknown_keywords_are_named(tiny: Path) -> None:
    with pytest.warns(UserWarning, match="FlagReranker does not use passage_max_length") as caught:
        reranker = FlagReranker(str(tiny), passage_max_length=512, max_length=64)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="compute_score does not use num_workers, verbose"):
        reranker.compute_score(PAIRS, verbose=True, num_workers=2)


def test_the_default_length_is_clamped_too(tiny: Path) -> None:
    reranker = FlagReranker(str(tiny))
    with pytest.warns(UserWarning, match="max_length 512 exceeds this model's 64 tokens"):
        reranker.compute_score(PAIRS)


def test_lengths_beyond_the_model_are_clamped_with_a_warning(flag: FlagReranker) -> None:
    with pytest.warns(UserWarning, match="max_length 1024 exceeds this model's 64 tokens") as caught:
        scores = flag.compute_score(PAIRS, max_length=1024)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(scores, flag.compute_score(PAIRS), rtol=0, atol=bounds.COMPANY)


def test_instructions(tiny: Path, flag: FlagReranker) -> None:
    instructed = FlagReranker(
        str(tiny),
        query_instruction_for_rerank="what is",
        query_instruction_format="{}\\n{}",
        passage_instruction_for_rerank="the",
        passage_instruction_format="{} {}",
        max_length=64,
    )
    expected = flag.compute_score(["what is\npanda", "the bear"])
    assert instructed.compute_score(["panda", "bear"]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("wrong", ["ab", ["only one text"], [["a", None]], [5], None, {"a", "b"}])
def test_what_is_not_pairs(flag: FlagReranker, wrong: object) -> None:
    with pytest.raises(InputError, match="pair"):
        flag.compute_score(wrong)  # pyright: ignore[reportArgumentType]


def test_fields_after_the_first_two_are_ignored_with_a_warning(flag: FlagReranker) -> None:
    longer: list = [["panda", "the bear", 1]]
    with pytest.warns(UserWarning, match="first two texts"):
        found = flag.compute_score(longer)
    expected = flag.compute_score([["panda", "the bear"]])
    np.testing.assert_allclose(found, expected, rtol=0, atol=bounds.COMPANY)


def test_high_scores_do_not_all_become_one(flag: FlagReranker, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.array([18, 20, -120], dtype=np.float32)
    found = PairLogits(logits, np.zeros(3, np.int64), np.zeros((3, 2), np.int64), SIGMOID)
    monkeypatch.setattr(flag.reranker, "logits", lambda *_, **__: found)
    scores = flag.compute_score(PAIRS, normalize=True)
    assert isinstance(scores, list)
    high, higher, low = scores
    assert high < higher < 1
    assert low > 0


@pytest.mark.parametrize("template", ["{}{}{}", "{a}{}", None, "{"])
def test_templates_are_checked_at_once(tiny: Path, template: str) -> None:
    with pytest.raises(InputError, match="query_instruction_format"):
        FlagReranker(str(tiny), query_instruction_format=template)
    with pytest.raises(InputError, match="passage_instruction_format"):
        FlagReranker(str(tiny), passage_instruction_format=template)
