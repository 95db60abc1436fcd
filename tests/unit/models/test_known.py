"""What is known of models on the hub, family by family."""

from itertools import chain

from mlx_rerank.models import FAMILIES


def test_every_family_names_its_example_and_no_model_is_of_two() -> None:
    names = list(chain.from_iterable([model.repository for model in family.known] for family in FAMILIES))
    assert len(set(names)) == len(names)
    assert {family.example for family in FAMILIES} <= set(names)
