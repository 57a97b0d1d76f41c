"""Masks: what to remove, and how far beyond it."""

from __future__ import annotations

__all__ = ["MaskPolicy", "as_masks", "check_holes", "effect_mask", "grow", "mask_of_picture"]

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from conceptlab.arrays import ArrayLike, real_array
from conceptlab.datasets.images import as_image_batch
from conceptlab.datasets.pictures import as_rgb, see_through
from conceptlab.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class MaskPolicy:
    """How an object's mask becomes the hole that a remover fills.

    A remover together with its policy is what is judged: a small hole leaves rests of
    the object, a large one asks for more to be invented.

    Parameters
    ----------
    dilation : int
        Pixels to grow by, in Euclidean distance; below 0 to shrink, which leaves a rim
        of the object on purpose.
    min_area, max_area : float
        Images are used whose objects cover between these shares of the picture, before
        growing.

    Examples
    --------
    >>> mask = np.zeros((1, 1, 9, 9), dtype=bool)
    >>> mask[..., 4, 4] = True
    >>> int(MaskPolicy(dilation=2)(mask).sum())
    13
    """

    dilation: int = 0
    min_area: float = 0.01
    max_area: float = 0.4

    def __post_init__(self) -> None:
        if isinstance(self.dilation, bool) or int(self.dilation) != self.dilation:
            raise InputError(
                f"dilation is a whole number of pixels, got {self.dilation!r}.",
                code="CL-INPUT-RANGE",
            )
        if not 0 <= self.min_area < self.max_area <= 1:
            raise InputError(
                "Areas are shares of the picture with 0 <= min_area < max_area <= 1, got "
                f"{self.min_area} and {self.max_area}.",
                code="CL-INPUT-RANGE",
            )

    def __call__(self, masks: ArrayLike) -> np.ndarray:
        """Give the holes for `masks`, (n, 1, H, W) bool."""
        return grow(as_masks(masks).cpu().numpy(), self.dilation)


def grow(masks: np.ndarray, pixels: int) -> np.ndarray:
    """Grow masks by so many pixels in Euclidean distance, or shrink them below 0.

    Parameters
    ----------
    masks : ndarray of shape (..., H, W), bool
        What to grow. A mask that would vanish by shrinking keeps its innermost pixels.
    pixels : int
        How far.

    Returns
    -------
    ndarray of the same shape, bool
    """
    from scipy.ndimage import distance_transform_edt

    if pixels == 0:
        return masks.copy()
    out = np.empty_like(masks)
    for place in np.ndindex(masks.shape[:-2]):
        mask = masks[place]
        if not mask.any() or mask.all():
            out[place] = mask
        elif pixels > 0:
            out[place] = distance_transform_edt(~mask) <= pixels
        else:
            inside = distance_transform_edt(mask)
            kept = inside > -pixels
            out[place] = kept if kept.any() else inside == inside.max()
    return out


def as_masks(
    masks: ArrayLike, *, like: torch.Tensor | None = None, name: str = "masks"
) -> torch.Tensor:
    """Check masks and give them as (n, 1, H, W) bool.

    Parameters
    ----------
    masks : array-like of shape (n, 1, H, W), (n, H, W) or (H, W)
        Booleans, or numbers that are 0 and one other value (0 and 1, 0 and 255).
    like : Tensor of shape (n, 3, H, W), optional
        Images that the masks belong to.
    name : str
        What messages call them.

    Returns
    -------
    Tensor of shape (n, 1, H, W), bool

    Raises
    ------
    InputError
        Another size or number than the images; grey values (``CL-INPUT-RANGE``).

    Examples
    --------
    >>> as_masks(np.eye(4) * 255).shape
    torch.Size([1, 1, 4, 4])
    """
    given = masks if isinstance(masks, torch.Tensor) else real_array(masks, name).copy()
    tensor = torch.as_tensor(given)
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim == 3:
        tensor = tensor[:, None]
    if tensor.ndim != 4 or tensor.shape[1] != 1:
        raise InputError(
            f"{name} must have shape (n, 1, H, W), (n, H, W) or (H, W), got "
            f"{tuple(np.shape(masks))}.",
            code="CL-INPUT-RANK",
        )
    if like is not None and (
        tensor.shape[0] != like.shape[0] or tensor.shape[-2:] != like.shape[-2:]
    ):
        raise InputError(
            f"{name} are {tensor.shape[0]} of {tuple(tensor.shape[-2:])} pixels, the images "
            f"{like.shape[0]} of {tuple(like.shape[-2:])} (height, width). Resize masks as the "
            "images, by nearest neighbour.",
            code="CL-INPUT-SHAPE",
        )
    if tensor.dtype == torch.bool:
        return tensor
    values = torch.unique(tensor)
    if int((values != 0).sum()) > 1 or bool((values < 0).any()):
        raise _grey(values.tolist(), name)
    return tensor != 0


