"""CrossEncoder: the interface of sentence-transformers', without torch. Parity of scores is in tests/parity."""

import ast
import importlib.util
import inspect
import logging
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import bounds
import numpy as np
import pytest

from mlx_rerank import CrossEncoder
from mlx_rerank.errors import CheckpointNotFoundError, InputError, MissingDependencyError
from mlx_rerank.models.mapping import sigmoid
from mlx_rerank.pairs.limits import Limits

pytestmark = pytest.mark.numeric
PAIRS = [["panda", "the bear"], ["what is panda", "a bear"], ["", ""]]
DOCUMENTS = ["the bear", "what is panda", "", "the bear"]


def theirs(name: str) -> ast.FunctionDef:
    """Return the source of a method of sentence-transformers' CrossEncoder, read and not imported, which takes 5 s."""
    spec = importlib.util.find_spec("sentence_transformers")
    assert spec
    assert spec.origin
    source = (Path(spec.origin).parent / "cross_encoder/model.py").read_text()
    (kind,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "CrossEncoder"
    )
    return [each for each in kind.body if isinstance(each, ast.FunctionDef) and each.name == name][-1]  # no overload


@pytest.mark.parametrize("name", ["__init__", "predict", "rank"])
def test_the_signatures_are_sentence_transformers(name: str) -> None:
    arguments = theirs(name).args
    ours = dict(inspect.signature(getattr(CrossEncoder, name)).parameters)
    names = [each.arg for each in (*arguments.args, *arguments.kwonlyargs, arguments.kwarg) if each]
    if name == "__init__":  # whose version 6 takes four more by position, as version 5 did
        legacy = ["num_labels", "max_length", "activation_fn", "device"]
        names = [*names[:2], *legacy, *(each for each in names[2:] if each not in legacy)]
        assert [ours[each].kind for each in legacy] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 4
        assert ours.pop("cpu_threads").kind is inspect.Parameter.KEYWORD_ONLY  # ours alone
    assert list(ours) == names
    given = dict(zip([each.arg for each in arguments.args][::-1], arguments.defaults[::-1], strict=False))
    given |= dict(zip([each.arg for each in arguments.kwonlyargs], arguments.kw_defaults, strict=True))
    defaults = {key: ast.literal_eval(value) for key, value in given.items() if value}
    assert {key: ours[key].default for key in defaults} == defaults


def test_an_array_for_many_and_a_number_for_one(encoder: CrossEncoder) -> None:
    many = encoder.predict(PAIRS)
    assert (type(many), many.dtype, many.shape) == (np.ndarray, np.float32, (3,))
    np.testing.assert_allclose(many, encoder.reranker.score(PAIRS), rtol=0, atol=bounds.SCORE)
    for one in (PAIRS[0], tuple(PAIRS[0]), np.array(PAIRS[0])):
        score = encoder.predict(one)
        assert type(score) is np.float32
        assert score == bounds.near(many[0])
    for several in (tuple(map(tuple, PAIRS)), np.array(PAIRS), (pair for pair in PAIRS)):
        np.testing.assert_allclose(encoder.predict(several), many, rtol=0, atol=bounds.SCORE)
    nothing = encoder.predict([])
    assert (nothing.shape, nothing.dtype) == ((0,), np.float64)


def test_rankings(encoder: CrossEncoder) -> None:
    scores = encoder.predict([("panda", document) for document in DOCUMENTS])
    ranking = encoder.rank("panda", DOCUMENTS, return_documents=True)
    assert [list(each) for each in ranking] == [["corpus_id", "score", "text"]] * 4
    assert [type(each["score"]) for each in ranking] == [float] * 4
    for each in ranking:
        assert each["text"] == DOCUMENTS[each["corpus_id"]]
        assert each["score"] == bounds.near(scores[each["corpus_id"]])
    found = [each["corpus_id"] for each in ranking]
    assert [each["score"] for each in ranking] == sorted((each["score"] for each in ranking), reverse=True)
    assert found.index(0) == found.index(3) - 1  # equal texts in the order given
    assert encoder.rank("panda", DOCUMENTS, top_k=2) == [
        {"corpus_id": each["corpus_id"], "score": bounds.near(each["score"])} for each in ranking[:2]
    ]
    assert encoder.rank("panda", DOCUMENTS, top_k=0) == encoder.rank("panda", []) == []


