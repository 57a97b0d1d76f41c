"""f = h ∘ g: any classifier cut in two at a layer, without editing it.

``g`` maps inputs to the activations of a named layer and ``h`` maps such
activations to the model's outputs, the notation of Fel et al., *CRAFT: Concept
Recursive Activation FacTorization for Explainability* (CVPR 2023), section 3.
"""

from __future__ import annotations

__all__ = ["SplitModel"]

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from conceptlab.arrays import ArrayKind, ArrayLike, as_tensor, real_array, resolve_device
from conceptlab.errors import InputError, unknown_name
from conceptlab.models.axes import OneSizeError, moved_axes
from conceptlab.models.capture import capture
from conceptlab.models.checks import changed, checked_images, to_inputs
from conceptlab.models.faults import SplitWarning, mismatch_error, one_size, runs_error
from conceptlab.models.folding import Folded
from conceptlab.models.identity import describe_callable, weights_fingerprint
from conceptlab.models.joined import Joined
from conceptlab.models.outputs import Output, count_tensors, layer_tensor, names_of, select_logits
from conceptlab.models.replay import Replay
from conceptlab.models.session import Inputs, Session, unwrap
from conceptlab.models.shapes import Shapes
from conceptlab.models.suggest import find_layer, session_for, suggest_layers
from conceptlab.models.verify import check_alone, check_layout, distance
from conceptlab.progress import Progress, track
from conceptlab.provenance import fingerprint

if TYPE_CHECKING:
    import pandas as pd

_PRECISIONS = ("float32", "bfloat16")
_HALF = (torch.bfloat16, torch.float16)


