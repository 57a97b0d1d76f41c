"""Train the embedded generator: ``python -m conceptlab.assets.train_gan``.

First the generator is warmed up by regression: its codes and the first numbers of
its Gaussian part are those of rendered scenes, which it learns to paint. Started
from nothing, the game below takes five times as long to cover every combination.

Then two discriminators: one sees pixels, the other frozen features of a third small
network (a projected discriminator), which sees at once when attributes are mixed
up. The third network is trained first, and used for nothing else. Both judge a
batch as a whole too (minibatch standard deviation), and the third network must
read the codes in the image; so every combination stays covered. The pixel
discriminator is kept smooth by a lazy R1 penalty; an average of the weights is
what is shipped, with its batch statistics taken anew.
"""

from __future__ import annotations

__all__ = ["Trainer", "evaluate", "main", "train"]

import time
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from conceptlab.assets import GAN, GAN_KIND
from conceptlab.assets.gan import SceneGenerator, SceneJudge
from conceptlab.assets.gan_world import (
    GAN_FAMILIES,
    gan_factors,
    gan_images,
    gan_labels,
    gan_layout,
    gan_masks,
    gan_scenes,
)
from conceptlab.assets.train_judge import is_clear
from conceptlab.assets.training import cpu_minutes, one_cycle, run_script, seeded, show
from conceptlab.io.files import Bundle, write_bundle

SETTINGS: dict[str, Any] = {
    "warm_steps": 700,
    "steps": 500,
    "batch": 32,
    "scenes": 12288,
    "warm_learning_rate": 4e-3,
    "generator_learning_rate": 7e-4,
    "discriminator_learning_rate": 1.5e-3,
    "projected_weight": 1.0,
    "codes_weight": 0.2,
    "r1": 0.02,
    "r1_every": 16,
    "average": 0.995,
    "feature_steps": 240,
    "feature_learning_rate": 4e-3,
    "statistics_batches": 16,
}
TOLERANCE = {"clear": 0.05, "largest_imbalance": 0.3}


class _Features(nn.Module):
    """The third network: an attribute classifier whose stages a discriminator looks at."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        widths = (3, 24, 48, 96)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, 1, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
                nn.Conv2d(b, b, 3, 2, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            )
            for a, b in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1] * 16, outputs)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = 4 * x - 2
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def _spread(x: torch.Tensor) -> torch.Tensor:
    """Append the standard deviation over the batch, averaged over channels, as a channel."""
    deviation = (x.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=0)
    return torch.cat([x, deviation.expand(len(x), 1, -1, -1)], dim=1)


class _Pixels(nn.Module):
    """Discriminator of pixels."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 96)) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, widths[0], 3, 1, 1)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.last = nn.Conv2d(widths[-1] + 1, 96, 3, 1, 1)
        self.score = nn.Linear(96 * 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.leaky_relu(self.first(4 * x - 2), 0.2)
        for stage in self.stages:
            x = functional.leaky_relu(stage(x), 0.2)
        x = functional.leaky_relu(self.last(_spread(x)), 0.2)
        return self.score(x.flatten(1))[:, 0]


class _Projected(nn.Module):
    """Discriminators of frozen features, one a stage, behind fixed random mixtures."""

    def __init__(self, channels: tuple[int, ...] = (24, 48, 96), width: int = 48) -> None:
        super().__init__()
        self.mixtures = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.mixtures.requires_grad_(False)
        self.heads = nn.ModuleList()
        for index in range(len(channels)):
            layers: list[nn.Module] = []
            for _ in range(len(channels) - 1 - index):
                layers += [spectral_norm(nn.Conv2d(width, width, 4, 2, 1)), nn.LeakyReLU(0.2)]
            self.heads.append(nn.Sequential(*layers))
        self.scores = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(width + 1, width, 3, 1, 1)),
                nn.LeakyReLU(0.2),
                nn.Flatten(),
                spectral_norm(nn.Linear(width * 16, 1)),
            )
            for _ in channels
        )

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        scores = []
        rows = zip(self.mixtures, self.heads, self.scores, features, strict=True)
        for mixture, head, score, x in rows:
            scores.append(score(_spread(head(mixture(x)))))
        return torch.cat(scores, dim=1)


