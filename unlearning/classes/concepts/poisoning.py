"""Poison the samples to forget: locate concepts, choose donors, mask or paste."""

from __future__ import annotations

__all__ = ["Poisoned", "poison_images", "poison_texts"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conceptlab.errors import InputError
from unlearning.classes.concepts.locating import (
    best_window,
    concept_position_maps,
    find_position_layer,
    occlusion_window_maps,
)
from unlearning.classes.concepts.model_concepts import ModelConcepts
from unlearning.classes.concepts.poisons import mask_windows, paste_windows, window_size
from unlearning.classes.concepts.words import mask_words
from unlearning.classes.job import Job
from unlearning.data import Samples
from unlearning.heads import features_and_logits, frozen

Donors = dict[int, tuple[int, int | None]]


@dataclass(frozen=True)
class Poisoned:
    """The samples to forget after poisoning.

    Attributes
    ----------
    samples : Samples
        In the order of the samples to forget.
    rows : torch.Tensor of shape (n,), bool
        Which were changed.
    kind : str
        "none", "mask" or "donor".
    """

    samples: Samples
    rows: torch.Tensor
    kind: str


def poison_images(
    job: Job,
    concepts: ModelConcepts,
    donors: Donors,
    rows: torch.Tensor,
    *,
    kind: str,
    place: str,
    fill: str,
    patch_size: float | int,
    select: str,
) -> Poisoned:
    """Mask the located concept of images, or paste a donor's patch over it.

    Parameters
    ----------
    job : Job
        The run.
    concepts : ModelConcepts
        Gets ``location``: corners, size and how they were found.
    donors : dict of int to (int, int or None)
        For each forgotten class the donor class and its concept.
    rows : torch.Tensor of shape (n,), bool
        Which images are changed.
    kind : {"mask", "donor"}
        What is done.
    place : {"located", "centre", "random", "full"}
        Where.
    fill : {"blur", "mean"}
        Of masks.
    patch_size : float or int
        Of the window.
    select : {"ig", "weights"}
        Which of the class's figures names its strongest concept.

    Returns
    -------
    Poisoned
    """
    images = job.forget.inputs
    if not isinstance(images, torch.Tensor) or images.ndim != 4:
        shape = tuple(images.shape) if isinstance(images, torch.Tensor) else "a mapping"
        raise InputError(
            f"poison={kind!r} works on images (n, c, h, w), got {shape}. Use poison='none', which "
            "forgets by labels alone.",
            code="CL-INPUT-OPTION",
        )
    size = window_size(images, patch_size)
    if place == "full":
        size = (int(images.shape[2]), int(images.shape[3]))
    stride = max(1, min(size) // 4)
    locate = _Locator(job, concepts, size, stride, place)
    out = images.clone()
    corners = torch.zeros(len(images), 2, dtype=torch.int64)
    retain = job.retain.inputs
    mean = retain.mean(dim=(0, 2, 3)) if isinstance(retain, torch.Tensor) else None
    how = "not located" if place != "located" else ""
    for i, label in enumerate(job.classes):
        chosen = (rows & (job.forget.y == label)).nonzero()[:, 0]
        if not len(chosen):
            continue
        key = "contrast" if select == "ig" else "weights"
        values = np.asarray(concepts[key])[i if select == "ig" else label]
        concept = None if concepts["refused"] else int(values.argmax())
        found, how = locate(images[chosen], label, concept)
        corners[chosen] = found
        if kind == "mask":
            out[chosen] = mask_windows(images[chosen], found, size, fill=fill, mean=mean)
            continue
        donor, donor_concept = donors[label]
        pool = (job.retain.y == donor).nonzero()[:, 0].numpy()
        drawn = torch.from_numpy(job.numpy.choice(pool, len(chosen)))
        given = retain[drawn] if isinstance(retain, torch.Tensor) else images[chosen]
        d_corners, _ = locate(given, donor, donor_concept)
        out[chosen] = paste_windows(images[chosen], found, given, d_corners, size)
    concepts["location"] = {
        "corners": corners.numpy(),
        "rows": rows.numpy(),
        "size": [int(v) for v in size],
        "how": how,
    }
    return Poisoned(Samples(out, job.forget.y, job.forget.name), rows, kind)


def poison_texts(
    job: Job, concepts: ModelConcepts, rows: torch.Tensor, tokenizer: Any, top: int
) -> Poisoned:
    """Replace the class's strongest words in a share of the documents.

    Parameters
    ----------
    job : Job
        The run.
    concepts : ModelConcepts
        Of words.
    rows : torch.Tensor of shape (n,), bool
        Which documents.
    tokenizer : object
        As transformers'.
    top : int
        Words of a document.

    Returns
    -------
    Poisoned
    """
    if not isinstance(job.forget.inputs, dict):
        raise InputError("Documents must be a mapping of tensors.", code="CL-INPUT-TYPE")
    ids = job.forget.inputs["input_ids"].clone()
    changed = torch.zeros(len(ids), dtype=torch.bool)
    for i, label in enumerate(job.classes):
        contrast = np.asarray(concepts["contrast"])[i]
        order = np.argsort(-contrast, kind="stable")
        words = [concepts["names"][k] for k in order if contrast[k] > 0]
        chosen = (rows & (job.forget.y == label)).nonzero()[:, 0]
        ids, count = mask_words(ids, tokenizer, words, top=top, rows=chosen)
        changed |= count > 0
    inputs = {**job.forget.inputs, "input_ids": ids}
    return Poisoned(Samples(inputs, job.forget.y, job.forget.name), changed, "mask")


class _Locator:
    """Finds windows in batches of images."""

    def __init__(
        self, job: Job, concepts: ModelConcepts, size: tuple[int, int], stride: int, place: str
    ) -> None:
        self.job, self.concepts, self.size = job, concepts, size
        self.stride, self.place = stride, place
        self.head = job.head.name
        self.layer: str | None = None
        if place == "located":
            example = job.to_device(job.forget.select(range(min(2, len(job.forget)))).inputs)
            if isinstance(example, torch.Tensor):
                self.layer = find_position_layer(job.original, example, self.head)

    def __call__(
        self, images: torch.Tensor, label: int, concept: int | None
    ) -> tuple[torch.Tensor, str]:
        n, (h, w) = len(images), images.shape[2:]
        room = (h - self.size[0], w - self.size[1])
        if self.place in ("centre", "full"):
            return torch.tensor([[room[0] // 2, room[1] // 2]]).repeat(n, 1), "the centre"
        if self.place == "random":
            rng = self.job.numpy
            tops, lefts = rng.integers(room[0] + 1, size=n), rng.integers(room[1] + 1, size=n)
            return torch.from_numpy(np.stack([tops, lefts], axis=1)), "at random"
        direction = None if concept is None else self._direction(label, concept)
        if direction is not None and self.layer is not None:
            layer = self.layer

            def maps(x: torch.Tensor) -> torch.Tensor:
                return concept_position_maps(self.job.original, x, layer, direction)

            how = f"concept's score at each position of {self.layer}"
        else:
            score = self._score(label, direction)

            def maps(x: torch.Tensor) -> torch.Tensor:
                fill = x.mean(dim=(0, 2, 3)).view(1, -1, 1, 1)
                return occlusion_window_maps(score, x, self.size, self.stride, fill)

            what = "class's logit" if direction is None else "concept's score"
            how = f"fall of the {what} when a window is covered"
        found = []
        for start in range(0, n, 128):
            x = self.job.to_device(images[start : start + 128])
            if isinstance(x, torch.Tensor):
                found.append(best_window(maps(x), self.size))
        return torch.cat(found), how

    def _direction(self, label: int, concept: int) -> torch.Tensor:
        vector = np.asarray(self.concepts["vectors"])[concept]
        # A class can be known by what it lacks; then the place where least of it is counts.
        sign = np.sign(np.asarray(self.concepts["activation_gap"])[label, concept]) or 1.0
        unit = torch.from_numpy(sign * vector / np.linalg.norm(vector))
        return unit.float().to(self.job.device)

    def _score(
        self, label: int, direction: torch.Tensor | None
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        def score(x: torch.Tensor) -> torch.Tensor:
            with frozen(self.job.original):
                features, logits = features_and_logits(self.job.original, x, self.head)
            if direction is None:
                return logits[:, label].float()
            return features.float() @ direction

        return score
