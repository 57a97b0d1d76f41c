"""Unlearning in a generator: time a concept beside training the generator, and samples a second.

The time of training is that of the generator's card, measured when it was made; the machine
may have been another.
"""

from __future__ import annotations

__all__ = ["run"]

import time
from typing import Any

import torch

from conceptlab.bench import BenchResult, Row, cpu_time


def run(*, quick: bool = False, seed: int = 0) -> BenchResult:
    """Time unlearning of one colour and sampling.

    Parameters
    ----------
    quick : bool
        Fewer steps; the figures then say little.
    seed : int

    Returns
    -------
    BenchResult
    """
    from conceptlab.assets import embedded_card, load_embedded_gan
    from conceptlab.assets.gan_world import GAN_FAMILIES
    from conceptlab.encoders import load_encoder
    from unlearning.gan.generators import Generator
    from unlearning.gan.guide import Guide
    from unlearning.gan.text_to_unlearn import TextToUnlearn

    encoder = load_encoder("embedded", device="cpu")
    module = load_embedded_gan()
    generator = Generator(module)
    options: dict[str, Any] = {}
    if quick:
        options = {"n_survey": 256, "mapper_steps": 4, "steps": 4, "n_held_out": 32}
    unlearner = TextToUnlearn(encoder, "red", retain=GAN_FAMILIES, random_state=seed, **options)
    start = time.process_time()
    result = unlearner.unlearn(module)
    spent = time.process_time() - start
    trained = 60 * float(embedded_card("generator")["cpu_minutes"])
    ratio = spent / trained
    z = generator.draw(64, torch.Generator().manual_seed(seed))
    guide = Guide(encoder)

    def sample(which: Generator) -> torch.Tensor:
        with torch.no_grad():
            return which.images(z)

    def step() -> None:
        images = generator.images(z[:16])
        guide.embed(images).sum().backward()

    def bare() -> None:
        generator.images(z[:16]).sum().backward()

    before, _ = cpu_time(lambda: sample(generator))
    after, _ = cpu_time(lambda: sample(result.generator))
    whole, _ = cpu_time(step)
    alone, _ = cpu_time(bare)
    rows = [
        Row("unlearn one concept", spent, trained, ratio, note="peer: training the generator"),
        Row(
            "unlearn one concept, budget",
            spent,
            60.0,
            spent / 60,
            goal="<= 1",
            met=None if quick else spent <= 60,
            note="peer: 60 CPU s",
        ),
        Row(
            "sample 64 images",
            after,
            before,
            after / before,
            goal="<= 1.1",
            met=after <= 1.1 * before,
            note="peer: the original generator",
        ),
        Row(
            "generator and guide, 16 images, both ways",
            whole,
            alone,
            whole / alone,
            note="peer: the generator alone",
        ),
    ]
    return BenchResult("gan", rows, seed, {"quick": quick, "targets": ["red"]})
