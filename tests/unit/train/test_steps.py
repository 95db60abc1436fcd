"""Which documents of which queries make each step, and that the seed decides it all."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_data import make_examples, make_run

from mlx_rerank.train import Example, TrainingOptions
from mlx_rerank.train.steps import _POOL, Step, Steps, drawn
from mlx_rerank.train.trainer import Run

QUERIES = 75


@pytest.fixture(scope="module")
def run(tiny: Path) -> Run:
    return make_run(tiny)


def steps_with(run: Run, examples: list[Example], **options: object) -> Steps:
    return Steps(examples, run.encoder, TrainingOptions(**options), run.max_length)  # pyright: ignore[reportArgumentType]


def rows_of(step: Step) -> list[bytes]:
    """Return the token ids of every document of a step, group by group."""
    rows = []
    for part in step.parts:
        padded = [row for batch in part.batches for row in batch.input_ids]
        rows += [padded[place][padded[place] != 1].tobytes() for place in part.places[part.shown]]
    return rows


def token_ids(run: Run, example: Example) -> list[bytes]:
    encoded = run.encoder.encode([(example.query, text) for text in example.documents], steps_with(run, [])._limits)
    return [encoded.sequences[i].ids.tobytes() for i in encoded.inverse]


@given(
    st.lists(st.sampled_from([0.0, 0.3, 0.6, 1.0]), min_size=1, max_size=12),
    st.integers(2, 9),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_drawn(labels: list[float], size: int, seed: int, taught: bool) -> None:
    documents = tuple(map(str, range(len(labels))))
    teacher = tuple(10.0 * i for i in range(len(labels))) if taught else None
    example = Example("q", documents, tuple(labels), teacher)
    found = drawn(example, size, np.random.default_rng(seed))
    assert found.query == "q"
    assert 1 <= len(found.documents) <= size
    places = [int(document) for document in found.documents]
    assert len(set(places)) == len(places)
    assert found.labels == tuple(labels[i] for i in places)
    assert found.teacher == (None if teacher is None else tuple(teacher[i] for i in places))
    if example.positives:
        assert places[0] in example.positives
    if len(labels) <= size:
        assert sorted(places) == list(range(len(labels)))
    else:
        assert not set(places[1:]) & set(example.positives)
        assert len(places) == min(size, bool(example.positives) + len(labels) - len(example.positives))


def test_every_document_has_its_turn() -> None:
    example = Example("q", tuple("abcdef"), (1, 1, 0, 0, 0, 0))
    random = np.random.default_rng(0)
    counts = Counter(text for _ in range(600) for text in drawn(example, 3, random).documents)
    assert all(250 <= counts[text] <= 350 for text in "abcdef")


@pytest.mark.parametrize("batch_size", [4, 7])
def test_every_query_once_an_epoch(run: Run, batch_size: int) -> None:
    examples = make_examples(QUERIES)
    steps = steps_with(run, examples, batch_size=batch_size, epochs=2)
    taken = list(steps.after(0))
    each = -(-QUERIES // batch_size)
    assert len(taken) == len(steps) == 2 * each
    assert each > _POOL or batch_size == 7
    expected = sorted(row for example in examples for row in token_ids(run, example))
    epochs = [taken[:each], taken[each:]]
    for epoch in epochs:
        assert sorted(row for step in epoch for row in rows_of(step)) == expected
    assert [rows_of(step) for step in epochs[0]] != [rows_of(step) for step in epochs[1]]
    assert [steps.epoch_ends(i) for i in (each - 1, each, 2 * each)] == [False, True, True]


def test_a_seed_gives_the_same_steps(run: Run) -> None:
    examples = make_examples(20)

    def rows(seed: int) -> list[list[bytes]]:
        steps = steps_with(run, examples, batch_size=4, group_size=2, epochs=2, seed=seed)
        return [rows_of(step) for step in steps.after(0)]

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)


def test_steps_after_some(run: Run) -> None:
    steps = steps_with(run, make_examples(QUERIES), batch_size=4, group_size=3, epochs=2)
    taken = [rows_of(step) for step in steps.after(0)]
    for done in (1, _POOL - 1, _POOL, _POOL + 1, len(steps) // 2, len(steps) - 1, len(steps)):
        assert [rows_of(step) for step in steps.after(done)] == taken[done:]


def test_choices_of_no_pool_are_those_of_the_order_or_of_another(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = steps_with(run, make_examples(2 * _POOL + 1), batch_size=1, epochs=2, seed=3)
    seeds, make = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or make(seed))
    list(steps.after(0))
    states = {seed: str(np.random.SeedSequence(seed).generate_state(4)) for seed in seeds}
    assert len(states) == len(set(states.values())) == 2 * (1 + 3)  # of two epochs: an order, and three pools


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(20, 200), st.integers(0, 100))
def test_parts(run: Run, queries: int, token_budget: int, seed: int) -> None:
    examples = make_examples(queries, 6, seed=seed)
    (step,) = steps_with(run, examples, batch_size=12, token_budget=token_budget).after(0)
    by_rows = {token_ids(run, example)[0]: example for example in examples}
    assert step.documents == sum(len(example.documents) for example in examples)
    assert step.groups == queries
    assert step.followers == step.documents - queries
    assert step.truncated_tokens == 0
    assert step.tokens == sum(len(row) // 4 for row in rows_of(step))
    for part in step.parts:
        padded = [row for batch in part.batches for row in batch.input_ids]
        assert part.teacher is not None
        tokens = sum(int((row != 1).sum()) for row in padded)
        assert len(part.places) == 1 or tokens <= token_budget
        for places, shown, labels, teacher in zip(part.places, part.shown, part.labels, part.teacher, strict=True):
            rows = [padded[place][padded[place] != 1].tobytes() for place in places[shown]]
            example = by_rows[rows[0]]
            assert rows == token_ids(run, example)
            assert tuple(labels[shown]) == example.labels
            assert tuple(teacher[shown]) == example.teacher
            assert not labels[~shown].any()


def test_what_was_cut_is_counted(run: Run) -> None:
    long = Example("q", ("panda " * 200, "bear"), (1.0, 0.0))
    (step,) = steps_with(run, [long]).after(0)
    assert step.truncated_tokens > 100
    assert step.tokens < 100


def test_groups_that_rank_something(run: Run) -> None:
    examples = [Example("q", ("a",), (1.0,)), Example("r", ("b", "c"), (0.0, 0.0)), Example("s", ("d", "e"), (0, 0.4))]
    (step,) = steps_with(run, examples).after(0)
    assert (step.groups, step.lists, step.documents, step.followers) == (1, 2, 5, 2)
    assert step.parts[0].teacher is None