def effect_mask(
    images: Any, truth: ArrayLike, masks: ArrayLike, *, least: float = 0.05, rim: int = 2
) -> torch.Tensor:
    """Find what an object does outside its mask: where the truth differs from the image.

    Parameters
    ----------
    images, truth : array-like of shape (n, 3, H, W), in [0, 1]
        With the object, and without it.
    masks : array-like of shape (n, 1, H, W), bool
        The object.
    least : float
        Differences of a channel that count: more than the noise of a camera or of JPEG.
    rim : int
        Pixels about the object that belong to it.

    Returns
    -------
    Tensor of shape (n, 1, H, W), bool
        Shadows, reflections; all False where there are none.

    Examples
    --------
    >>> images, truth = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.5)
    >>> images[..., :4, :4], truth[..., 10:12, 10:12] = 0.9, 0.8  # an object, and its shadow
    >>> masks = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    >>> masks[..., :4, :4] = True
    >>> int(effect_mask(images, truth, masks).sum())
    4
    """
    first, second = as_image_batch(images), as_image_batch(truth)
    if first.shape != second.shape:
        raise InputError(
            f"images have shape {tuple(first.shape)}, the truth {tuple(second.shape)}.",
            code="CL-INPUT-SHAPE",
        )
    grown = torch.from_numpy(grow(as_masks(masks, like=first).cpu().numpy(), rim))
    differs = (first - second.to(first.device)).abs().amax(dim=1, keepdim=True) > least
    differs &= ~grown.to(differs.device)
    # Specks, as of rounding at edges, are no shadows.
    return differs & (functional.avg_pool2d(differs.float(), 3, stride=1, padding=1) * 9 > 3.5)


def mask_of_picture(picture: Image, name: str) -> np.ndarray:
    """Read the mask that a picture shows: black, and one other value or colour.

    Parameters
    ----------
    picture : PIL.Image.Image
        Of any mode, upright. Palettes count by their colours, transparent pixels as black.
    name : str
        What messages call it.

    Returns
    -------
    ndarray of shape (h, w), bool

    Raises
    ------
    InputError
        Other values (``CL-INPUT-RANGE``), with their names; something transparent, and
        nothing visible but black.

    Examples
    --------
    >>> from PIL import Image
    >>> mask_of_picture(Image.fromarray(np.eye(2, dtype=np.uint8)), "mask").tolist()
    [[True, False], [False, True]]
    """
    if picture.mode == "1" or picture.mode[0] in "IF" or picture.mode == "L":
        values = np.asarray(picture)
        visible = None
    elif see_through(picture):
        straight = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)
        rgba = np.asarray(picture.convert(straight).convert("RGBA"), dtype=np.int64)
        visible = rgba[..., 3]
        if not np.isin(visible, (0, 255)).all():
            raise _grey(np.unique(visible).tolist(), f"The alpha of {name}")
        values = _one_number(rgba) * (visible > 0)
    else:
        values, visible = _one_number(np.asarray(as_rgb(picture, name), dtype=np.int64)), None
    mask = np.asarray(values != 0)
    shown = values[mask]
    if len(shown) and ((shown != shown[0]).any() or not shown[0] > 0):
        found = np.unique(values).tolist()
        colours = picture.mode not in ("1", "L") and picture.mode[0] not in "IF"
        raise _grey([f"#{v:06x}" for v in found] if colours else found, name)
    if visible is not None and not mask.any() and (visible == 0).any():
        raise InputError(
            f"{name} is transparent in places and black elsewhere, so that nobody can tell which "
            "of them is the object. Save it in black and white, without alpha.",
            code="CL-INPUT-RANGE",
        )
    if picture.mode == "P" and not mask.any() and len(np.unique(np.asarray(picture))) > 1:
        raise InputError(
            f"{name} has several values and a palette in which all of them are black, so that "
            "nobody can tell the object. Save it without a palette (mode L), in black and white.",
            code="CL-INPUT-RANGE",
        )
    return mask


def _one_number(colours: np.ndarray) -> np.ndarray:
    return (colours[..., 0] << 16) + (colours[..., 1] << 8) + colours[..., 2]


def _grey(values: list[Any], name: str) -> InputError:
    shown = ", ".join(f"{v:g}" if isinstance(v, int | float) else str(v) for v in values[:8])
    more = ", ..." if len(values) > 8 else ""
    return InputError(
        f"{name} hold{'s' if name != 'masks' else ''} the values {shown}{more}: a pixel belongs to "
        "the hole or it does not, so a mask is 0 and one other value. Give mask > 127, or whatever "
        "threshold is right, as PNG (JPEG blurs masks); of a map of labels, a file for each class.",
        code="CL-INPUT-RANGE",
    )


def check_holes(holes: torch.Tensor, names: list[str] | None = None) -> None:
    """Refuse holes that are empty, or leave nothing of the picture.

    Raises
    ------
    InputError
        ``CL-INPUT-EMPTY`` with the first such image.
    """
    share = holes.float().mean(dim=(1, 2, 3))
    for bad, what in ((share == 0, "is empty"), (share == 1, "covers the whole picture")):
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            label = names[first] if names else f"number {first}"
            raise InputError(
                f"The mask of image {label} {what}: there is nothing to "
                f"{'remove' if what == 'is empty' else 'fill it from'}. Leave the image out, or "
                "change the mask policy.",
                code="CL-INPUT-EMPTY",
            )
