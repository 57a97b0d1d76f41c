"""Forward passes that stop at a layer, or note what was finished before it."""

from __future__ import annotations

__all__ = ["Call", "Recording", "capture", "copied", "record"]

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from conceptlab.models.session import Inputs, Session, Stop


@dataclass(frozen=True)
class Call:
    """One finished call of a module.

    Attributes
    ----------
    module : torch.nn.Module
        The module that ran.
    output : object
        What it returned.
    """

    module: nn.Module
    output: Any


@dataclass
class Recording:
    """What one pass showed.

    Attributes
    ----------
    before : list of Call
        The outermost modules that were finished when the layer ended, in order;
        the layer itself is not among them.
    layer_output : object
        What the layer returned.
    runs : int
        How often the layer ran.
    grids : list of tuple of int
        Heights and widths of four-axis outputs met before the layer ended.
    output : object
        What the model returned; None when the pass stopped at the layer.
    """

    before: list[Call] = field(default_factory=list)
    layer_output: Any = None
    runs: int = 0
    grids: list[tuple[int, int]] = field(default_factory=list)
    output: Any = None


def capture(session: Session, layer: nn.Module, inputs: Inputs) -> Any:
    """Run the model up to the end of `layer` and return what the layer gave.

    Returns
    -------
    object
        The layer's output, or None when the layer did not run. Nothing runs
        after it, so no later in-place operation can change it.
    """
    owner = threading.get_ident()
    caught: list[Any] = []

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == owner:
            caught.append(output)
            raise Stop

    handle = layer.register_forward_hook(hook)
    try:
        session.run(inputs)
    except Stop:
        pass
    finally:
        handle.remove()
    return caught[0] if caught else None


def record(session: Session, layer: nn.Module, inputs: Inputs, *, stop: bool) -> Recording:
    """Run the model and note which modules were finished before `layer` ended.

    Parameters
    ----------
    session : Session
        Already borrowed by the caller.
    layer : torch.nn.Module
        Where to cut.
    inputs : Inputs
        What to call the model with.
    stop : bool
        Stop at the layer, or go on to the end and count its runs.
    """
    owner = threading.get_ident()
    found = Recording()
    marks: list[int] = []

    def enter(module: nn.Module, args: Any) -> None:
        if threading.get_ident() == owner and not found.runs:
            marks.append(len(found.before))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() != owner:
            return
        if module is layer:
            found.runs += 1
        if found.runs > (module is layer):
            return
        mark = marks.pop() if marks else 0
        # What ran inside this module is covered by its output.
        del found.before[mark:]
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            found.grids.append((int(output.shape[2]), int(output.shape[3])))
        if module is not layer:
            # Copies, because a later operation may change the tensors in place.
            found.before.append(Call(module, copied(output)))
            return
        found.layer_output = copied(output)
        if stop:
            raise Stop

    with _hooks(session.model, enter, leave):
        try:
            found.output = session.run(inputs)
        except Stop:
            found.output = None
    return found


def copied(output: Any) -> Any:
    """Clone the tensors in what a module returned."""
    return tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, output)


class _hooks:
    """Forward hooks on every module, gone at the end."""

    def __init__(
        self,
        model: nn.Module,
        enter: Callable[[nn.Module, Any], None],
        leave: Callable[[nn.Module, Any, Any], None],
    ) -> None:
        self.model, self.enter, self.leave = model, enter, leave
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for module in self.model.modules():
            if not isinstance(module, torch.jit.ScriptModule):
                self.handles.append(module.register_forward_pre_hook(self.enter))
                self.handles.append(module.register_forward_hook(self.leave))

    def __exit__(self, *exception: object) -> None:
        for handle in self.handles:
            handle.remove()
