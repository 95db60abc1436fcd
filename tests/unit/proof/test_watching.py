"""Watching a model: every floating array that a module is given or returns, by the module's path."""

import mlx.core as mx
import mlx.nn as nn

from mlx_rerank.proof.watching import watched


def test_what_modules_are_given_and_return() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    given: list[tuple[str, list[int]]] = []
    results: list[tuple[str, list[int]]] = []

    def look(into: list[tuple[str, list[int]]]):
        return lambda path, value: into.append((path, list(value.shape)))

    original = nn.Linear.__call__
    with watched(model, result=look(results), given=look(given)):
        expected = model(mx.ones((3, 4)))
        nn.Linear(4, 4)(mx.ones((1, 4)))  # not of the model
    assert given == [("", [3, 4]), ("layers.0", [3, 4]), ("layers.1", [3, 8]), ("layers.2", [3, 8])]
    assert results == [("layers.0", [3, 8]), ("layers.1", [3, 8]), ("layers.2", [3, 2]), ("", [3, 2])]
    assert nn.Linear.__call__ is original
    assert mx.array_equal(model(mx.ones((3, 4))), expected)


def test_an_inherited_call_stays_inherited() -> None:
    class Own(nn.Linear):
        pass

    with watched(Own(2, 2), result=lambda *_: None):
        assert "__call__" in vars(Own)
    assert "__call__" not in vars(Own)


def test_only_floating_arrays_count() -> None:
    model = nn.Embedding(5, 2)
    seen: list[str] = []
    with watched(model, result=lambda path, _: seen.append(f"result {path}"), given=lambda *_: seen.append("given")):
        model(mx.array([1, 2]))
    assert seen == ["result "]
