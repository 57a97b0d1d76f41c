"""The command line: ``conceptlab explain``, ``conceptlab doctor``, ...

The packages above the backbone bring their commands as entry points of the
group ``conceptlab.commands``, so that the backbone does not import them.
"""

from __future__ import annotations

__all__ = ["app", "main"]

import importlib.metadata
import io
import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from conceptlab.errors import ConceptlabError

GROUP = "conceptlab.commands"

app = typer.Typer(
    name="conceptlab",
    help="Find the concepts of a vision model, explain it by them, classify, forget, audit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"conceptlab {importlib.metadata.version('conceptlab')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    """Keep the sub-commands, also when there is only one."""


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is installed, which device is used, and which names clash."""
    from conceptlab.doctor import diagnose, show

    findings = diagnose()
    if as_json:
        typer.echo(json.dumps(findings, indent=2))
    else:
        show(findings, Console())
    raise typer.Exit(0 if findings["healthy"] else 1)


def _add_commands() -> None:
    known = {command.name or "" for command in app.registered_commands}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name):
        if entry.name not in known:
            app.command(entry.name)(entry.load())


def main() -> None:
    """Run the command line; errors of the package end it with one message and code 2.

    Examples
    --------
    >>> main()  # doctest: +SKIP
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names need not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    _add_commands()
    try:
        app()
    except ConceptlabError as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {_plain(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted; finished work is kept.")
        sys.exit(130)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
