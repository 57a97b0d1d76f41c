"""The part of a model after a layer, as a function of the layer's activations.

The model's own code is run again with the layer's output replaced. Modules that
were finished before the layer return what was recorded on a sample, so they cost
nothing. First this is tried with ghosts (shapes without values, see
:mod:`conceptlab.models.ghost`): where the answer is real, it is proved not to
depend on anything that goes round the layer. Where the model needs values (a
mask that is looked at, a skip connection) the recorded ones are used, and
``SplitModel.check`` tells whether that is good enough.
"""

from __future__ import annotations

__all__ = ["Replay"]

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from conceptlab.models.capture import Recording, record
from conceptlab.models.ghost import Ghost, haunt
from conceptlab.models.outputs import layer_tensor, replace_layer_tensor
from conceptlab.models.session import Inputs, Session

Fill = Callable[[Any], Any]


class Replay:
    """h for activations of one shape.

    Parameters
    ----------
    session : Session
        Borrowed by the caller, here and at every call.
    layer : torch.nn.Module
        Where the model is cut.
    sample : Inputs
        One sample.
    select : callable
        Takes the logits (n, n_outputs) out of what the model returns.

    Attributes
    ----------
    runs : int
        How often the layer ran; below, everything is for exactly once.
    activations : torch.Tensor
        The layer's output for the sample.
    batch_axis : int
        Its axis that follows the number of samples.
    follows : bool
        Whether that axis is as long as there are samples.
    alone : bool
        Whether the output for a sample was the same whatever the others in its batch were.
    noisy : bool
        Whether two passes of one sample differed.
    logits : torch.Tensor of shape (1, n_outputs)
        The model's answer for the sample.
    closed : bool
        Whether h is proved to depend on the activations only.
    mutates : bool
        Whether the model changes the layer's output in place.
    grids : list of tuple of int
        Sizes of the feature maps met before the layer ended.
    """

    def __init__(
        self,
        session: Session,
        layer: nn.Module,
        sample: Inputs,
        select: Callable[[Any], torch.Tensor],
    ) -> None:
        self.session, self.layer, self.select = session, layer, select
        self.closed = False
        self.alone = self.follows = True
        self.noisy = False
        self.mutates = True
        self.batch_axis = 0
        self._ghosts = self._own = False
        # Inference tensors have no version counter, which tells of in-place changes.
        with torch.inference_mode(False), torch.no_grad():
            sample = sample.map(torch.clone)
            one = record(session, layer, sample, stop=False)
            self.runs, self.grids = one.runs, one.grids
            if self.runs == 1:
                self.logits = select(one.output)
                self._prepare(one, sample)

    def _prepare(self, one: Recording, sample: Inputs) -> None:
        pair = _beside_another(sample)
        two = record(self.session, self.layer, pair, stop=True)
        name = type(self.layer).__name__
        self.activations = layer_tensor(one.layer_output, name)
        both = layer_tensor(two.layer_output, name)
        axis = _grown(self.activations, both)
        self.batch_axis = axis or 0
        self.follows = axis is not None and self.activations.shape[axis] == 1
        if self.follows and _differ(both.narrow(self.batch_axis, 0, 1), self.activations):
            again = record(self.session, self.layer, sample, stop=True)
            self.noisy = _differ(layer_tensor(again.layer_output, name), self.activations)
            self.alone = self.noisy
        self._inputs = _pair((sample.args, sample.kwargs), (pair.args, pair.kwargs))
        self._skeleton = _pair(one.layer_output, two.layer_output)
        self._records: dict[nn.Module, list[Any]] = {}
        for call, other in zip(one.before, two.before, strict=False):
            self._records.setdefault(call.module, []).append(_pair(call.output, other.output))
        # A user's hook on a module that is stood in for must never see a ghost.
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in [*self._records, self.layer])
        if not hooked and len(one.before) == len(two.before):
            self._try_ghosts()
        if self._ghosts:
            for leaf in tree_flatten((self._inputs, self._skeleton, list(self._records.values())))[
                0
            ]:
                if isinstance(leaf, _Grown):
                    leaf.forget()
        else:
            self._watch_in_place()

    def _try_ghosts(self) -> None:
        """Run without values; keep to it when the answer is real and right."""
        a = self.activations
        # Others beside it, so that an answer which hangs on the batch is seen.
        several = torch.cat([a, a, a.flip(-1) / 2], dim=self.batch_axis)
        given = several.clone()
        try:
            found = self._run(given, 3, ghosts=True)
        except Exception:  # a model's code may do anything with values that are not there
            return
        if isinstance(found, Ghost) or found.shape != (3, self.logits.shape[1]):
            return
        if _close(found[:2], self.logits):
            self.closed = self._ghosts = True
            self.mutates = given._version > 0
            return
        if _differ(found[:2], self.logits):
            self.noisy = self.noisy or _differ(self._run(several, 3, ghosts=True), found)
            self.alone = self.noisy

    def _watch_in_place(self) -> None:
        """Find out whether the model writes into the activations or into what was recorded."""
        probe = self.activations.clone()
        given: list[torch.Tensor] = []
        self._own = True
        try:
            self._run(probe, 1, ghosts=False, given=given)
        except Exception:  # the same error, if it is one, meets the user in h
            return
        self.mutates = probe._version > 0
        self._own = any(tensor._version > 0 for tensor in given)

    def __call__(self, activations: torch.Tensor, inputs: Inputs | None = None) -> torch.Tensor:
        """Apply the rest of the model.

        Parameters
        ----------
        activations : torch.Tensor
            In the layer's own layout.
        inputs : Inputs, optional
            The inputs which the activations came from. The model then runs on
            them in full, so that what goes round the layer is right.

        Returns
        -------
        torch.Tensor of shape (n, n_outputs)
        """
        if self.mutates:
            activations = activations.clone()
        if inputs is not None and not self.closed:
            return self._patched(activations, inputs, None)
        return self._run(activations, int(activations.shape[self.batch_axis]), ghosts=self._ghosts)

    def _run(
        self,
        activations: torch.Tensor,
        n: int,
        *,
        ghosts: bool,
        given: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        def fill(value: Any) -> Any:
            if not isinstance(value, _Grown):
                return value
            if ghosts:
                return value.ghost(n)
            tensor = value.values(n, own=self._own)
            if given is not None:
                given.append(tensor)
            return tensor

        args, kwargs = _filled(fill, self._inputs)
        return self._patched(activations, Inputs(args, kwargs), fill)

    def _patched(
        self, activations: torch.Tensor, inputs: Inputs, fill: Fill | None
    ) -> torch.Tensor:
        """Run the model with the layer's output replaced and, given `fill`, the rest stood in."""
        owner = threading.get_ident()
        reached = False
        position: dict[nn.Module, int] = {}

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            nonlocal reached
            if threading.get_ident() != owner:
                return output
            reached = True
            return replace_layer_tensor(output, activations)

        def stub(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def stand_in(*args: Any, **kwargs: Any) -> Any:
                if threading.get_ident() != owner or reached or fill is None:
                    return forward(*args, **kwargs)
                if module is self.layer:
                    return _filled(fill, self._skeleton)
                index = position.get(module, 0)
                position[module] = index + 1
                return _filled(fill, self._records[module][index])

            return stand_in

        targets = [] if fill is None else [*self._records, self.layer]
        saved = [(m, m.__dict__.get("forward"), "forward" in m.__dict__) for m in targets]
        handle = self.layer.register_forward_hook(hook)
        try:
            for module in targets:
                module.__dict__["forward"] = stub(module, module.forward)
            return self.select(self.session.run(inputs))
        finally:
            handle.remove()
            for module, forward, had in saved:
                module.__dict__.pop("forward", None)
                if had:
                    module.__dict__["forward"] = forward


def _beside_another(sample: Inputs) -> Inputs:
    """Put a second sample beside one: images mirrored, words the same."""

    def both(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.ndim or tensor.shape[0] != n:
            return tensor
        image = tensor.is_floating_point() and tensor.ndim > 2
        return torch.cat([tensor, tensor.flip(-1) if image else tensor])

    n = sample.batch_size
    return sample.map(both)


def _gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Difference of two answers, in what batches of another size and half precision may do."""
    one, other = one.float(), other.float()
    return float((one - other).abs().max()) / (2e-2 * (float(other.abs().max()) + 1e-6))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return _gap(one, other) <= 1


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return _gap(one, other) > 1  # neither, where there are NaN


def _filled(fill: Fill, value: Any) -> Any:
    """Fill all tensors in `value`, which mostly is one."""
    return fill(value) if isinstance(value, _Grown) else tree_map(fill, value)


class _Grown:
    """A recorded tensor that can be had for any number of samples."""

    def __init__(self, one: torch.Tensor, two: torch.Tensor) -> None:
        self.one = one.detach()
        self.axis = _grown(one, two)
        self.device = one.device
        self._last: Ghost | None = None

    def values(self, n: int, *, own: bool) -> torch.Tensor:
        if self.axis is None:
            return self.one.clone() if own else self.one
        if self.one.shape[self.axis] != 1:
            return torch.cat([self.one] * n, dim=self.axis)
        sizes = [-1] * self.one.ndim
        sizes[self.axis] = n
        grown = self.one.expand(sizes)
        return grown.clone() if own else grown

    def ghost(self, n: int) -> Ghost:
        shape = list(self.one.shape)
        if self.axis is not None:
            shape[self.axis] *= n
        last = self._last
        # Shapes that a model changed in place are no longer these.
        if last is None or not list(last.shape) == list(last.meta.shape) == shape:
            self._last = last = haunt(tuple(shape), self.one.dtype, self.device)
        return last

    def forget(self) -> None:
        self.one = torch.empty(self.one.shape, dtype=self.one.dtype, device="meta")


def _grown(one: torch.Tensor, two: torch.Tensor) -> int | None:
    """Find the axis that doubled with the number of samples."""
    if one.ndim != two.ndim:
        return None
    axes = [d for d in range(one.ndim) if one.shape[d] != two.shape[d]]
    if len(axes) != 1 or two.shape[axes[0]] != 2 * one.shape[axes[0]]:
        return None
    return axes[0]


def _pair(one: Any, two: Any) -> Any:
    """Pair the tensors of one sample with those of two, leaf by leaf."""
    leaves, spec = tree_flatten(one)
    others, other_spec = tree_flatten(two)
    if spec != other_spec:
        others = leaves
    pairs = [
        _Grown(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else x
        for x, y in zip(leaves, others, strict=True)
    ]
    return tree_unflatten(pairs, spec)
