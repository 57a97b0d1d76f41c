"""What our image encoding costs above the model itself, and what the cache saves."""

from __future__ import annotations

__all__ = ["run"]

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.bench import BenchResult, Row
from conceptlab.bench._workload import procedural_images
from conceptlab.encoders import OpenClipEncoder
from conceptlab.encoders.dependencies import import_package

BATCH = 16


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Measure images per CPU second of ``encode_image`` beside bare loops.

    The bare loop is what an expert writes: the model's own transform on each
    picture, a stack, the model under ``no_grad``, in batches of the same size.
    The naive loop goes picture by picture.

    Parameters
    ----------
    quick : bool
        A small vision transformer and few images instead of ViT-B/32.
    seed : int
        Of weights and images.

    Returns
    -------
    BenchResult
    """
    n, repeats = (96, 5) if quick else (32, 3)
    model, tokenizer, transform = _vit(quick, seed)
    encoder = OpenClipEncoder(model, tokenizer, device="cpu")
    side = int(encoder.preprocess.fit.height)  # type: ignore[union-attr]
    large = procedural_images(n, side * 5 // 4, seed)
    pictures = _pictures(large)
    exact = procedural_images(n, side, seed)

    def ours(images: Any, **options: Any) -> np.ndarray:
        return np.asarray(encoder.encode_image(images, batch_size=BATCH, progress=False, **options))

    rows = [
        _beside(
            "tensors of the model's size",
            lambda: ours(exact),
            lambda: _bare(model, exact, encoder.preprocess.normalize, BATCH),
            n,
            repeats,
            goal=1.05,
            note="peer: normalise, forward, in batches",
        ),
        _beside(
            "pictures to be scaled and cropped",
            lambda: ours(pictures),
            lambda: _bare(model, pictures, _stacked(transform), BATCH),
            n,
            repeats,
            goal=1.05,
            note="peer: the model's own transform, forward, in batches",
        ),
        _beside(
            "the same, beside a naive loop",
            lambda: ours(pictures),
            lambda: _bare(model, pictures, _stacked(transform), 1),
            n,
            repeats,
            goal=1.0,
            note="peer: picture by picture",
        ),
    ]
    with tempfile.TemporaryDirectory() as folder:
        fresh = iter(range(1000))
        rows.append(
            _beside(
                "first run with a cache",
                lambda: ours(pictures, cache=Path(folder, str(next(fresh)))),
                lambda: ours(pictures),
                n,
                repeats,
                goal=1.05,
                note="peer: ours without a cache",
            )
        )
        kept = Path(folder, "kept")
        ours(pictures, cache=kept)
        rows.append(
            _beside(
                "second run with a cache",
                lambda: ours(pictures, cache=kept),
                lambda: ours(pictures),
                n,
                repeats,
                goal=0.05,
                note="peer: ours without a cache",
            )
        )
    small = 256 if quick else 1024
    rows.append(_embedded(small, repeats, seed))
    return BenchResult(
        "encode",
        rows,
        seed,
        {
            "n": n,
            "model": "ViT-S (2 layers)" if quick else "ViT-B-32",
            "side": side,
            "batch": BATCH,
        },
    )


def _embedded(n: int, repeats: int, seed: int) -> Row:
    """A model so small that what stands around it shows most."""
    from conceptlab.datasets import load_scenes
    from conceptlab.encoders import load_encoder

    encoder = load_encoder("embedded", device="cpu")
    scenes = load_scenes("test", n, seed=seed)
    images = torch.from_numpy(scenes.images)
    model = encoder._model
    return _beside(
        "embedded encoder on scenes",
        lambda: encoder.encode_image(images, batch_size=64, progress=False).numpy(),
        lambda: _bare(model, images, encoder.preprocess.normalize, 64),
        n,
        repeats,
        goal=1.05,
        note="peer: normalise, forward, in batches",
    )


def _vit(quick: bool, seed: int) -> tuple[nn.Module, Any, Any]:
    open_clip = import_package("open_clip", "open_clip_torch")
    config = open_clip.get_model_config("ViT-B-32")
    if quick:
        config["vision_cfg"] |= {"image_size": 128, "layers": 2, "width": 384}
        config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = open_clip.CLIP(**config).eval().requires_grad_(False)
    settings = open_clip.transform.PreprocessCfg(size=config["vision_cfg"]["image_size"])
    model.visual.preprocess_cfg = vars(settings)
    transform = open_clip.transform.image_transform_v2(settings, is_train=False)
    return model, open_clip.SimpleTokenizer(), transform


def _pictures(images: torch.Tensor) -> list[Any]:
    from PIL import Image

    arrays = (images * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(array) for array in arrays]


def _stacked(transform: Callable[[Any], torch.Tensor]) -> Callable[[list[Any]], torch.Tensor]:
    return lambda pictures: torch.stack([transform(picture) for picture in pictures])


def _bare(model: nn.Module, images: Any, prepare: Callable[[Any], Any], batch: int) -> np.ndarray:
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            features = model.encode_image(prepare(images[start : start + batch]))  # type: ignore[operator]
            parts.append(nn.functional.normalize(features, dim=-1))
    return np.asarray(torch.cat(parts).numpy())


def _beside(
    name: str,
    ours: Callable[[], np.ndarray],
    peer: Callable[[], np.ndarray],
    n: int,
    repeats: int,
    *,
    goal: float,
    note: str,
) -> Row:
    """Time both in turns, so that a busy machine slows them alike, and compare their answers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    try:
        difference = float(np.abs(ours() - peer()).max())
        for _ in range(repeats):
            for key, fn in (("ours", ours), ("peer", peer)):
                start = time.process_time()
                fn()
                times[key].append(time.process_time() - start)
    finally:
        torch.set_num_threads(before)
    mine, theirs = min(times["ours"]), min(times["peer"])
    ratio = mine / theirs
    return Row(
        name,
        n / mine,
        n / theirs,
        ratio,
        f"time <= {goal:g}",
        ratio <= goal,
        "images/CPU s",
        f"{note}; answers differ by {difference:.1e}",
    )
