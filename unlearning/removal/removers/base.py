"""What a remover is, and how it is run: hole, padding, checks, compositing, cache."""

from __future__ import annotations

__all__ = ["CallableRemover", "Remover", "RemoverSetup"]

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from conceptlab.arrays import ArrayKind, ArrayLike, as_tensor
from conceptlab.datasets.images import as_image_batch
from conceptlab.errors import ConceptlabError, InputError, RemoverError
from conceptlab.models.identity import describe_callable, weights_fingerprint
from conceptlab.provenance import fingerprint
from unlearning.removal.cache import RemovalCache
from unlearning.removal.masks import as_masks, check_holes, grow

_LIGHT = 0.02  # of a picture that is not black itself
_SLACK = 2e-3  # overshoot of resampling and of half precision; clipped


class Remover:
    """Base of all removers; a subclass gives :meth:`remove`.

    Attributes
    ----------
    name : str
        For tables.
    version : str
        Changes when results change; part of the cache's keys. Of a class that gives none, the
        code of :meth:`remove` and the public attributes count.
    deterministic : bool
        Whether the seed is ignored; then images are filled many at a time. Others, also
        those that say nothing, are called for one image at a time, each with a seed of its
        own, so that results depend on no batch and a stopped run ends at the same bits.
    pad_multiple : int
        Images are padded by reflection until their sides are multiples of it.
    least_dilation : int
        Dilation of exact masks below which results collapse; reports then say so.
    needs_truth : bool
        Whether :meth:`remove` takes the true removal as a fourth argument.

    Examples
    --------
    >>> from unlearning.removal.removers import MeanFill
    >>> isinstance(MeanFill(), Remover), MeanFill().name
    (True, 'mean_fill')
    """

    name: str = "remover"
    version: str = "1"
    deterministic: bool = False
    pad_multiple: int = 1
    needs_truth: bool = False
    least_dilation: int = 0

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> Any:
        """Fill the holes.

        Parameters
        ----------
        images : Tensor of shape (n, 3, H, W), float32 in [0, 1], RGB
            Not to be changed.
        masks : Tensor of shape (n, 1, H, W), bool
            True is what to remove.
        seed : int
            Of everything random in it.

        Returns
        -------
        array of the images' shape, in [0, 1]
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class CallableRemover(Remover):
    """Any function as a remover.

    Parameters
    ----------
    fn : callable
        ``fn(images, masks, seed)``; see :meth:`Remover.remove`.
    name : str, optional
        For tables; the function's own by default.
    version : str, optional
        Change it when the function's results change, so that old ones are not taken from
        a cache; by default made of the function's own code.
    deterministic : bool
        Whether the seed is ignored; such functions get many images at a time.
    pad_multiple : int
        See :class:`Remover`.

    Examples
    --------
    >>> grey = CallableRemover(lambda images, masks, seed: images * 0 + 0.5, name="grey")
    >>> setup = RemoverSetup(grey)
    >>> mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    >>> mask[..., :2, :2] = True
    >>> setup.run(torch.ones(1, 3, 4, 4), mask)[0, 0, :, 0].round(decimals=2).tolist()
    [0.5, 0.5, 1.0, 1.0]
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        version: str | None = None,
        deterministic: bool = False,
        pad_multiple: int = 1,
    ) -> None:
        if not callable(fn):
            raise InputError(
                f"A remover is a function (images, masks, seed) or has a method remove, got "
                f"{type(fn).__name__}.",
                code="CL-INPUT-TYPE",
            )
        self.fn = fn
        self.name = name or str(getattr(fn, "__name__", type(fn).__name__))
        if version is None:
            version = fingerprint(describe_callable(fn))[:16]
        self.version, self.deterministic, self.pad_multiple = version, deterministic, pad_multiple

    def remove(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> Any:
        """Call the function."""
        return self.fn(images, masks, seed)


class RemoverSetup:
    """A remover with its mask policy: the thing that is judged.

    Parameters
    ----------
    remover : Remover or callable
        What fills holes.
    dilation : int
        Pixels by which masks grow first, below 0 to shrink; see :class:`MaskPolicy`.
    composite : bool
        Whether pixels outside the hole are those of the original. False shows what the
        remover does to them.
    label : str, optional
        Name in tables; by default the remover's, with the dilation.

    Attributes
    ----------
    label : str
        Name in tables.

    Notes
    -----
    Results are rounded to 8 bits, as image files are, whether they come from a cache or
    not.

    Examples
    --------
    >>> from unlearning.removal.removers import MeanFill
    >>> images, masks = torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    >>> masks[..., 2:5, 2:5] = True
    >>> setup = RemoverSetup(MeanFill(), dilation=1)
    >>> tuple(setup.run(images, masks).shape)
    (2, 3, 8, 8)
    """

    def __init__(
        self,
        remover: Any,
        dilation: int = 0,
        *,
        composite: bool = True,
        label: str | None = None,
    ) -> None:
        if isinstance(dilation, bool) or int(dilation) != dilation:
            raise InputError(
                f"dilation is a whole number of pixels, got {dilation!r}.", code="CL-INPUT-RANGE"
            )
        self.remover: Any = remover if hasattr(remover, "remove") else CallableRemover(remover)
        self.dilation = int(dilation)
        self.composite = composite
        name = str(getattr(self.remover, "name", type(self.remover).__name__))
        self.label = label or (f"{name} {self.dilation:+d}" if self.dilation else name)

    @property
    def needs_truth(self) -> bool:
        """Whether it can only run where the true removal is known."""
        return bool(getattr(self.remover, "needs_truth", False))

    def run(
        self,
        images: torch.Tensor,
        masks: ArrayLike,
        *,
        seed: int = 0,
        truth: torch.Tensor | None = None,
        cache: RemovalCache | None = None,
        names: list[str] | None = None,
    ) -> torch.Tensor:
        """Remove the objects under `masks`.

        Parameters
        ----------
        images : Tensor or ndarray of shape (n, 3, H, W), in [0, 1]
            With the objects.
        masks : array-like of shape (n, 1, H, W), bool
            The objects, before dilation.
        seed : int
            Each image's own seed is made of it and of the image.
        truth : Tensor of shape (n, 3, H, W), optional
            The true removals, for controls that need them.
        cache : RemovalCache, optional
            Where finished removals are kept.
        names : list of str, optional
            What messages call the images.

        Returns
        -------
        Tensor or ndarray of shape (n, 3, H, W), float32 in [0, 1]
            Like the images.

        Raises
        ------
        InputError
            Images that are no RGB or out of range; masks of another size, empty, or
            covering everything.
        RemoverError
            If the remover raises, or returns another shape, another range or NaN.
        """
        kind = ArrayKind.of(images)
        images = as_image_batch(images, device="cpu")
        truth = None if truth is None else as_image_batch(truth, device="cpu")
        holes = torch.from_numpy(grow(as_masks(masks, like=images).numpy(), self.dilation))
        check_holes(holes, names)
        bytes_ = torch.empty(images.shape, dtype=torch.uint8)
        keys = [self._key(images[i], holes[i], truth, i, seed) for i in range(len(images))]
        todo = []
        for i, key in enumerate(keys):
            found = None if cache is None else cache.get(self.label, key)
            if found is None or found.shape != images.shape[1:]:
                todo.append(i)
            else:
                bytes_[i] = torch.from_numpy(found)
        together = getattr(self.remover, "deterministic", False)
        groups = [todo] if together and todo else [[i] for i in todo]
        for group in groups:
            part = None if truth is None else truth[group]
            label = [names[i] for i in group] if names else None
            own = int.from_bytes(bytes.fromhex(keys[group[0]])[:4], "big") % (2**31 - 1)
            out = self._call(images[group], holes[group], own, part, label)
            bytes_[group] = (out * 255).round().to(torch.uint8)
            if cache is not None:
                for i in group:
                    cache.put(self.label, keys[i], bytes_[i].numpy())
        filled = bytes_.float() / 255
        return kind.restore(torch.where(holes, filled, images) if self.composite else filled)

    def _key(
        self, image: torch.Tensor, hole: torch.Tensor, truth: torch.Tensor | None, i: int, seed: int
    ) -> str:
        digest = hashlib.sha256(self.identity.encode())
        digest.update(f":{seed}:{tuple(image.shape)}:".encode())
        digest.update(image.contiguous().numpy().tobytes())
        digest.update(np.packbits(hole.numpy()).tobytes())
        if self.needs_truth and truth is not None:
            digest.update(truth[i].contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def identity(self) -> str:
        """What tells this remover's results from another's, but for the hole."""
        name = getattr(self.remover, "name", type(self.remover).__name__)
        version = getattr(self.remover, "version", Remover.version)
        if version == Remover.version:  # it says nothing itself
            version = f"{version} {_settings(self.remover)}"
        step = int(getattr(self.remover, "pad_multiple", 1))
        padded = f":{step}" if step != 1 else ""
        return f"{type(self.remover).__name__}:{name}:{version}{padded}"

    def _call(
        self,
        images: torch.Tensor,
        holes: torch.Tensor,
        seed: int,
        truth: torch.Tensor | None,
        names: list[str] | None,
    ) -> torch.Tensor:
        height, width = images.shape[-2:]
        step = int(getattr(self.remover, "pad_multiple", 1))
        pad = (0, -width % step, 0, -height % step)
        given, mask = images.clone(), holes.clone()
        if any(pad):
            mode = "reflect" if pad[1] < width and pad[3] < height else "replicate"
            given = functional.pad(given, pad, mode=mode)
            mask = functional.pad(mask.float(), pad, mode=mode) > 0.5
        where = f"image {names[0]}" if names and len(names) == 1 else f"{len(images)} images"
        try:
            with torch.no_grad():
                if self.needs_truth:
                    if truth is None:
                        raise InputError(
                            f"{self.label} needs the true removal, and this data has none. Leave "
                            "it out.",
                            code="CL-INPUT-OPTION",
                        )
                    out = self.remover.remove(given, mask, seed, truth)
                else:
                    out = self.remover.remove(given, mask, seed)
        except ConceptlabError:
            raise
        except Exception as error:
            raise RemoverError(
                f"{self.label} raised {type(error).__name__} on {where}: {error}. Finished "
                "removals stay in the cache, if there is one."
            ) from error
        return self._checked(out, given, where)[..., :height, :width]

    def _checked(self, out: Any, given: torch.Tensor, where: str) -> torch.Tensor:
        try:
            tensor = as_tensor(out).detach().float().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise RemoverError(
                f"{self.label} gave a {type(out).__name__} for {where}; expected an array of "
                f"shape {tuple(given.shape)}."
            ) from error
        if tensor.shape != given.shape:
            raise RemoverError(
                f"{self.label} gave shape {tuple(tensor.shape)} for {where}; expected "
                f"{tuple(given.shape)}, channels first. Crop or resize inside the remover."
            )
        low, high = (float(v) for v in torch.aminmax(tensor))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise RemoverError(f"{self.label} gave NaN or infinity for {where}.")
        if low < -_SLACK or high > 1 + _SLACK:
            guess = "Divide by 255." if high > 2 else "Clip inside the remover, or scale to [0, 1]."
            raise RemoverError(
                f"{self.label} gave values from {low:.4g} to {high:.4g} for {where}; expected "
                f"[0, 1]. {guess}"
            )
        black = tensor.amax(dim=(1, 2, 3)) < 1 / 255
        if bool((black & (given.mean(dim=(1, 2, 3)) > _LIGHT)).any()):
            raise RemoverError(
                f"{self.label} gave a black picture for {where}, as safety checkers do: that is no "
                "removal. Leave the image out, or use a remover without a checker."
            )
        return tensor.clamp(0, 1)

    def __repr__(self) -> str:
        return f"RemoverSetup({self.label!r})"


def _settings(remover: Any) -> str:
    """Hash the code of a remover and its public attributes, weights and arrays among them."""
    given = {
        key: value
        for key, value in getattr(remover, "__dict__", {}).items()
        if not key.startswith("_")
    }
    return fingerprint(
        describe_callable(type(remover).remove),
        {key: _described(value) for key, value in given.items()},
    )[:16]


def _described(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return weights_fingerprint(value)
    if isinstance(value, torch.Tensor | np.ndarray):
        return fingerprint(value)
    if callable(value):
        return describe_callable(value)
    return re.sub(r"0x[0-9a-fA-F]+", "", repr(value))  # addresses change from run to run
