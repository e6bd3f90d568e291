"""The product as files, for a virtual machine that has only Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGES = ("provisioner", "msgspec", "click", "cronsim", "structlog", "typing_extensions")


def product(*more: str) -> dict[str, bytes]:
    """Return the files of the product, of what its agent imports, and `more` of this repository, below /product."""
    files: dict[str, bytes] = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        if origin.name != "__init__.py":
            files[f"product/{origin.name}"] = origin.read_bytes()
            continue
        for path in origin.parent.rglob("*"):
            if path.suffix in (".py", ".so"):
                files[f"product/{package}/{path.relative_to(origin.parent)}"] = path.read_bytes()
    root = Path(__file__).parents[2]
    return files | {f"product/{name}": (root / name).read_bytes() for name in more}
