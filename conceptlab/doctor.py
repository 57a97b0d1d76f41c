"""What is installed here, what works, and what stands in the way."""

from __future__ import annotations

__all__ = ["diagnose", "show"]

import importlib
import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# What is imported, and the distribution that brings it.
_LIBRARIES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "open_clip": "open_clip_torch",
    "transformers": "transformers",
    "captum": "captum",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "pandas": "pandas",
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "safetensors": "safetensors",
    "tqdm": "tqdm",
    "typer": "typer",
    "rich": "rich",
}
# Not needed, with what they are for.
_OPTIONAL = {
    "cv2": ("opencv-python-headless", "removers of OpenCV"),
    "skimage": ("scikit-image", "biharmonic filling, SSIM"),
    "pycocotools": ("pycocotools", "masks of COCO"),
    "patchmatch": ("PyPatchMatch", "the PatchMatch remover"),
}
_PACKAGES = ("conceptlab", "bottlenecks", "attribution", "unlearning")


def diagnose() -> dict[str, Any]:
    """Import every library and see where our four packages come from.

    Returns
    -------
    dict
        ``version``, ``python`` and ``machine``; ``libraries`` and ``optional``
        (version and error of each), ``packages`` (folder and whether another
        distribution owns the name), ``device``, ``devices`` (name and memory of
        each GPU), ``threads``, ``healthy``: whether all that is needed works and no
        name clashes.

    Examples
    --------
    >>> findings = diagnose()
    >>> sorted(findings["packages"])
    ['attribution', 'bottlenecks', 'conceptlab', 'unlearning']
    """
    import torch

    from conceptlab.arrays import resolve_device

    libraries = {name: _probe(name, project) for name, project in _LIBRARIES.items()}
    optional = {
        name: {**_probe(name, project), "use": use} for name, (project, use) in _OPTIONAL.items()
    }
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
        "version": importlib.metadata.version("conceptlab"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "libraries": libraries,
        "optional": optional,
        "packages": packages,
        "device": str(resolve_device("auto")),
        "devices": _graphics(),
        "threads": torch.get_num_threads(),
        "healthy": all(not found["error"] for found in libraries.values())
        and all(not found["clash"] for found in packages.values()),
    }


def show(findings: dict[str, Any], console: Console) -> None:
    """Print the findings as tables, and what to do about each trouble.

    Parameters
    ----------
    findings : dict
        Of :func:`diagnose`.
    console : rich.console.Console
        Where to print.

    Examples
    --------
    >>> show(diagnose(), Console())  # doctest: +SKIP
    """
    console.print(
        f"conceptlab {findings['version']}, Python {findings['python']} ({sys.executable}), "
        f"{findings['machine']}",
        markup=False,
        highlight=False,
    )
    table = Table(title="Libraries", title_justify="left")
    for column in ("library", "version", "state"):
        table.add_column(column)
    for name, found in findings["libraries"].items():
        error = escape(found["error"])
        table.add_row(name, found["version"], f"[red]{error}[/]" if error else "ok")
    table.add_section()
    for name, found in findings["optional"].items():
        state = escape(found["error"]) or "ok"
        table.add_row(name, found["version"], f"{state} (optional: {found['use']})")
    console.print(table)
    console.print(f"Device: {findings['device']}, threads: {findings['threads']}", markup=False)
    for line in findings["devices"]:
        console.print(f"  {line}", markup=False, highlight=False)
    for name, found in findings["packages"].items():
        console.print(f"{name} from {found['folder']}", markup=False, highlight=False)
        if found["clash"]:
            console.print(
                f"[red]The name {name} is taken by {', '.join(found['clash'])}.[/] "
                f"{_cure(name, found['clash'][0])}",
                highlight=False,
            )
    console.print("All is well." if findings["healthy"] else "Some things need mending, see above.")


def _cure(name: str, owner: str) -> str:
    if owner == "unknown":
        return f"Another folder {name} stands before ours on sys.path: start elsewhere, or move it."
    return f"Remove that distribution: pip uninstall {escape(owner)}"


def _graphics() -> list[str]:
    """Name the GPUs that torch can use, with their memory."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [
        f"cuda:{i}: {card.name}, {card.total_memory / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count())
        for card in [torch.cuda.get_device_properties(i)]
    ]


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
