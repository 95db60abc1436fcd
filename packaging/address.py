"""A hook of hatchling for what needs the repository's public address: project.urls, and links of the README on PyPI.

The address is one setting: `address` of [tool.hatch.metadata.hooks.custom] in pyproject.toml. While it is empty there
are no urls, and the README stays as it is.
"""

import re
from pathlib import Path
from typing import Any

import hatch_fancy_pypi_readme.hooks as fancy
from hatchling.metadata.plugin.interface import MetadataHookInterface

_BEFORE = r'(\]\(|\b(?:src|srcset|href)=")'  # of Markdown, and of HTML within it
_PICTURES = (".gif", ".jpg", ".png", ".svg", ".webp")


class PublicAddress(MetadataHookInterface):
    """Fills in `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the two to a project's metadata."""
        address = self.config["address"].rstrip("/")
        readme = Path(self.root, "README.md").read_text("utf-8")
        settings = {
            "content-type": "text/markdown",
            "fragments": [{"text": readme}],
            "substitutions": substitutions(readme, Path(self.root), address) if address else [],
        }
        fancy.FancyReadmeMetadataHook(self.root, settings).update(metadata)
        if address:
            metadata["urls"] = urls(address)


def urls(address: str) -> dict[str, str]:
    """Return the links beside a project's description on PyPI."""
    return {
        "Homepage": address,
        "Documentation": f"{address}/tree/main/docs",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }


def substitutions(text: str, root: Path, address: str) -> list[dict[str, str]]:
    """Return what makes links to files of the repository absolute: to what they were in the version that is built.

    Args:
        text: Markdown.
        root: of the repository; what is no file or folder of it is no such link.
        address: of the repository.
    """
    found = {target for _, target in re.findall(_BEFORE + r'([^)\s"#:]+)', text) if (root / target).exists()}
    return [
        {
            "pattern": _BEFORE + re.escape(target) + r'(?=[)\s"#])',
            "replacement": rf"\1{address}/{_kind(root / target)}/v$HFPR_VERSION/{target}",
        }
        for target in sorted(found)
    ]


def _kind(path: Path) -> str:
    """Return the word by which hosts of repositories show a file as it is, a folder, or a page about a file."""
    if path.suffix in _PICTURES:
        return "raw"
    return "tree" if path.is_dir() else "blob"
