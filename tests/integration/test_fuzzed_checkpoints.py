"""A thousand checkpoints that are damaged or forged, each used as people use models."""

import fuzzing


def test_strangers_checkpoints_score_or_are_refused() -> None:
    found = fuzzing.run(1000, 1, patience=60.0)
    assert not found.failures
    assert found.outcomes["refused"] > 500
    assert found.outcomes["scored"] > 50  # what is changed is not always what is read
