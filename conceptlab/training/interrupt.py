"""Ctrl-C that lets a step come to its end."""

from __future__ import annotations

__all__ = ["DeferredInterrupt"]

import signal
import threading
from typing import Any


class DeferredInterrupt:
    """Let a step come to its end before Ctrl-C ends the run; a second Ctrl-C does at once.

    A process that ignores the signal, such as one under ``nohup`` or in the
    background of a shell, goes on ignoring it.

    Parameters
    ----------
    active : bool
        Whether to do anything; signals belong to the main thread.

    Attributes
    ----------
    came : bool
        Whether Ctrl-C was pressed.

    Examples
    --------
    >>> with DeferredInterrupt(True) as interrupt:
    ...     pass  # steps; after each: if interrupt.came, stop
    >>> interrupt.came
    False
    """

    def __init__(self, active: bool) -> None:
        self.came = False
        self.active = active and threading.current_thread() is threading.main_thread()
        self._before: Any = signal.getsignal(signal.SIGINT) if self.active else None
        # None: the handler is not Python's, and could not be put back.
        self.active = self.active and self._before not in (signal.SIG_IGN, None)

    def __enter__(self) -> DeferredInterrupt:
        if self.active:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
