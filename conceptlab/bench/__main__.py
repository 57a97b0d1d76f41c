"""``python -m conceptlab.bench NAME``: run a benchmark and print its table.

``python -m conceptlab.bench all --out docs/results`` runs them all, and the scripts of all other
measured tables.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import conceptlab.bench
from conceptlab.bench import BenchResult, Row
from conceptlab.bench._all import folder_of_tables, jobs, run_all
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
    parser.add_argument("name", help=f"all, or one of: {', '.join(sorted(known))}")
    parser.add_argument("--quick", action="store_true", help="a small problem, for a check")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, help="also write the table to this folder")
    everything = parser.add_argument_group("with the name all")
    everything.add_argument("--only", nargs="+", metavar="NAME", help="of all, run these")
    everything.add_argument(
        "--missing", action="store_true", help="leave out what an earlier call finished"
    )
    options = parser.parse_args(arguments)
    if options.name != "all" and (options.only or options.missing):
        parser.error("--only and --missing go with the name all")
    try:
        if options.name == "all":
            return run_everything(parser, options, known)
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


def run_everything(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    known: Iterable[str],
) -> int:
    """Run all jobs into a folder; 0 when none failed, 1 otherwise."""
    if options.out is None:
        parser.error("all needs --out FOLDER for its pages")
    if options.quick and folder_of_tables(options.out) == options.out.resolve():
        parser.error("--quick would replace measured tables by small ones; give another --out")
    planned = jobs(known, options.out, quick=options.quick, seed=options.seed)
    good = run_all(planned, options.out, only=options.only, missing=options.missing)
    return 0 if good else 1


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
