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
    bench = _Bench(OpenClipEncoder(model, tokenizer, device="cpu"), BATCH, repeats)
    preprocess = bench.encoder.preprocess
    side = int(preprocess.fit.height)  # type: ignore[union-attr]
    pictures = _pictures(procedural_images(n, side * 5 // 4, seed))
    exact = procedural_images(n, side, seed)

    def stacked(items: list[Any]) -> torch.Tensor:
        return torch.stack([transform(item) for item in items])

    loop = "peer: the model's own transform, forward"
    with tempfile.TemporaryDirectory() as folder:
        fresh = iter(range(10**6))
        kept = Path(folder, "kept")
        bench.ours(pictures, cache=kept)
        rows = [
            bench.row(
                "tensors of the model's size",
                lambda: bench.ours(exact),
                lambda: bench.bare(exact, preprocess.normalize, BATCH),
                n,
                goal=1.05,
                note="peer: normalise, forward, in batches",
            ),
            bench.row(
                "pictures to be scaled and cropped",
                lambda: bench.ours(pictures),
                lambda: bench.bare(pictures, stacked, BATCH),
                n,
                goal=1.05,
                note=f"{loop}, in batches",
            ),
            bench.row(
                "the same, beside a naive loop",
                lambda: bench.ours(pictures),
                lambda: bench.bare(pictures, stacked, 1),
                n,
                goal=1.0,
                note=f"{loop}, picture by picture",
                same_forward=False,
            ),
            bench.row(
                "first run with a cache",
                lambda: bench.ours(pictures, cache=Path(folder, str(next(fresh)))),
                lambda: bench.ours(pictures),
                n,
                goal=1.05,
                note="peer: ours without a cache",
            ),
            bench.row(
                "second run with a cache",
                lambda: bench.ours(pictures, cache=kept),
                lambda: bench.ours(pictures),
                n,
                goal=0.05,
                note="peer: ours without a cache",
                same_forward=False,
            ),
        ]
    rows.append(_embedded(256 if quick else 2048, repeats, seed))
    name = "ViT (2 layers)" if quick else "ViT-B-32"
    return BenchResult("encode", rows, seed, {"n": n, "model": name, "side": side, "batch": BATCH})


def _embedded(n: int, repeats: int, seed: int) -> Row:
    """A model so small that what stands around it shows most."""
    from conceptlab.datasets import load_scenes
    from conceptlab.encoders import load_encoder

    bench = _Bench(load_encoder("embedded", device="cpu"), 64, repeats)
    images = torch.from_numpy(load_scenes("test", n, seed=seed).images)
    return bench.row(
        "embedded encoder on scenes",
        lambda: bench.ours(images),
        lambda: bench.bare(images, bench.encoder.preprocess.normalize, 64),
        n,
        goal=1.05,
        note="peer: normalise, forward, in batches",
    )


class _Bench:
    """One encoder whose forward pass is on a clock of its own."""

    def __init__(self, encoder: OpenClipEncoder, batch: int, repeats: int) -> None:
        self.encoder, self.batch, self.repeats = encoder, batch, repeats
        self.inside = 0.0
        self._forward = encoder._image_features
        encoder._image_features = self._timed  # type: ignore[method-assign]

    def _timed(self, pixels: torch.Tensor) -> torch.Tensor:
        start = time.process_time()
        features = self._forward(pixels)
        self.inside += time.process_time() - start
        return features

    def ours(self, images: Any, **options: Any) -> np.ndarray:
        """Encode as a person would."""
        options = {"batch_size": self.batch, "progress": False, **options}
        return np.asarray(self.encoder.encode_image(images, **options))

    def bare(self, images: Any, prepare: Callable[[Any], Any], batch: int) -> np.ndarray:
        """Encode in a loop written by hand."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(images), batch):
                features = self._timed(prepare(images[start : start + batch]))
                parts.append(nn.functional.normalize(features, dim=-1))
        return np.asarray(torch.cat(parts).numpy())

    def row(
        self,
        name: str,
        ours: Callable[[], np.ndarray],
        peer: Callable[[], np.ndarray],
        n: int,
        *,
        goal: float,
        note: str,
        same_forward: bool = True,
    ) -> Row:
        """Time both in turns and compare their answers.

        Where both run the very same forward passes, these count once, with
        their least time: on a busy machine they vary by more than all that
        stands around them.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        times: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
        try:
            difference = float(np.abs(ours() - peer()).max())
            for _ in range(self.repeats):
                for key, fn in (("ours", ours), ("peer", peer)):
                    self.inside, start = 0.0, time.process_time()
                    fn()
                    whole = time.process_time() - start
                    times[key].append((self.inside, whole - self.inside))
        finally:
            torch.set_num_threads(before)
        forward = {key: min(inside for inside, _ in rows) for key, rows in times.items()}
        if same_forward:
            forward = dict.fromkeys(forward, min(forward.values()))
        total = {key: forward[key] + min(around for _, around in times[key]) for key in times}
        ratio = total["ours"] / total["peer"]
        return Row(
            name,
            n / total["ours"],
            n / total["peer"],
            ratio,
            f"time <= {goal:g}",
            ratio <= goal,
            "images/CPU s",
            f"{note}; answers differ by {difference:.1e}",
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
