"""All benchmarks and all measured tables, one after another, each in a process of its own.

A job that fails, or that this machine cannot do, stops no other. What became of each is in
``runs.json`` as soon as it ends, and on the page ``runs.md``.
"""

from __future__ import annotations

__all__ = ["Job", "Outcome", "folder_of_tables", "jobs", "page", "read_log", "run_all", "run_one"]

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conceptlab.errors import unknown_name
from conceptlab.io.files import atomic_write
from conceptlab.provenance import provenance

DONE, MISSED, FAILED, SKIPPED = "done", "done, a goal is missed", "failed", "skipped"
FINISHED = (DONE, MISSED)
TABLES = "tables.toml"
LOG = "runs.json"


@dataclass(frozen=True)
class Job:
    """One command and the page that it writes.

    Attributes
    ----------
    name : str
    command : tuple of str
    page : Path
        Written by the command when it succeeds.
    needs : tuple of str
        Variables of the environment, without which it cannot run.
    skip : str
        Why it is not to be run; empty if it is.
    shown : str
        The command as a person types it.
    """

    name: str
    command: tuple[str, ...]
    page: Path
    needs: tuple[str, ...] = ()
    skip: str = ""
    shown: str = ""


@dataclass
class Outcome:
    """What became of a job.

    Attributes
    ----------
    state : str
        ``"done"``, ``"done, a goal is missed"``, ``"failed"`` or ``"skipped"``.
    seconds : float
        Wall time.
    reason : str
        Why it failed or was skipped.
    command : str
        The command as a person types it.
    provenance : dict
        Versions and machine.
    """

    state: str
    seconds: float = 0.0
    reason: str = ""
    command: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


def folder_of_tables(out: Path) -> Path | None:
    """Find the scripts of the tables: in `out`, or in the sources of this package."""
    sources = Path(__file__).resolve().parents[2] / "docs" / "results"
    return next((f for f in (out.resolve(), sources) if (f / TABLES).is_file()), None)


def jobs(names: Iterable[str], out: Path, *, quick: bool, seed: int) -> list[Job]:
    """List the jobs: benchmarks by name, then the tables.

    Parameters
    ----------
    names : iterable of str
        Names of benchmarks.
    out : Path
        Folder of the pages.
    quick : bool
        Take small problems.
    seed : int
        Seed of the benchmarks; tables have seeds of their own.

    Returns
    -------
    list of Job
    """
    out = out.resolve()
    options = ["--quick"] if quick else []
    found = []
    for name in sorted(names):
        command = ("-m", "conceptlab.bench", name, *options, "--seed", str(seed))
        shown = " ".join(("python", *command))
        full = (sys.executable, *command, "--out", str(out))
        found.append(Job(name, full, out / f"{name}.md", shown=shown))
    folder = folder_of_tables(out)
    if folder is None:
        return found
    for name, entry in tomllib.loads((folder / TABLES).read_text("utf-8")).items():
        script = folder / f"{name.replace('-', '_')}.py"
        chosen = entry.get("quick") if quick else entry.get("fresh", [])
        arguments = tuple(a.replace("{out}", str(out)) for a in chosen or ())
        skip = "it has no small problem" if chosen is None else ""
        found.append(
            Job(
                name,
                (sys.executable, str(script), *arguments),
                (out if quick else folder) / f"{name}.md",
                tuple(entry.get("needs", ())),
                skip,
                " ".join(("python", f"docs/results/{script.name}", *entry.get("fresh", ()))),
            )
        )
    return found


def run_all(
    planned: list[Job], out: Path, *, only: list[str] | None = None, missing: bool = False
) -> bool:
    """Run jobs one after another, and keep a log and a page of what became of them.

    Parameters
    ----------
    planned : list of Job
    out : Path
        Folder of the log and the page.
    only : list of str, optional
        Run these alone.
    missing : bool
        Leave out what an earlier call finished.

    Returns
    -------
    bool
        Whether no job failed.

    Raises
    ------
    UnknownNameError
        If `only` names no job.
    """
    known = [job.name for job in planned]
    for name in only or ():
        if name not in known:
            raise unknown_name("benchmark or table", name, known)
    log = read_log(out)
    chosen = [job for job in planned if not only or job.name in only]
    if missing:
        chosen = [job for job in chosen if log.get(job.name, Outcome("")).state not in FINISHED]
    good = True
    for i, job in enumerate(chosen, 1):
        print(f"[{i}/{len(chosen)}] {job.name}: {job.shown}", flush=True)
        outcome = run_one(job)
        good = good and outcome.state != FAILED
        if outcome.state != SKIPPED or log.get(job.name, outcome).state not in FINISHED:
            log[job.name] = outcome  # an earlier page is still there when a job is skipped
        written = {name: asdict(log[name]) for name in known if name in log}
        atomic_write(out / LOG, json.dumps(written, indent=1) + "\n")
        atomic_write(out / "runs.md", page(log, known))
        detail = f": {outcome.reason}" if outcome.reason else ""
        print(f"    {outcome.state}, {outcome.seconds:.0f} s{detail}", flush=True)
    return good


def read_log(out: Path) -> dict[str, Outcome]:
    """Read what earlier calls have done; nothing if there is no readable log."""
    try:
        entries = json.loads((out / LOG).read_text("utf-8"))
        return {name: Outcome(**entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def run_one(job: Job) -> Outcome:
    """Run a job on one thread, and tell by its page whether it succeeded."""
    absent = [name for name in job.needs if not os.environ.get(name)]
    reason = job.skip or ("needs " + ", ".join(absent) if absent else "")
    if reason:
        return Outcome(SKIPPED, reason=reason, command=job.shown)
    before = job.page.stat().st_mtime_ns if job.page.exists() else None
    environment = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CONCEPTLAB_PROGRESS": "0",
        **os.environ,
    }
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own modules and scripts
        job.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - start
    made = job.page.exists() and job.page.stat().st_mtime_ns != before
    if made and done.returncode in (0, 1):
        state, said = (DONE, "") if done.returncode == 0 else (MISSED, "")
    else:
        # 2: an error that explains itself, such as a machine without a GPU.
        state = SKIPPED if done.returncode == 2 else FAILED
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = (lines[0] if state == SKIPPED else lines[-1]) if lines else "it wrote no page"
    return Outcome(state, round(seconds, 1), said, job.shown, provenance())


def page(log: dict[str, Outcome], order: list[str]) -> str:
    """Lay the log out as a page, which Sphinx takes without an entry in a contents list."""
    lines = [
        "---",
        "orphan: true",
        "---",
        "",
        "# Runs",
        "",
        "Written by `python -m conceptlab.bench all`: what became of each table when it was last "
        "made. Seeds and settings are on the pages themselves.",
        "",
        "| table | command | outcome | wall s | versions | machine |",
        "|---|---|---|---|---|---|",
    ]
    for name in order:
        if name not in log:
            continue
        entry = log[name]
        link = f"[{name}]({name}.md)" if entry.state in FINISHED else name
        said = entry.reason.replace("|", "/")[:200]
        outcome = f"{entry.state}: {said}" if said else entry.state
        versions = entry.provenance.get("versions", {})
        shown = ", ".join(f"{k} {v}" for k, v in versions.items())
        seconds = f"{entry.seconds:.0f}" if entry.state != SKIPPED else ""
        machine = entry.provenance.get("machine", "")
        lines.append(
            f"| {link} | `{entry.command}` | {outcome} | {seconds} | {shown} | {machine} |"
        )
    return "\n".join(lines) + "\n"
