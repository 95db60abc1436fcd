"""Which build of MLX is installed: not every one has the kernels of every chip."""

from importlib.metadata import PackageNotFoundError, distribution


def wheel_tag(package: str) -> str | None:
    """Return what an installed package's wheel was built for, such as py3-none-macosx_14_0_arm64.

    Args:
        package: "mlx", or "mlx-metal" or "mlx-cpu", which has the kernels.

    Returns:
        The tag, several with commas between; None where the package or its record is not there.
    """
    try:
        record = distribution(package).read_text("WHEEL") or ""
    except PackageNotFoundError:
        return None
    tags = [line.partition(":")[2].strip() for line in record.splitlines() if line.startswith("Tag:")]
    return ", ".join(tags) or None


def wheels() -> dict[str, str]:
    """Return the tags of MLX's packages that are installed, by their names."""
    return {name: tag for name in ("mlx", "mlx-metal", "mlx-cpu") if (tag := wheel_tag(name))}
