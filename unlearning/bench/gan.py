"""Unlearning in a generator: a concept's time beside the training, samples and steps a second.

The time of training is that of the generator's card, measured when it was made; the machine
may have been another. Steps are those of the training's loop on a generator of StyleGAN2's shape
with random weights, beside the bare passes. With a CUDA device it makes 256×256 images under a
ViT-B/32, in wall time; without one the same code runs small, and the goal does not count.
"""

from __future__ import annotations

__all__ = ["run"]

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from conceptlab.arrays import resolve_device
from conceptlab.bench import BenchResult, Row, cpu_time
from conceptlab.seeds import torch_generator
from unlearning.bench._stylegan import StyleShaped
from unlearning.gan.finetune import finetune
from unlearning.gan.generators import Generator, learn
from unlearning.gan.guide import Guide
from unlearning.gan.mapper import LatentMapper
from unlearning.gan.objective import Objective, Weights
from unlearning.gan.sight import Sight
from unlearning.gan.survey import survey
from unlearning.gan.text_to_unlearn import TextToUnlearn

_SAMPLES = 64
_PERIOD = 8  # steps timed at a time: the guide is asked every eighth


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Time unlearning of one colour, sampling, and steps of the training.

    Parameters
    ----------
    quick : bool
        Fewer steps, and a small problem also on a GPU; the figures then say little.
    seed : int

    Returns
    -------
    BenchResult
    """
    device = resolve_device("auto")
    large = device.type == "cuda" and not quick
    rows = _concept_rows(quick, seed) + _step_rows(device, large, seed)
    settings = {"quick": quick, "targets": ["red"], "device": str(device)}
    return BenchResult("gan", rows, seed, settings)


def _concept_rows(quick: bool, seed: int) -> list[Row]:
    from conceptlab.assets import embedded_card, load_embedded_gan
    from conceptlab.assets.gan_world import GAN_FAMILIES
    from conceptlab.encoders import load_encoder

    encoder = load_encoder("embedded", device="cpu")
    module = load_embedded_gan()
    generator = Generator(module)
    options: dict[str, Any] = {}
    if quick:
        options = {
            "n_survey": 256,
            "mapper_steps": 4,
            "steps": 4,
            "n_held_out": 32,
            "fold_steps": 20,
        }
    unlearner = TextToUnlearn(encoder, "red", retain=GAN_FAMILIES, random_state=seed, **options)
    start = time.process_time()
    result = unlearner.unlearn(module, progress=False)
    spent = time.process_time() - start
    trained = 60 * float(embedded_card("generator")["cpu_minutes"])
    z = generator.draw(_SAMPLES, torch_generator(seed))

    def sample(which: Generator) -> torch.Tensor:
        with torch.no_grad():
            return which.images(z)

    before, _ = cpu_time(lambda: sample(generator), repeats=5)
    after, _ = cpu_time(lambda: sample(result.generator), repeats=5)
    return [
        Row(
            "unlearn one concept",
            spent,
            trained,
            spent / trained,
            note="peer: training the generator",
        ),
        Row(
            "unlearn one concept, budget",
            spent,
            60.0,
            spent / 60,
            "<= 1",
            None if quick else spent <= 60,
            note="peer: 60 CPU s",
        ),
        Row(
            "sample",
            _SAMPLES / after,
            _SAMPLES / before,
            before / after,
            ">= 0.9",
            None if quick else after <= before / 0.9,
            "images/CPU s",
            "peer: the original generator",
        ),
    ]


def _step_rows(device: torch.device, large: bool, seed: int) -> list[Row]:
    """Time steps of the training beside the bare passes that any such training makes."""
    side, width, batch = (256, 512, 24) if large else (32, 32, 24)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = StyleShaped(side, width).to(device).eval()
    encoder = _encoder(device, large, seed)
    given = Generator(module)
    rows = []
    for name, make in (("by default", TextToUnlearn), ("of the paper", TextToUnlearn.paper)):
        ours, bare = _steps(make(encoder, "red", batch_size=batch), given, seed)
        times = [_best(fn, device) / _PERIOD for fn in (ours, bare)]
        ratio = times[1] / times[0]
        rows.append(
            Row(
                f"steps {name}, {side}x{side}",
                1 / times[0],
                1 / times[1],
                ratio,
                ">= 0.8" if large else "",
                ratio >= 0.8 if large else None,
                "steps/s" if device.type == "cuda" else "steps/CPU s",
                f"peer: generator and {encoder.name}, forward and backward, batch {batch}",
            )
        )
    return rows


def _steps(
    options: TextToUnlearn, given: Generator, seed: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Give eight steps of the training, and eight of the bare passes at the same batch."""
    draws, guide = torch_generator(seed), Guide(options.encoder, device=given.device)
    trained = given.fork()
    seen = survey(given.frozen(), guide, 64, draws, batch=16)
    shows = torch.ones(64, device=given.device)
    if options.gate:
        shows[16:] = 0
    sight = Sight(given.frozen(), guide, seen, [], {}, shows, {}, {}, None)
    mapper = LatentMapper(seen.styles).to(given.device)
    direction = torch.ones_like(seen.embeddings[0])
    work = Objective(Weights.of(options), sight, trained, mapper, direction, options.gate)
    body: Any = trained.module.synthesis
    learn(body, True)
    parameters = list(body.parameters())

    def ours() -> None:
        finetune(
            parameters,
            lambda step: work.losses(step, draws),
            steps=_PERIOD,
            lr=1e-6,
            draws=draws,
            progress=False,
        )

    def bare() -> None:
        for _ in range(_PERIOD):
            images = trained.images_of(seen.styles[: options.batch_size])
            body.zero_grad(set_to_none=True)
            guide.embed(images).sum().backward()

    return ours, bare


def _best(fn: Callable[[], None], device: torch.device, repeats: int = 3) -> float:
    """Take the least time of some runs after one that does not count."""
    fn()
    if device.type == "cpu":
        return cpu_time(fn, repeats=repeats)[0]
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        fn()
        torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _encoder(device: torch.device, large: bool, seed: int) -> Any:
    """Give a ViT-B/32 with random weights, or the embedded encoder for a small problem."""
    from conceptlab.encoders import OpenClipEncoder, load_encoder

    if not large:
        return load_encoder("embedded", device=str(device))
    from conceptlab.encoders.dependencies import import_package

    open_clip = import_package("open_clip", "open_clip_torch")
    config = open_clip.get_model_config("ViT-B-32")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = open_clip.CLIP(**config).eval().requires_grad_(False)
    settings = vars(open_clip.transform.PreprocessCfg(size=config["vision_cfg"]["image_size"]))
    return OpenClipEncoder(
        model.to(device), open_clip.SimpleTokenizer(), preprocess=settings, name="ViT-B-32"
    )
