"""``python -m conceptlab.bench NAME``: run a benchmark and print its table."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import conceptlab.bench
from conceptlab.bench import BenchResult, Row
from conceptlab.errors import ConceptlabError, unknown_name
from conceptlab.io.files import atomic_write
from conceptlab.provenance import provenance

GROUP = "conceptlab.benchmarks"


def benchmarks() -> dict[str, Callable[[], Callable[..., BenchResult]]]:
    """Find all benchmarks: the modules beside this one, and entry points of other packages."""
    found: dict[str, Callable[[], Callable[..., BenchResult]]] = {}
    for module in pkgutil.iter_modules(conceptlab.bench.__path__):
        if not module.name.startswith("_"):
            path = f"conceptlab.bench.{module.name}"
            found[module.name.replace("_", "-")] = lambda path=path: (
                importlib.import_module(path).run
            )  # type: ignore[misc]
    for entry in importlib.metadata.entry_points(group=GROUP):
        found[entry.name] = entry.load
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark named on the command line; 0 when every goal is met, 1 otherwise."""
    known = benchmarks()
    parser = argparse.ArgumentParser(prog="python -m conceptlab.bench", description=__doc__)
    parser.add_argument("name", help=f"one of: {', '.join(sorted(known))}")
    parser.add_argument("--quick", action="store_true", help="a small problem, for a check")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, help="also write the table to this folder")
    options = parser.parse_args(arguments)
    try:
        if options.name not in known:
            raise unknown_name("benchmark", options.name, sorted(known))
        start = time.perf_counter()
        result = known[options.name]()(quick=options.quick, seed=options.seed)
    except ConceptlabError as error:
        print(error, file=sys.stderr)
        return 2
    result.seconds = time.perf_counter() - start
    result.provenance = provenance()
    print(json.dumps(result.to_dict(), indent=2) if options.json else as_table(result))
    if options.out is not None:
        text = f"# Benchmark `{result.name}`\n\n{summary(options.name)}\n\n{as_table(result)}\n"
        atomic_write(options.out / f"{options.name}.md", text)
    return 0 if all(row.met is not False for row in result.rows) else 1


def summary(name: str) -> str:
    """Give the command that makes a table, and the first paragraph of its module's docstring."""
    module = sys.modules[benchmarks()[name]().__module__]
    first = (module.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return f"Made by `python -m conceptlab.bench {name}`. {first}"


def as_table(result: BenchResult) -> str:
    """Lay the rows out as a Markdown table with a line on how they came about."""
    lines = [
        "| what | ours | peer | unit | ratio | goal | met | note |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in result.rows),
    ]
    versions = ", ".join(f"{k} {v}" for k, v in result.provenance["versions"].items())
    settings = ", ".join(f"{k}={v}" for k, v in result.settings.items())
    lines += [
        "",
        f"`{result.name}`, seed {result.seed}{', ' + settings if settings else ''}; "
        f"{result.seconds:.0f} s; {versions}; {result.provenance['machine']}",
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    def figure(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    met = {None: "", True: "yes", False: "**no**"}[row.met]
    return (
        f"| {row.name} | {figure(row.ours)} | {figure(row.peer)} | {row.unit} | "
        f"{figure(row.ratio)} | {row.goal} | {met} | {row.note} |"
    )


if __name__ == "__main__":
    sys.exit(main())