def test_the_longer_text_is_cut_first_and_that_is_logged(
    encoder: CrossEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    long = [("panda " * 50, "the bear " * 30), ("panda " * 80, "the bear " * 9)]
    expected = encoder.reranker.logits(long, limits=Limits(64, longest_first=True)).logits
    assert np.abs(expected - encoder.reranker.logits(long).logits).max() > 1e-3  # as FlagEmbedding would cut them
    with caplog.at_level(logging.WARNING, "mlx_rerank"):
        np.testing.assert_allclose(encoder.predict(long), sigmoid(expected), rtol=0, atol=bounds.SCORE)
        encoder.rank("panda", ["the bear " * 40, "the bear"])
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "2 of 2 pairs were cut to 64 tokens",
        "1 of 2 pairs were cut to 64 tokens",
    ]


def test_activations(tiny: Path, encoder: CrossEncoder) -> None:
    logits = encoder.reranker.logits(PAIRS).logits
    close = partial(np.testing.assert_allclose, rtol=0, atol=bounds.COMPANY)  # the slope of each of them is 1 at most
    close(encoder.predict(PAIRS), sigmoid(logits))
    close(encoder.predict(PAIRS, activation_fn=np.tanh), np.tanh(logits))
    close(CrossEncoder(tiny, activation_fn=lambda column: column[:, 0].astype(float)).predict(PAIRS), logits)
    best, worst = (encoder.rank("panda", DOCUMENTS[:3], activation_fn=each) for each in (np.positive, np.negative))
    reversed_worst = [(each["corpus_id"], -each["score"]) for each in worst[::-1]]
    assert reversed_worst == bounds.ranking([(each["corpus_id"], each["score"]) for each in best], raw=True)
    with pytest.raises(InputError, match=r"made shape \(1,\) of \(3, 1\)"):
        encoder.predict(PAIRS, activation_fn=lambda column: column.mean(axis=0))


class Tangent:
    """An activation that is not true, as an empty Sequential of torch's is not."""

    def __len__(self) -> int:
        return 0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return np.tanh(logits)


def test_an_activation_is_what_is_not_none(tiny: Path, encoder: CrossEncoder) -> None:
    logits = encoder.reranker.logits(PAIRS).logits
    close = partial(np.testing.assert_allclose, rtol=0, atol=bounds.COMPANY)
    close(encoder.predict(PAIRS, activation_fn=Tangent()), np.tanh(logits))
    other = CrossEncoder(tiny, activation_fn=Tangent())
    close(other.predict(PAIRS), np.tanh(logits))
    other.activation_fn = None  # which leaves logits as they are, as in sentence-transformers
    close(other.predict(PAIRS), logits)
    for wrong in ("", 0, [], "tanh"):
        with pytest.raises(InputError, match="activation_fn must be a function of logits, or None, not "):
            encoder.predict(PAIRS, activation_fn=wrong)  # pyright: ignore[reportArgumentType]