def _learn_features(chosen: dict[str, Any], seed: int, quiet: bool) -> _Features:
    images, labels = gan_scenes(min(8192, chosen["scenes"]), seed=seed + 1000)
    sizes = [len(values) for values in GAN_FAMILIES.values()]
    net = _Features(sum(sizes)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1.0, weight_decay=0.02)
    for step in range(chosen["feature_steps"]):
        for group in optimiser.param_groups:
            group["lr"] = one_cycle(step, chosen["feature_steps"], chosen["feature_learning_rate"])
        rows = torch.randint(len(images), (64,))
        x = images[rows] + 0.05 * torch.rand(64, 1, 1, 1) * torch.randn(64, *images.shape[1:])
        parts = net.head(net(x)[-1].flatten(1)).split(sizes, 1)
        loss = torch.stack(
            [functional.cross_entropy(p, labels[rows, i]) for i, p in enumerate(parts)]
        ).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    show(f"features: loss {loss.item():.3f}", quiet=quiet)
    return net.eval().requires_grad_(False)


class Trainer:
    """The state of a training: step it, then take the average generator.

    Parameters
    ----------
    seed : int
        Of the scenes; initial weights and draws come from torch's global
        generator, which :func:`train` forks.
    chosen : dict
        ``SETTINGS``, with changes.
    quiet : bool
    """

    def __init__(self, seed: int, chosen: dict[str, Any], *, quiet: bool = True) -> None:
        self.chosen = chosen
        layout = gan_layout(chosen["scenes"], seed=seed)
        self.images = gan_images(layout, seed=seed, split="train")
        self.labels = torch.from_numpy(gan_labels(layout))
        self.factors, self.masks = gan_factors(layout), gan_masks(layout)
        self.features = _learn_features(chosen, seed, quiet)
        self.generator = SceneGenerator().to(memory_format=torch.channels_last)
        self.average = SceneGenerator()
        self.average.load_state_dict(self.generator.state_dict())
        self.average.requires_grad_(False)
        self.pixels = _Pixels().to(memory_format=torch.channels_last)
        self.projected = _Projected().to(memory_format=torch.channels_last)
        judges = [
            p for m in (self.pixels, self.projected) for p in m.parameters() if p.requires_grad
        ]
        self.d_step = torch.optim.Adam(judges, lr=1.0, betas=(0.0, 0.99))
        self.g_step = torch.optim.Adam(self.generator.parameters(), lr=1.0, betas=(0.0, 0.99))
        self.sizes = [len(values) for values in GAN_FAMILIES.values()]
        self.step = 0

    def warm_up(self) -> float:
        """Learn to paint scenes from their codes and factors; gives the last loss."""
        chosen, generator = self.chosen, self.generator
        codes = torch.cat(
            [functional.one_hot(self.labels[:, i], k).float() for i, k in enumerate(self.sizes)],
            dim=1,
        )
        weight = 0.3 + 2 * self.masks
        optimiser = torch.optim.Adam(generator.parameters(), lr=1.0, betas=(0.5, 0.99))
        loss = torch.zeros(())
        for step in range(chosen["warm_steps"]):
            rate = one_cycle(step, chosen["warm_steps"], chosen["warm_learning_rate"])
            optimiser.param_groups[0]["lr"] = rate
            rows = torch.randint(len(codes), (chosen["batch"],))
            free = torch.randn(len(rows), generator.gaussian - self.factors.shape[1])
            z = torch.cat([self.factors[rows], free, codes[rows]], dim=1)
            off = (generator(z) - self.images[rows]).abs()
            loss = (weight[rows] * off).mean() + functional.avg_pool2d(off, 2).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        self.average.load_state_dict(generator.state_dict())
        return loss.item()

    def advance(self) -> tuple[float, float]:
        """Take one step of the discriminators and one of the generator."""
        chosen, n = self.chosen, self.chosen["batch"]
        at = self.step / chosen["steps"]
        decay = min(1.0, 2.5 * (1 - at)) + 1e-3
        self.d_step.param_groups[0]["lr"] = decay * chosen["discriminator_learning_rate"]
        self.g_step.param_groups[0]["lr"] = decay * chosen["generator_learning_rate"]
        weight = chosen["projected_weight"]
        real = self.images[torch.randint(len(self.images), (n,))]
        real = real.contiguous(memory_format=torch.channels_last)
        z = self.generator.draw_latents(n)
        fake = self.generator(z)
        still = fake.detach()

        smooth = self.step % chosen["r1_every"] == 0
        real.requires_grad_(smooth)
        on_real = self.pixels(real)
        loss = functional.softplus(-on_real).mean()
        loss = loss + functional.softplus(self.pixels(still)).mean()
        if smooth:
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            penalty = slope.square().sum((1, 2, 3)).mean()
            loss = loss + 0.5 * chosen["r1"] * chosen["r1_every"] * penalty
        with torch.no_grad():
            seen_real, seen_fake = self.features(real.detach()), self.features(still)
        loss = loss + weight * functional.relu(1 - self.projected(seen_real)).mean()
        loss = loss + weight * functional.relu(1 + self.projected(seen_fake)).mean()
        self.d_step.zero_grad(set_to_none=True)
        loss.backward()
        self.d_step.step()

        for module in (self.pixels, self.projected.heads, self.projected.scores):
            module.requires_grad_(False)
        g_loss = functional.softplus(-self.pixels(fake)).mean()
        seen = self.features(fake)
        g_loss = g_loss - weight * self.projected(seen).mean()
        logits = self.features.head(seen[-1].flatten(1)).split(self.sizes, 1)
        codes = z[:, self.generator.gaussian :].split(self.sizes, 1)
        read = [functional.cross_entropy(a, b) for a, b in zip(logits, codes, strict=True)]
        g_loss = g_loss + chosen["codes_weight"] * torch.stack(read).sum()
        self.g_step.zero_grad(set_to_none=True)
        g_loss.backward()
        self.g_step.step()
        for module in (self.pixels, self.projected.heads, self.projected.scores):
            module.requires_grad_(True)

        keep = min(chosen["average"], (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.generator.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 1 - keep)
        self.step += 1
        return loss.item(), g_loss.item()

    @torch.no_grad()
    def finish(self) -> SceneGenerator:
        """Take batch statistics and mean style of the average generator; give a copy of it."""
        batches = self.chosen["statistics_batches"]
        model = SceneGenerator()
        model.load_state_dict(self.average.state_dict())
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches below
        model.train()
        styles = []
        for _ in range(batches):
            z = model.draw_latents(256)
            styles.append(model.mapping(z)[:, 0].mean(0))
            model(z)
        model.mapping.w_avg.copy_(torch.stack(styles).mean(0))
        for norm in norms:
            norm.momentum = 0.1
        return model.eval()


def train(*, seed: int = 0, quiet: bool = False, **settings: Any) -> SceneGenerator:
    """Train the generator.

    Parameters
    ----------
    seed : int
        Of the initial weights, the scenes and the latents.
    quiet : bool
        Whether to write no log to the standard error stream.
    **settings
        Replace entries of ``SETTINGS``.

    Returns
    -------
    SceneGenerator
        In eval mode.
    """
    chosen = {**SETTINGS, **settings}
    start = time.process_time()
    with seeded(seed):
        trainer = Trainer(seed, chosen, quiet=quiet)
        loss = trainer.warm_up()
        show(f"warmed up: loss {loss:.4f}  {cpu_minutes(start)} CPU min", quiet=quiet)
        for step in range(chosen["steps"]):
            d_loss, g_loss = trainer.advance()
            if step % 50 == 49:
                show(
                    f"step {step + 1:4d}  discriminators {d_loss:.3f}  generator {g_loss:.3f}  "
                    f"{cpu_minutes(start)} CPU min",
                    quiet=quiet,
                )
        return trainer.finish()


@torch.no_grad()
def evaluate(
    model: SceneGenerator, judge: SceneJudge, *, n: int = 4000, seed: int = 0
) -> dict[str, float]:
    """Measure by the judge what the generator shows.

    Parameters
    ----------
    model : SceneGenerator
    judge : SceneJudge
    n : int
        Number of samples.
    seed : int

    Returns
    -------
    dict of str to float
        ``"clear"``: share of clear combinations; ``"confidence"``: mean over
        samples of the mean largest probability; ``"covered"``: number of
        combinations among the clear samples; ``"largest_imbalance"``: the
        largest factor between an attribute's share and the even one; the
        share of every attribute.
    """
    draws = torch.Generator().manual_seed(seed)
    parts = [
        judge.probabilities(model(model.draw_latents(500, draws))) for _ in range(max(1, n // 500))
    ]
    found = {name: torch.cat([p[name] for p in parts]) for name in GAN_FAMILIES}
    clear = is_clear(found)
    best = torch.stack([p.amax(1) for p in found.values()], dim=1)
    values = torch.stack([p.argmax(1) for p in found.values()], dim=1)
    seen = {tuple(row) for row in values[clear].tolist()}
    every = set(product(*(range(len(v)) for v in GAN_FAMILIES.values())))
    figures: dict[str, float] = {
        "clear": float(clear.float().mean()),
        "confidence": float(best.mean()),
        "covered": len(seen & every),
    }
    imbalance, shares = [], {}
    for i, (family, names) in enumerate(GAN_FAMILIES.items()):
        share = np.bincount(values[:, i].numpy(), minlength=len(names)) / len(values)
        ratio = np.maximum(share * len(names), 1e-9)
        imbalance.append(float(np.max(np.maximum(ratio, 1 / ratio))))
        shares.update({f"share {family} {v}": float(s) for v, s in zip(names, share, strict=True)})
    figures["largest_imbalance"] = max(imbalance)
    return {name: round(value, 4) for name, value in {**figures, **shares}.items()}


def save(
    model: SceneGenerator, path: Path, measured: dict[str, float], card: dict[str, Any]
) -> None:
    """Write weights, configuration and card as a bundle."""
    full = {
        "name": "embedded generator",
        "task": "scenes of one object, 32x32",
        "script": "python -m conceptlab.assets.train_gan",
        "parameters": sum(p.numel() for p in model.parameters()),
        "test": "4000 samples, seed 0, seen by the embedded judge",
        "measured": measured,
        "tolerance": TOLERANCE,
        **card,
    }
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    config = {"gaussian": model.gaussian, "codes": list(model.codes)}
    data = {"config": config, "card": full}
    write_bundle(path, Bundle(GAN_KIND, data, tensors, {"README.md": _readme(full).encode()}))


def _readme(card: dict[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in card["measured"].items())
    families = "\n".join(f"| {name} | {', '.join(v)} |" for name, v in GAN_FAMILIES.items())
    count = int(np.prod([len(values) for values in GAN_FAMILIES.values()]))
    return f"""# The embedded generator

A generator of {card["parameters"]:,} parameters that paints 32x32 scenes of one object on snow: a
mapping network and a synthesis network whose channels are scaled and shifted by the style. Its
latent is a Gaussian beside one-hot codes, which the mapping network mixes into one style. It is
there so that unlearning can be tried and measured within a minute; it shows nothing but these
{count} combinations:

| family | values |
|---|---|
{families}

Made by `{card["script"]}` in {card["cpu_minutes"]} CPU minutes on one thread, seed {card["seed"]}.
Training again gives `clear` to within {card["tolerance"]["clear"]}.

| {card["test"]} | |
|---|---|
{rows}

`clear`: share of samples in which the judge gives every family a value with a probability of at
least 0.8. `covered`: how many of the {count} combinations these show. `largest_imbalance`: largest
factor between the share of a value and the even share.
"""


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, and write the bundle with its card."""
    from conceptlab.assets import load_embedded_judge

    run_script(
        arguments,
        __doc__,
        out=GAN,
        seed=0,
        settings=SETTINGS,
        train=train,
        evaluate=lambda model: evaluate(model, load_embedded_judge()),
        save=save,
    )


if __name__ == "__main__":
    main()
