"""Write the Homebrew formula of a release beside its sdist: python packaging/formula.py dist/mlx_rerank-1.2.3.tar.gz.

Without a public address (see address.py) there is none to write.
"""

import hashlib
import sys
import tarfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

TEMPLATE = Path(__file__).with_name("mlx-rerank.rb")


def main(sdist: Path) -> None:
    """Write the formula, or say why not."""
    urls = dict(line.split(", ", 1) for line in said(sdist).get_all("Project-URL", []))
    if "Homepage" not in urls:
        print("no formula: `address` in pyproject.toml is empty")
        return
    target = sdist.with_name(TEMPLATE.name)
    target.write_text(formula(sdist, urls["Homepage"]), "utf-8")
    print(f"wrote {target}")


def said(sdist: Path) -> Message:
    """Return the metadata of a package's sdist."""
    with tarfile.open(sdist) as archive:
        name = next(name for name in archive.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO"))
        file = archive.extractfile(name)
        assert file
        return message_from_bytes(file.read())


def formula(sdist: Path, address: str) -> str:
    """Return the formula, in Ruby.

    Args:
        sdist: that it installs.
        address: of the repository, whose release of that version has the sdist.
    """
    metadata = said(sdist)
    known = {
        "DESCRIPTION": metadata["Summary"].partition(":")[0],
        "ADDRESS": address,
        "VERSION": metadata["Version"],
        "SDIST": sdist.name,
        "SHA256": hashlib.sha256(sdist.read_bytes()).hexdigest(),
    }
    text = TEMPLATE.read_text("utf-8")
    for name, value in known.items():
        text = text.replace(f"@{name}@", value)
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1]))