class SplitModel:
    """A classifier cut at a layer: f(x) = h(g(x)).

    The model is borrowed for each pass under a lock and comes back as it was:
    training mode, hooks, gradients, weights, device and attributes, also after
    an exception. Passes run in evaluation mode and no gradient reaches the
    model's parameters; `g` and `h` are differentiable in their argument.

    Parameters
    ----------
    model : torch.nn.Module
        Any classifier. Data-parallel and compiled wrappers are looked through.
    at : str or torch.nn.Module
        The layer, by name or by the module itself. It must run exactly once in
        a pass. For CRAFT take the last layer that still has positions.
    output : str, int or callable, optional
        Where the scores are in what the model returns: a key such as
        ``"logits"``, an index, or a function. Needed when that is neither a tensor
        nor has a part named ``logits``, as the answers of transformers have.
    preprocess : callable, optional
        Turns a batch of images, channels-first floats in [0, 1], into the
        model's input. It is the first step of `g` and `f` (dicts go past it); keep it made of
        torch operations where maps at the input are wanted. For text, a
        function from a list of strings to a dict of tensors.
    class_names : sequence of str, optional
        One name for each output; by default the model's own, where it has an attribute
        ``class_names`` or a configuration with names (``config.id2label``).
    device : str or torch.device
        ``"auto"`` computes where the model is. Elsewhere, copies of the weights
        are used and the model stays where it is.
    precision : {"float32", "bfloat16"}
        ``"bfloat16"`` runs under autocast; answers are float32.
    channels_last : bool
        Run convolutions channels-last, on private copies of the weights; the
        answers agree with the plain ones to rounding.
    fold_batch_norm : bool
        In `g`, fold batch norms into the convolutions that they directly follow, on a
        private copy of the model: a sixth less work in a ResNet, the same answers to
        rounding. Only where a pass proves that nothing else uses what is folded.
    layout : str, optional
        The axes of the activations, such as ``"nchw"``, ``"nhwc"``, ``"ntc"``,
        ``"tnc"``, ``"nct"`` or ``"nc"``; found from a first pass by default.
    n_prefix : int, optional
        Number of tokens before the patches (class token, registers).
    grid : tuple of int, optional
        (height, width) of the patch tokens.

    Attributes
    ----------
    model : torch.nn.Module
        The user's model, unwrapped.
    layer : str
        Name of the layer.
    device : torch.device
        Where passes run.

    Raises
    ------
    SplitError
        No such layer (``CL-SPLIT-LAYER``); at the first pass, a layer that runs
        several times or never (``CL-SPLIT-RUNS``), an output without one clear
        tensor (``CL-SPLIT-OUTPUT``), an unknown layout (``CL-SPLIT-LAYOUT``).
    InputError
        Inputs that do not fit.

    Notes
    -----
    `g` stops the pass right after the layer. `h` runs the model's own code with
    the layer's output replaced; what was finished before the layer is not
    computed again. Mostly it is *proved* on the way that nothing goes round
    the layer (:attr:`closed`). Otherwise, as with attention masks, the values of
    a sample seen before stand in, and :meth:`check` measures what that costs.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> split = SplitModel(model, at="0")
    >>> images = torch.rand(5, 3, 8, 8)
    >>> activations = split.g(images)
    >>> tuple(activations.shape), split.layout, split.grid
    ((5, 4, 6, 6), 'nchw', (6, 6))
    >>> bool(torch.allclose(split.h(activations), split.f(images)))
    True
    """

    def __init__(
        self,
        model: nn.Module,
        at: str | nn.Module = "layer4",
        *,
        output: Output = None,
        preprocess: Callable[[Any], Any] | None = None,
        class_names: Any = None,
        device: str | torch.device = "auto",
        precision: str = "float32",
        channels_last: bool = False,
        fold_batch_norm: bool = False,
        layout: str | None = None,
        n_prefix: int | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model must be a torch.nn.Module, got {type(model).__name__}.",
                code="CL-INPUT-TYPE",
            )
        if precision not in _PRECISIONS:
            raise unknown_name("precision", precision, _PRECISIONS)
        self.model = unwrap(model)
        self.layer, self._layer = find_layer(self.model, at)
        self.output = output
        self.preprocess = preprocess
        self._names_given = class_names is not None
        names = names_of(self.model) if class_names is None else class_names
        self.class_names = None if names is None else [str(name) for name in names]
        plain = session_for(self.model)
        self.device = plain.device if device == "auto" else resolve_device(device)
        self.precision = precision
        self.channels_last = channels_last
        self.fold_batch_norm = fold_batch_norm
        self._asked = {"layout": layout, "n_prefix": n_prefix, "grid": grid}
        self._session = Session(self.model, self.device, precision, channels_last)
        self._folded = Folded(self._session, self._layer, self.layer) if fold_batch_norm else None
        asked = {"axes": layout, "n_prefix": n_prefix, "grid": grid}
        self._shapes = Shapes(self._session, self._layer, self.layer, self._select, asked)

    # ---------------------------------------------------------------- passes
    def g(self, x: Any) -> Any:
        """Compute the layer's activations.

        Parameters
        ----------
        x : tensor, ndarray or mapping of tensors
            Images of shape (n, 3, H, W), floats in [0, 1] when there is a
            `preprocess`, else what the model takes; for text a dict such as
            ``{"input_ids": ..., "attention_mask": ...}``.

        Returns
        -------
        torch.Tensor
            In the layer's own layout, float32 or float64, on :attr:`device`;
            NumPy in, NumPy out. Differentiable in `x`.
        """
        inputs = self._inputs(x)
        with self._session.borrowed():
            self._probe(inputs)
            activations = layer_tensor(self._capture(inputs), self.layer)
            self._shapes.remember(tuple(activations.shape), inputs)
        return _answer(x, activations)

    def h(self, activations: ArrayLike, *, inputs: Any = None) -> Any:
        """Map activations to the model's outputs.

        Parameters
        ----------
        activations : tensor or ndarray
            In the layer's own layout, any number of samples; `g`, `f` or
            `check` must have seen an input that gives this shape.
        inputs : optional
            The inputs the activations came from, sample by sample, or a single one for
            all. Only of use where values go round the layer, such as masks of padded text
            or numbers that join an image later: the model then runs on them, on several in full.

        Returns
        -------
        torch.Tensor of shape (n, n_outputs)
            NumPy in, NumPy out. Differentiable in `activations`.
        """
        given = None if inputs is None else self._inputs(inputs)
        with self._session.borrowed():
            if given is not None:
                self._probe(given)
            a = as_tensor(activations)
            replay = self._shapes.replay(tuple(a.shape), given)
            a = a.to(self.device, replay.activations.dtype)
            n = a.shape[replay.batch_axis]
            if given is not None and given.batch_size not in (1, n):
                raise InputError(
                    f"inputs has {given.batch_size} samples, but activations {n}. Give one input "
                    "for each, or one for all.",
                    code="CL-INPUT-SHAPE",
                )
            if given is not None and given.batch_size != n and not replay.closed:
                replay, given = self._shapes.replay_of(given), None
            result = replay(a, given)
        return _answer(activations, result)

    def f(self, x: Any) -> Any:
        """Run the whole model: scores of shape (n, n_outputs)."""
        inputs = self._inputs(x)
        with self._session.borrowed():
            self._probe(inputs)
            result = self._select(self._session.run(inputs))
        return _answer(x, result)

    def predict(
        self, images: Any, *, batch_size: int = 64, progress: Progress = None
    ) -> np.ndarray:
        """Predict the class of each input, in batches and without gradients.

        Parameters
        ----------
        images : tensor, ndarray or mapping of tensors
            As for `g`.
        batch_size : int
            Samples in a pass.
        progress : bool or callable, optional
            See :data:`conceptlab.progress.Progress`.

        Returns
        -------
        numpy.ndarray of shape (n,), int64
            Index of the highest output; with one output, whether it is positive.
        """
        whole = Inputs.of(images).map(lambda t: t) if isinstance(images, Mapping) else None
        if not hasattr(images, "__len__"):
            raise InputError(
                f"images cannot be a {type(images).__name__}; give a batch, as for g.",
                code="CL-INPUT-TYPE",
            )
        n = whole.batch_size if whole is not None else len(images)
        parts = []
        starts = range(0, n, batch_size)
        for start in track(starts, description="predict", progress=progress, unit="batch"):
            stop = min(start + batch_size, n)
            batch = (
                images[start:stop]
                if whole is None
                else whole.rows(torch.arange(start, stop)).kwargs
            )
            with torch.no_grad():
                scores = as_tensor(self.f(batch))
            found = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).long()
            parts.append(found.cpu())
        return np.asarray(torch.cat(parts).numpy()) if parts else np.zeros(0, np.int64)

    def check(self, x: Any, *, tolerance: float | None = None) -> float:
        """Measure whether h(g(x)) = f(x), and raise where it is not, or is of no use.

        Parameters
        ----------
        x : as for `g`
            A few typical inputs. Mirrored copies of images are tested too, so
            that one image is enough.
        tolerance : float, optional
            Largest difference allowed, relative to the largest output; by
            default 1e-4, and 0.05 in half precision.

        Returns
        -------
        float
            The largest relative difference.

        Raises
        ------
        SplitError
            ``CL-SPLIT-MISMATCH``, with the likely causes; ``CL-SPLIT-BATCH``, where an
            answer depends on the other samples in the batch; ``CL-SPLIT-LAYOUT``, where
            an input of another size shows that channels and positions were mistaken.

        Warns
        -----
        SplitWarning
            Where the model takes inputs of one size only, so that the layout could not be
            looked at in this way.
        """
        if tolerance is None:
            half = self.precision == "bfloat16" or self._session.dtype in _HALF
            tolerance = 0.05 if half else 1e-4
        inputs = self._inputs(x)
        worst = 0.0
        with self._session.borrowed(), torch.no_grad():
            first = self._probe(inputs)
            if isinstance(x, Joined):
                # What lies beside an image may join it later, the image itself may not.
                other = self._inputs(x.of(changed(x.images)))
                pairs: list[tuple[Inputs, Inputs | None]] = [(inputs, other), (other, inputs)]
            else:
                pairs = [(inputs, None), (inputs.map(changed), None)]
            for batch, beside in pairs:
                worst = max(worst, self._check_cut(batch, tolerance, beside))
            name = type(self.model).__name__
            check_alone(lambda x: self._select(self._session.run(x)), name, inputs, tolerance)
            sample, shape = inputs.rows(torch.tensor([0])), tuple(first.activations.shape)
            try:
                moved = moved_axes(self._session, self._layer, sample, shape)
            except OneSizeError as error:
                if len(self.layout) > 2 and self._asked["layout"] is None:
                    warnings.warn(one_size(name, self.layout, error), SplitWarning, stacklevel=2)
                moved = None
            check_layout(self.layout, shape, self.layer, moved)
        return worst

    def _check_cut(self, batch: Inputs, tolerance: float, beside: Inputs | None) -> float:
        """Compare h(g(x)) with f(x); h on the inputs `beside`, where given."""
        value = self._capture(batch)
        activations = layer_tensor(value, self.layer)
        self._shapes.remember(tuple(activations.shape), batch)
        whole = self._select(self._session.run(batch))
        again = self._shapes.replay(tuple(activations.shape), None)(activations, beside)
        worst = distance(again, whole)
        if worst > tolerance:
            noise = distance(self._select(self._session.run(batch)), whole)
            raise mismatch_error(
                self.layer,
                worst,
                tolerance,
                noisy=noise > tolerance / 10,
                several=count_tensors(value) > 1,
            )
        return worst

    # ------------------------------------------------------------- positions
    def to_positions(self, activations: ArrayLike) -> Any:
        """Permute activations to channels last, (n, *positions, c).

        Tokens keep their axis whole, prefix tokens included, so that
        :meth:`from_positions` is the exact inverse.
        """
        return self._permute(activations, self._shapes.layout().to_positions)

    def from_positions(self, activations: ArrayLike) -> Any:
        """Permute (n, *positions, c) back to the layer's own layout."""
        return self._permute(activations, self._shapes.layout().from_positions)

    def spatial(self, values: Any) -> Any:
        """Lay values of positions out on the image's plane.

        Parameters
        ----------
        values : tensor or ndarray of shape (n, *positions, k)
            Such as the coefficients U of every position. Prefix tokens are left
            out.

        Returns
        -------
        tensor or ndarray of shape (n, height, width, k), or None
            None for text and for layers without positions.
        """
        kind = isinstance(values, torch.Tensor)
        given = values if kind else torch.as_tensor(real_array(values))
        found = self._shapes.layout(tuple(given.shape)[1:-1]).spatial(given)
        return found if found is None or kind else found.numpy()

    @property
    def layout(self) -> str:
        """Axes of the activations: ``"nc"``, ``"nchw"``, ``"ntc"``, ..."""
        return self._shapes.layout().axes

    @property
    def grid(self) -> tuple[int, int] | None:
        """(height, width) of the positions on the image's plane; None without one."""
        return self._shapes.layout().grid

    @property
    def n_prefix(self) -> int:
        """Number of tokens before the patches."""
        return self._shapes.layout().n_prefix

    @property
    def n_channels(self) -> int:
        """Number of channels c."""
        return int(self._shapes.first.activations.shape[self.layout.index("c")])

    @property
    def n_outputs(self) -> int:
        """Number of the model's outputs."""
        return int(self._shapes.first.logits.shape[1])

    @property
    def closed(self) -> bool:
        """Whether it is proved that outputs depend on the activations only."""
        return self._shapes.first.closed

    # ------------------------------------------------------------- the model
    def _settings(self) -> dict[str, Any]:
        """All parameters but the model and the layer, and those of the activations' axes."""
        names = "output preprocess class_names device precision channels_last fold_batch_norm"
        return {name: getattr(self, name) for name in names.split()}

    def __reduce__(self) -> tuple[Any, ...]:
        # Locks and hooks stay behind; the copy learns again from the samples.
        settings = {**self._settings(), **self._asked}
        return _again, (self.model, self.layer, settings, self._shapes.samples())

    def at_layer(self, at: str | nn.Module, model: nn.Module | None = None) -> SplitModel:
        """Cut the same model, or another one, at a layer, with the same settings."""
        return SplitModel(self.model if model is None else model, at, **self._settings())

    @staticmethod
    def suggest(model: nn.Module, example: Any = None, *, output: Output = None) -> pd.DataFrame:
        """Tabulate the layers where `model` can be cut.

        Parameters
        ----------
        model : torch.nn.Module
            The classifier.
        example : tensor, ndarray or mapping of tensors, optional
            One or a few inputs as the model takes them. Without, only names and
            types are known.
        output : str, int or callable, optional
            As for :class:`SplitModel`.

        Returns
        -------
        pandas.DataFrame
            One row a layer, in the order of the pass: ``name``, ``type``,
            ``shape`` of the output, ``non_negative``, share of ``zeros``,
            ``parameters_after``, ``positions_used`` (share of the positions with an
            effect on the output), ``fit`` for CRAFT in words, and ``recommended``:
            the last layer, non-negative if there is one, with positions that
            count and with nothing that goes round it.
        """
        session = session_for(model)
        inputs = None if example is None else to_inputs(example, session.device, session.dtype)
        return suggest_layers(session, inputs, output)

    @property
    def fingerprint(self) -> str:
        """sha256 of weights, layer, preprocessing, output and precision."""
        return fingerprint(
            weights_fingerprint(self.model),
            self.layer,
            describe_callable(self.preprocess),
            describe_callable(self.output) if callable(self.output) else repr(self.output),
            self.precision,
        )

    def learn_from(self, samples: list[Inputs]) -> None:
        """Take samples seen by another cut of the same model at the same layer."""
        self._shapes.wait([x.map(lambda tensor: tensor.to(self.device)) for x in samples])

    def __sklearn_clone__(self) -> SplitModel:
        return self

    def __repr__(self) -> str:
        return f"SplitModel({type(self.model).__name__}, at={self.layer!r}, device='{self.device}')"

    # --------------------------------------------------------------- private
    def _inputs(self, x: Any) -> Inputs:
        # A dict is what the model takes already, such as the tokens of texts.
        if isinstance(x, Joined):
            images: Any = checked_images(x.images)
            if self.preprocess is not None:
                images = self.preprocess(images)
            x = x.arguments(self.model, images)
        elif self.preprocess is not None and not isinstance(x, Mapping):
            if not isinstance(x, list | tuple):
                x = checked_images(as_tensor(x))
            x = self.preprocess(x)
        return to_inputs(x, self.device, self._session.dtype)

    def _capture(self, inputs: Inputs) -> Any:
        if self._folded is not None:
            value = self._folded.capture(inputs)
        else:
            value = capture(self._session, self._layer, inputs)
        if value is None:
            raise runs_error(self.model, self.layer, 0)
        return value

    def _probe(self, inputs: Inputs) -> Replay:
        first = self._shapes.probe(inputs)
        if not self._names_given and len(self.class_names or ()) != first.logits.shape[1]:
            self.class_names = None
        if self.class_names is not None and len(self.class_names) != first.logits.shape[1]:
            raise InputError(
                f"class_names has {len(self.class_names)} names, but the model has "
                f"{first.logits.shape[1]} outputs.",
                code="CL-INPUT-LABELS",
            )
        return first

    def _select(self, value: Any) -> torch.Tensor:
        return _float(select_logits(value, self.output))

    def _permute(self, values: ArrayLike, move: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        if isinstance(values, torch.Tensor):
            return move(values)
        return move(torch.as_tensor(real_array(values))).numpy()


def _again(
    model: nn.Module, layer: str, settings: dict[str, Any], samples: list[Inputs]
) -> SplitModel:
    """Make a copy of a split model, from another process or beside it."""
    split = SplitModel(model, layer, **settings)
    split.learn_from(samples)
    return split


def _float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor


def _answer(like: Any, tensor: torch.Tensor) -> Any:
    tensor = _float(tensor)
    return ArrayKind.of(like).restore(tensor) if isinstance(like, np.ndarray) else tensor
