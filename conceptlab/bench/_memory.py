"""Peak memory of a piece of work, measured in a process of its own."""

from __future__ import annotations

__all__ = ["peak_above_start"]

import json
import subprocess
import sys
from pathlib import Path


def peak_above_start(module: str, function: str, **arguments: object) -> float:
    """Run ``module.function(**arguments)`` in a fresh process and give its peak in MB.

    The function returns a callable without arguments: what it prepares counts
    as the start, what the callable does counts as the work.

    Parameters
    ----------
    module, function : str
        Where the function is.
    **arguments
        JSON values.

    Returns
    -------
    float
        Peak resident memory during the work, less the memory at its start; NaN
        where the system does not tell.
    """
    command = [sys.executable, "-m", "conceptlab.bench._memory", module, function]
    answer = subprocess.run(  # noqa: S603 - our own module, no shell
        [*command, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    return float(answer.stdout.strip().splitlines()[-1])


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _main() -> None:
    import gc
    import importlib

    import torch

    torch.set_num_threads(1)
    module, function, arguments = sys.argv[1:4]
    work = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        start = _status("VmRSS")
        work()
        sys.stdout.write(f"{_status('VmHWM') - start}\n")
    except OSError:
        sys.stdout.write("nan\n")


if __name__ == "__main__":
    _main()
