"""Whether a config.json and the weights belong together: compared by shape, before anything of that size is made."""

from collections.abc import Mapping, Set
from typing import Any

from mlx_rerank.checkpoints.packing import quantization_of
from mlx_rerank.errors import WeightsError
from mlx_rerank.models.family import Family
from mlx_rerank.models.shape import Shape

Shapes = Mapping[str, tuple[int, ...]]  # by the names of tensors


def require_fit(found: Shapes, config: Mapping[str, Any], family: Family, shape: Shape, *, converted: bool) -> None:
    """Compare the tensors of a checkpoint with what its config.json asks for.

    Args:
        found: what the weights' files hold.
        config: config.json as it stands.
        family: of the model.
        shape: of the model.
        converted: whether this package's converter wrote the weights, under its own names and perhaps packed.

    Raises:
        WeightsError: a tensor is missing, unexpected or misshapen.
        CheckpointError: config.json does not say how a parameter is packed.
    """
    expected = _of_converter(found, config, family, shape) if converted else family.source_shapes(shape)
    ignored = () if converted else family.ignored
    if not converted:
        found = {own: found[name] for own, name in family.names(found).items()}
    read = {name for name in found if name in expected or not name.startswith(ignored)}
    require_names(read, expected.keys(), _wrapped(found, expected))
    for name, wanted in expected.items():
        if tuple(found[name]) != wanted:
            raise WeightsError(f"{name} has shape {list(found[name])}; config.json asks for {list(wanted)}")


def require_names(found: Set[str], expected: Set[str], hint: str = "") -> None:
    """Compare names of tensors.

    Args:
        found: by the files.
        expected: by the model.
        hint: the end of the message.

    Raises:
        WeightsError: some are missing or unexpected; it names the first five.
    """
    for problem, names in (("missing", expected - found), ("unexpected", found - expected)):
        if names:
            some = ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "")
            raise WeightsError(f"{len(names)} weights are {problem}: {some}{hint}")


def _wrapped(found: Shapes, expected: Shapes) -> str:
    """Return, as the end of a message, that all names have one beginning more, which a wrapper of the model adds."""
    some = next(iter(expected))
    for prefix in (name.removesuffix(some) for name in found if name.endswith(some)):
        if prefix and all(prefix + name in found for name in expected):
            return f"; all names begin with {prefix!r}, as a wrapper adds it: save the model that is in it, without it"
    return ""


def _of_converter(found: Shapes, config: Mapping[str, Any], family: Family, shape: Shape) -> Shapes:
    """Return what a converted directory must hold: of a parameter that is packed there, its parts."""
    expected: dict[str, tuple[int, ...]] = {}
    for rule in family.table(shape):
        path, _, kind = rule.target.rpartition(".")
        if kind != "weight" or len(rule.shape) != 2 or f"{path}.scales" not in found:
            expected[rule.target] = rule.shape
            continue
        packing, (rows, width) = quantization_of(config, path), rule.shape
        if width % packing.group_size:
            raise WeightsError(
                f"{path} has rows {width} wide; config.json packs them in groups of {packing.group_size}"
            )
        groups = rows, width // packing.group_size
        expected |= {rule.target: (rows, width * packing.bits // 32), f"{path}.scales": groups}
        if packing.mode == "affine":
            expected[f"{path}.biases"] = groups
    return expected
