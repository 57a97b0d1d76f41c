"""Which layers of a model can be cut, and which is best for CRAFT."""

from __future__ import annotations

__all__ = ["find_layer", "session_for", "suggest_layers"]

import difflib
import math
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from conceptlab.errors import InputError, SplitError
from conceptlab.models.outputs import Output, layer_tensor, select_logits
from conceptlab.models.plain import plain_pass
from conceptlab.models.replay import Replay
from conceptlab.models.session import Inputs, Session, unwrap

if TYPE_CHECKING:
    import pandas as pd

_TRIES = 24
_COLUMNS = (
    "name",
    "type",
    "shape",
    "non_negative",
    "zeros",
    "parameters_after",
    "positions_used",
    "fit",
    "recommended",
)


def find_layer(model: nn.Module, at: str | nn.Module) -> tuple[str, nn.Module]:
    """Find a layer by name or by the module itself.

    Raises
    ------
    SplitError
        ``CL-SPLIT-LAYER``, with the nearest names.
    """
    names: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if name:
            # A compiled layer goes by the name of what was compiled.
            names.setdefault(name.replace("._orig_mod", ""), module)
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


def suggest_layers(session: Session, inputs: Inputs | None, output: Output) -> pd.DataFrame:
    """Tabulate the layers; see ``SplitModel.suggest``."""
    import pandas as pd

    model = session.model
    seen: dict[nn.Module, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if name.endswith("_orig_mod"):  # what a compiled layer compiles; the layer stands for it
            continue
        if name and not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Dropout):
            name = name.replace("._orig_mod", "")
            seen[module] = {"name": name, "type": type(module).__name__, "runs": 0}
    if inputs is None:
        return pd.DataFrame(list(seen.values()), columns=["name", "type"])
    rows = _run_once(session, inputs, seen, output)
    for row in rows:
        row["fit"] = _fitness(row)
        row["recommended"] = False
    good = [row for row in rows if row["fit"].startswith(("good", "SemiNMF"))]
    # Late layers first, non-negative ones in the last third before all; of equals, the outermost.
    late = {row["name"] for row in good[-max(len(good) // 3, 1) :] if row["non_negative"]}
    place = {row["name"]: index for index, row in enumerate(rows)}
    good.sort(
        key=lambda row: (row["name"] in late, -row["parameters_after"], place[row["name"]]),
        reverse=True,
    )
    # Blocks with many inner layers must not use all tries up.
    first = [row for row in good if row["name"] in late][: _TRIES // 2]
    then = [row for row in good if row["name"] not in late][: _TRIES - len(first)]
    for row in first + then:
        if _is_cut(session, row["name"], inputs, output):
            row["recommended"] = True
            break
        row["fit"] = "no: values go round it"
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def session_for(model: nn.Module) -> Session:
    """Make a plain session for `model` on its own device."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model must be a torch.nn.Module, got {type(model).__name__}.", code="CL-INPUT-TYPE"
        )
    inner = unwrap(model)
    first = next(iter(inner.parameters()), None)
    device = first.device if first is not None else torch.device("cpu")
    return Session(inner, device, "float32", False)


def _run_once(
    session: Session, inputs: Inputs, seen: dict[nn.Module, dict[str, Any]], output: Output
) -> list[dict[str, Any]]:
    """Fill the rows of `seen` by one pass and one gradient; give those that ran once."""
    model = session.model
    total = sum(p.numel() for p in model.parameters())
    spent: dict[int, int] = {}
    order: list[dict[str, Any]] = []
    tensors: dict[str, torch.Tensor] = {}
    owner = threading.get_ident()

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() != owner:
            return
        row = seen[module]
        row["runs"] += 1
        # By identity, so that weights shared between places count once.
        spent.update((id(p), p.numel()) for p in weights.get(module, ()))
        try:
            tensor = layer_tensor(output, row["name"])
        except SplitError:
            return
        if tensor.is_floating_point() and tensor.numel():
            row["shape"] = tuple(tensor.shape)
            row["non_negative"] = float(tensor.detach().min()) >= 0
            row["zeros"] = float((tensor.detach() == 0).double().mean())
            row["parameters_after"] = total - sum(spent.values())
            tensors[row["name"]] = tensor
            order.append(row)

    handles = []
    with session.borrowed(), torch.inference_mode(False), torch.enable_grad():
        # Taken before the pass, during which stand-ins take the parameters' places.
        weights = {module: list(module.parameters()) for module in seen}
        live = {
            name: p.detach().requires_grad_(p.is_floating_point())
            for name, p in model.named_parameters(remove_duplicate=False)
        }
        try:
            for module in seen:
                if not isinstance(module, torch.jit.ScriptModule):
                    handles.append(module.register_forward_hook(hook))
            with plain_pass(model):
                if any(isinstance(module, torch.jit.ScriptModule) for module in seen):
                    answer = session.run(inputs)  # whose weights cannot be stood in for
                else:
                    answer = torch.func.functional_call(
                        model, live, inputs.args, inputs.kwargs, tie_weights=False
                    )
        finally:
            for handle in handles:
                handle.remove()
    unique = list({id(row): row for row in order if row["runs"] == 1}.values())
    _measure_use(answer, output, unique, tensors)
    return unique


def _measure_use(
    answer: Any, output: Output, rows: list[dict[str, Any]], tensors: dict[str, torch.Tensor]
) -> None:
    """Fill in the share of positions that the output depends on at all."""
    for row in rows:
        row["positions_used"] = None
    try:
        logits = select_logits(answer, output)
    except SplitError:
        return
    usable = [row for row in rows if tensors[row["name"]].requires_grad]
    if not usable or not logits.requires_grad:
        return
    # Unequal weights, because the sum of a softmax has no gradient.
    weights = torch.linspace(1.0, 2.0, logits.numel(), device=logits.device, dtype=logits.dtype)
    gradients = torch.autograd.grad(
        (logits * weights.reshape(logits.shape)).sum(),
        [tensors[row["name"]] for row in usable],
        allow_unused=True,
    )
    alive = any(g is not None and bool(g.abs().max() > 0) for g in gradients)
    for row, gradient in zip(usable, gradients, strict=True):
        if alive and len(row["shape"]) > 2:
            row["positions_used"] = 0.0
            if gradient is not None:
                axis = 2 if len(row["shape"]) == 3 else 1
                row["positions_used"] = float((gradient.abs().amax(axis) > 0).double().mean())


def _fitness(row: dict[str, Any]) -> str:
    shape = row["shape"]
    positions = math.prod(shape[2:])
    if len(shape) == 3 and shape[2] > 1:  # tokens; (n, c, 1) are channels after a pooling
        positions = shape[1]
    if len(shape) < 2:
        return "no: one value"
    if not row["parameters_after"]:
        return "no: nothing is learned after it"
    if len(shape) == 2 or positions == 1:
        return "no maps: positions are pooled"
    if row["positions_used"] is not None and row["positions_used"] < 0.5:
        return "no maps: most positions have no effect"
    return (
        "good: non-negative, with positions" if row["non_negative"] else "SemiNMF: negative values"
    )


def _is_cut(session: Session, name: str, inputs: Inputs, output: Output) -> bool:
    """Whether nothing goes round the layer."""

    def select(value: Any) -> torch.Tensor:
        return select_logits(value, output)

    layer = session.model.get_submodule(name)
    try:
        with session.borrowed():
            return Replay(session, layer, inputs.rows(torch.tensor([0])), select).closed
    except SplitError:
        return True  # the output is not known, so nothing can be told