def test_without_torch(encoder: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert encoder.predict(PAIRS).shape == (3,)
    with pytest.raises(MissingDependencyError, match="needs torch"):
        encoder.predict(PAIRS, convert_to_tensor=True)
    with pytest.raises(MissingDependencyError, match="needs torch"):
        encoder.predict(PAIRS, convert_to_numpy=False)
    with pytest.raises(ZeroDivisionError):  # the activation's own error, and not one about torch
        encoder.predict(PAIRS, activation_fn=lambda _: 1 / 0)


def test_prompts(encoder: CrossEncoder, checkpoint) -> None:
    saved = {
        "model_type": "CrossEncoder",
        "prompts": {"ask": "what is ", "none": ""},
        "default_prompt_name": "ask",
    }
    directory = checkpoint(config_sentence_transformers=saved)
    asked, plain = encoder.predict([("what is panda", "the bear"), ("panda", "the bear")])
    pair = ("panda", "the bear")
    given = CrossEncoder(directory, prompts={"the": "the "})
    assert given.prompts == {"ask": "what is ", "none": "", "the": "the "}
    for found, expected in (
        (encoder.predict(pair, prompt="what is "), asked),
        (given.predict(pair), asked),
        (given.predict(pair, prompt_name="none"), plain),
        (given.predict(pair, prompt=""), plain),
        (given.rank(*pair[:1], [pair[1]])[0]["score"], asked),
        (given.rank(*pair[:1], [pair[1]], prompt="")[0]["score"], plain),
        (CrossEncoder(directory, default_prompt_name="none").predict(pair), plain),
    ):
        assert found == bounds.near(expected)
    with pytest.warns(UserWarning, match="the prompt is used"):
        given.predict(pair, prompt_name="ask", prompt="")
    with pytest.raises(InputError, match=r"no prompt named 'other': it is one of \['ask', 'none', 'the'\]"):
        given.predict(pair, prompt_name="other")
    for name in ("other", ""):
        with pytest.raises(InputError, match=f"no prompt named '{name}'"):
            CrossEncoder(directory, default_prompt_name=name)
    options: dict[str, Any] = {"prompts": {"ask": None, "new": None}}
    assert CrossEncoder(directory, **options).prompts == {"ask": "what is ", "new": "", "none": ""}
    for wrong in ({"ask": 5}, "ask", []):
        with pytest.raises(InputError, match="prompt"):
            CrossEncoder(directory, prompts=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="prompt must be a text or None, not 5"):
        encoder.predict(pair, prompt=5)  # pyright: ignore[reportArgumentType]


def test_what_has_no_effect_is_named_once(tiny: Path, encoder: CrossEncoder) -> None:
    options: dict[str, Any] = {"attn_implementation": "sdpa"}
    with pytest.warns(UserWarning, match="does not use") as caught:
        CrossEncoder(tiny, backend="onnx", trust_remote_code=True, model_kwargs=options)
    assert [str(each.message) for each in caught] == [
        "mlx-rerank: CrossEncoder does not use backend, model_kwargs['attn_implementation'], trust_remote_code"
    ]
    assert caught[0].filename == __file__
    assert options == {"attn_implementation": "sdpa"}
    with pytest.warns(
        UserWarning, match=r"CrossEncoder\.predict does not use num_workers|without a pool does not use chunk_size"
    ) as caught:
        encoder.predict(PAIRS, device=encoder.device, chunk_size=4, num_workers=0)
    assert [each.filename for each in caught] == [__file__] * 2
    with pytest.warns(UserWarning, match=r"CrossEncoder\.rank does not use apply_softmax, convert_to_numpy"):
        encoder.rank("panda", DOCUMENTS, apply_softmax=True, convert_to_numpy=True)  # pyright: ignore[reportCallIssue]
    with pytest.warns(UserWarning, match="does not use classifier_dropout"):
        CrossEncoder(tiny, classifier_dropout=0.1)  # pyright: ignore[reportCallIssue]


def test_bad_arguments(tiny: Path, encoder: CrossEncoder) -> None:
    wrong: list[dict[str, Any]] = [{"num_labels": 3}, {"config_kwargs": {"num_labels": 3}}]
    for options in wrong:
        with pytest.raises(InputError, match="num_labels must be 1, not 3"):
            CrossEncoder(tiny, **options)
    with pytest.raises(CheckpointNotFoundError):
        CrossEncoder()
    with pytest.raises(TypeError, match="max_lenght"):
        CrossEncoder(tiny, max_lenght=64)  # pyright: ignore[reportCallIssue]
    with pytest.raises(InputError, match="batch_size"):
        encoder.predict(PAIRS, batch_size=0)
    for top_k in (-1, 1.5, "2"):
        with pytest.raises(InputError, match="top_k"):
            encoder.rank("panda", DOCUMENTS, top_k=top_k)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wrong", ["ab", ["only one text"], [["a", None]], [["a", "b", "c"]], [5], None, {"a", "b"}])
def test_what_is_not_pairs(encoder: CrossEncoder, wrong: object) -> None:
    with pytest.raises(InputError, match="must be"):
        encoder.predict(wrong)  # pyright: ignore[reportArgumentType]


def test_the_pair_that_is_none_is_named(encoder: CrossEncoder) -> None:
    for wrong in ("cd", ["e"]):
        with pytest.raises(InputError, match=r"pairs\[1\] must be"):
            encoder.predict([["a", "b"], wrong])


def test_tensors(encoder: CrossEncoder, torch: ModuleType) -> None:
    expected = torch.tensor(encoder.predict(PAIRS))
    each: list[dict[str, Any]] = [{"convert_to_tensor": True}, {"convert_to_tensor": True, "convert_to_numpy": False}]
    for options in each:
        many, one = encoder.predict(PAIRS, **options), encoder.predict(PAIRS[0], **options)
        assert (many.shape, one.shape, many.dtype) == ((3,), (), torch.float32)
        torch.testing.assert_close(many, expected, rtol=0, atol=bounds.SCORE)
        torch.testing.assert_close(one, expected[0], rtol=0, atol=bounds.SCORE)
    listed = encoder.predict(PAIRS, convert_to_numpy=False)
    assert isinstance(listed, list)
    torch.testing.assert_close(torch.stack(listed), expected, rtol=0, atol=bounds.SCORE)
    assert encoder.predict(PAIRS[0], convert_to_numpy=False).shape == ()


def test_what_cannot_be_ranked(encoder: CrossEncoder) -> None:
    with pytest.raises(InputError, match="documents must be a list, not a str"):
        encoder.rank("panda", "the bear")
    with pytest.raises(InputError, match=r"documents\[1\]"):
        encoder.rank("panda", ["a", 5])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="query must be a text"):
        encoder.rank(5, ["a"])  # pyright: ignore[reportArgumentType]
