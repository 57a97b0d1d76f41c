"""Batch norms folded into the convolutions before them, on a private copy of the model.

In evaluation mode a batch norm is an affine map of each channel, and so is part of
a convolution that it follows directly (Jacob et al., *Quantization and Training of
Neural Networks*, CVPR 2018, equation 14). The user's model is never changed.
"""

from __future__ import annotations

__all__ = ["Folded", "foldable_pairs"]

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from conceptlab.models.capture import capture, copied
from conceptlab.models.identity import edition
from conceptlab.models.outputs import layer_tensor
from conceptlab.models.session import Inputs, Session

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What may look at a convolution's output without using its values.
_LOOKS = {"size", "dim", "is_floating_point", "numel", "is_contiguous", "stride", "type"}
_TRAITS = ("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_cuda", "is_sparse")


class _Uses(TorchFunctionMode):
    """Counts in how many calls of torch each tensor takes part, by identity."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[int, int] = {}
        self.watched: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not _only_looks(func):
            for leaf in tree_flatten((args, kwargs or {}))[0]:
                if id(leaf) in self.watched:
                    self.counts[id(leaf)] = self.counts.get(id(leaf), 0) + 1
        return func(*args, **(kwargs or {}))


def _only_looks(func: Any) -> bool:
    if getattr(func, "__name__", "") in _LOOKS:
        return True
    owner = getattr(func, "__self__", None)
    return any(owner is getattr(torch.Tensor, name, None) for name in _TRAITS)


def foldable_pairs(
    session: Session, layer: nn.Module, inputs: Inputs
) -> tuple[list[tuple[str, str]], Any]:
    """Find convolutions whose output is used by one batch norm and by nothing else.

    Parameters
    ----------
    session : Session
        Already borrowed by the caller.
    layer : torch.nn.Module
        Where the model is cut; what it returns is never folded.
    inputs : Inputs
        A sample to run the model on.

    Returns
    -------
    pairs : list of tuple of str
        Names of convolution and batch norm. Empty for a model with hooks of its
        own, which might look at what is folded.
    output : object
        What the layer gave on the way.
    """
    modules = dict(session.model.named_modules(remove_duplicate=False))
    if any(m._forward_hooks or m._forward_pre_hooks for m in modules.values()):
        return [], None
    names: dict[int, list[str]] = {}
    for name, module in modules.items():
        names.setdefault(id(module), []).append(name)
    uses = _Uses()
    runs: dict[int, int] = {}
    # Tensors are held to the end, so that no identity is given twice.
    made: dict[int, tuple[nn.Module, torch.Tensor]] = {}
    taken: list[tuple[nn.Module, nn.Module, int]] = []
    shown: dict[int, Any] = {}
    given: list[Any] = []

    def enter(module: nn.Module, args: Any) -> None:
        runs[id(module)] = runs.get(id(module), 0) + 1
        if isinstance(module, _NORMS) and len(args) == 1 and id(args[0]) in made:
            taken.append((made[id(args[0])][0], module, id(args[0])))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if module is layer:
            given.append(copied(output))
        if type(module) in _CONVS and isinstance(output, torch.Tensor) and id(output) not in made:
            made[id(output)] = (module, output)
            uses.watched.add(id(output))
            if module is layer:
                shown[id(output)] = output
        else:
            shown.update((id(leaf), leaf) for leaf in tree_flatten(output)[0])

    hooks = []
    for module in session.model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            hooks.append(module.register_forward_pre_hook(enter))
            hooks.append(module.register_forward_hook(leave))
    try:
        with torch.no_grad(), uses:
            session.run(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    pairs = [
        (names[id(conv)][0], names[id(norm)][0])
        for conv, norm, tensor in taken
        if type(norm) in _NORMS
        and norm.track_running_stats
        and runs[id(conv)] == runs[id(norm)] == 1
        and len(names[id(conv)]) == len(names[id(norm)]) == 1
        and uses.counts.get(tensor) == 1
        and tensor not in shown
        and norm is not layer
    ]
    return pairs, given[0] if given else None


class Folded:
    """A private copy of a model with its batch norms folded, for passes up to a layer.

    The copy is made again when the user's weights were edited. Where a copy
    cannot be made, or answers differently, the model itself is used.

    Parameters
    ----------
    session : Session
        Of the user's model.
    layer : torch.nn.Module
        Where it is cut.
    name : str
        Name of the layer.

    Attributes
    ----------
    pairs : list of tuple of str, or None
        What was folded; None before the first pass.
    """

    def __init__(self, session: Session, layer: nn.Module, name: str) -> None:
        self.session, self.layer, self.name = session, layer, name
        self.pairs: list[tuple[str, str]] | None = None
        self._seen: list[tuple[torch.Tensor, Any]] = []
        self._twin: tuple[Session, nn.Module] | None = None

    def capture(self, inputs: Inputs) -> Any:
        """Run up to the layer; see :func:`conceptlab.models.capture.capture`."""
        if self.pairs is None or not self._current():
            self._prepare(inputs)
        if self._twin is None:
            return capture(self.session, self.layer, inputs)
        session, layer = self._twin
        return capture(session, layer, inputs)

    def _weights(self) -> list[tuple[torch.Tensor, Any]]:
        model = self.session.model
        return [(t, edition(t)) for t in [*model.parameters(), *model.buffers()]]

    def _current(self) -> bool:
        now = self._weights()
        return len(now) == len(self._seen) and all(
            a is b and v == w for (a, v), (b, w) in zip(now, self._seen, strict=True)
        )

    def _prepare(self, inputs: Inputs) -> None:
        sample = inputs.rows(torch.tensor([0])).map(lambda t: t.detach().clone())
        self._twin, self._seen = None, self._weights()
        self.pairs, plain = foldable_pairs(self.session, self.layer, sample)
        if not self.pairs:
            return
        try:
            twin = copy.deepcopy(self.session.model)
        except Exception:  # a model's parts may refuse to be copied, in any way
            self.pairs = []
            return
        twin.requires_grad_(False)
        for conv, norm in self.pairs:
            fused = fuse_conv_bn_eval(_get(twin, conv), _get(twin, norm))
            _set(twin, conv, fused.requires_grad_(False))
            _set(twin, norm, nn.Identity())
        own = self.session
        twin.to(own.device)
        if own.channels_last:  # now, so that no pass makes another copy of the weights
            for tensor in [*twin.parameters(), *twin.buffers()]:
                if tensor.ndim == 4:
                    tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        session = Session(twin, own.device, own.precision, own.channels_last)
        layer = _get(twin, self.name)
        with torch.no_grad():
            folded = capture(session, layer, sample)
        tolerance = 0.05 if own.precision == "bfloat16" else 1e-4
        if _differs(plain, folded, self.name, tolerance):
            self.pairs = []
            return
        self._twin = session, layer


def _differs(plain: Any, folded: Any, name: str, tolerance: float) -> bool:
    a, b = layer_tensor(plain, name).float(), layer_tensor(folded, name).float()
    scale = float(a.abs().max()) + 1e-12
    return not float((a - b).abs().max()) <= tolerance * scale


def _get(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
