"""Which layers of a model can be cut, and which is best for CRAFT."""

from __future__ import annotations

__all__ = ["find_layer", "session_for", "suggest_layers"]

import difflib
from typing import Any

import torch
from torch import nn

from conceptlab.errors import SplitError
from conceptlab.models.session import Inputs, Session, unwrap

_COLUMNS = (
    "name", "type", "shape", "runs", "non_negative", "zeros", "parameters_after", "fit", "recommended",
)  # fmt: skip


def find_layer(model: nn.Module, at: str | nn.Module) -> tuple[str, nn.Module]:
    """Find a layer by name or by the module itself.

    Raises
    ------
    SplitError
        ``CL-SPLIT-LAYER``, with the nearest names.
    """
    names = {name: module for name, module in model.named_modules() if name}
    if isinstance(at, nn.Module):
        for name, module in names.items():
            if module is at:
                return name, module
        raise SplitError(
            f"The module given as layer ({type(at).__name__}) is not a part of "
            f"{type(model).__name__}. Take it from the same model object, or give its name; "
            "SplitModel.suggest(model) lists the names."
        )
    if not isinstance(at, str):
        raise SplitError(f"at must be a layer's name or module, got {type(at).__name__}.")
    for name in (at, at.removeprefix("module."), at.removeprefix("_orig_mod.")):
        if name in names:
            return name, names[name]
    near = difflib.get_close_matches(at, names, n=3, cutoff=0.5)
    near += [name for name in names if name.endswith(f".{at}") and name not in near][:3]
    top = [name for name, _ in model.named_children()]
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise SplitError(
        f"{type(model).__name__} has no layer {at!r}.{guess} Its outermost layers: "
        f"{', '.join(top[:20]) or 'none'}. SplitModel.suggest(model) lists all that can be cut."
    )


def suggest_layers(session: Session, inputs: Inputs | None) -> Any:
    """Tabulate the layers; see ``SplitModel.suggest``."""
    import pandas as pd

    model = session.model
    rows: list[dict[str, Any]] = []
    seen: dict[nn.Module, dict[str, Any]] = {}
    total = sum(p.numel() for p in model.parameters())
    for name, module in model.named_modules():
        if name and not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Dropout):
            seen[module] = {"name": name, "type": type(module).__name__, "runs": 0}
            rows.append(seen[module])
    spent: dict[int, int] = {}
    order: list[dict[str, Any]] = []

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        row = seen[module]
        row["runs"] += 1
        # By identity, so that weights shared between places count once.
        spent.update((id(p), p.numel()) for p in module.parameters())
        tensor = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            row["shape"] = tuple(tensor.shape)
            row["non_negative"] = bool(tensor.numel()) and float(tensor.min()) >= 0
            row["zeros"] = float((tensor == 0).double().mean()) if tensor.numel() else 0.0
            row["parameters_after"] = total - sum(spent.values())
            order.append(row)

    if inputs is None:
        return pd.DataFrame(rows, columns=["name", "type"])
    handles = [m.register_forward_hook(hook) for m in seen if not isinstance(m, torch.jit.ScriptModule)]
    try:
        with session.borrowed(), torch.no_grad():
            session.run(inputs)
    finally:
        for handle in handles:
            handle.remove()
    unique = list({id(row): row for row in order if row["runs"] == 1}.values())
    _judge(unique)
    return pd.DataFrame(unique, columns=list(_COLUMNS))


def _judge(rows: list[dict[str, Any]]) -> None:
    best: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    for index, row in enumerate(rows):
        shape = row["shape"]
        positions = 1
        for size in shape[2:] if len(shape) != 3 else shape[1:2]:
            positions *= size
        spatial = len(shape) >= 3 and positions > 1
        row["recommended"] = False
        if len(shape) < 2:
            row["fit"] = "no: one value"
        elif not row["parameters_after"]:
            row["fit"] = "no: nothing is learned after it"
        elif not spatial:
            row["fit"] = "no maps: positions are pooled"
        elif row["non_negative"]:
            row["fit"] = "good: non-negative, with positions"
        else:
            row["fit"] = "SemiNMF: negative values"
        if spatial and row["parameters_after"]:
            # The outermost of the layers that end at the same place has the shortest name.
            key = (row["non_negative"], -row["parameters_after"], index)
            if best is None or key > best[0]:
                best = (key, row)
    if best is not None:
        best[1]["recommended"] = True


def session_for(model: nn.Module) -> Session:
    """Make a plain session for `model` on its own device."""
    inner = unwrap(model)
    first = next(iter(inner.parameters()), None)
    device = first.device if first is not None else torch.device("cpu")
    return Session(inner, device, "float32", False)
