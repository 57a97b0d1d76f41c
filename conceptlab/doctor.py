"""What is installed here, what works, and what stands in the way."""

from __future__ import annotations

__all__ = ["diagnose", "show"]

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_LIBRARIES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "open_clip": "open_clip_torch",
    "captum": "captum",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "transformers": "transformers",
    "matplotlib": "matplotlib",
    "safetensors": "safetensors",
}
_PACKAGES = ("conceptlab", "bottlenecks", "attribution", "unlearning")


def diagnose() -> dict[str, Any]:
    """Import every library and see where our four packages come from.

    Returns
    -------
    dict
        ``libraries`` (version and error of each), ``packages`` (folder and
        whether another distribution owns the name), ``device``, ``threads``,
        ``healthy``.
    """
    import torch

    from conceptlab.arrays import resolve_device

    libraries = {name: _probe(name, project) for name, project in _LIBRARIES.items()}
    owners = importlib.metadata.packages_distributions()
    home = Path(__file__).resolve().parent.parent
    packages = {}
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        folder = Path(spec.origin).resolve().parent if spec and spec.origin else None
        others = sorted(set(owners.get(name, [])) - {"conceptlab"})
        packages[name] = {
            "folder": str(folder),
            "clash": others if others else ([] if folder == home / name else ["unknown"]),
        }
    return {
        "libraries": libraries,
        "packages": packages,
        "device": str(resolve_device("auto")),
        "threads": torch.get_num_threads(),
        "healthy": all(not found["error"] for found in libraries.values())
        and all(not found["clash"] for found in packages.values()),
    }


def show(findings: dict[str, Any], console: Console) -> None:
    """Print the findings as tables, and what to do about each trouble."""
    table = Table(title="Libraries", title_justify="left")
    for column in ("library", "version", "state"):
        table.add_column(column)
    for name, found in findings["libraries"].items():
        table.add_row(
            name, found["version"], f"[red]{found['error']}[/]" if found["error"] else "ok"
        )
    console.print(table)
    console.print(f"Device: {findings['device']}, threads: {findings['threads']}")
    for name, found in findings["packages"].items():
        if found["clash"]:
            console.print(
                f"[red]The name {name} is taken by {', '.join(found['clash'])}[/] in "
                f"{found['folder']}. Remove that distribution: pip uninstall {found['clash'][0]}"
            )
    console.print("All is well." if findings["healthy"] else "Some things need mending, see above.")


def _probe(name: str, project: str) -> dict[str, str]:
    try:
        version = importlib.metadata.version(project)
    except importlib.metadata.PackageNotFoundError:
        return {"version": "-", "error": f"missing: pip install {project}"}
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken library can raise anything
        return {"version": version, "error": f"{type(error).__name__}: {error}"[:200]}
    return {"version": version, "error": ""}
