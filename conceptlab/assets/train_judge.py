"""Train the judge of generated scenes: ``python -m conceptlab.assets.train_judge``.

It names colour, shape, texture, size and accessory of a 32x32 scene. Every other
batch blends two scenes and asks for blended labels, so that an image between two
values gets a probability between them instead of a confident guess.
"""

from __future__ import annotations

__all__ = ["evaluate", "main", "train"]

import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from conceptlab.assets import JUDGE, JUDGE_KIND
from conceptlab.assets.gan import SceneJudge
from conceptlab.assets.gan_world import GAN_FAMILIES, gan_scenes
from conceptlab.assets.training import cpu_minutes, one_cycle, run_script, seeded, show
from conceptlab.io.files import Bundle, write_bundle

SETTINGS: dict[str, Any] = {
    "steps": 600,
    "batch": 64,
    "scenes": 16384,
    "peak_learning_rate": 4e-3,
    "weight_decay": 0.02,
    "noise": 0.03,
}
TOLERANCE = 0.01
CLEAR = 0.8
"""An image shows a clear combination if every family has a value of at least this probability."""


def train(*, seed: int = 101, quiet: bool = False, **settings: Any) -> SceneJudge:
    """Train the judge.

    Parameters
    ----------
    seed : int
        Of the initial weights and of the scenes.
    quiet : bool
        Whether to write no log to the standard error stream.
    **settings
        Replace entries of ``SETTINGS``.

    Returns
    -------
    SceneJudge
        In eval mode.
    """
    chosen = {**SETTINGS, **settings}
    start = time.process_time()
    with seeded(seed):
        images, labels = gan_scenes(chosen["scenes"], seed=seed, split="val", varied=True)
        truth = torch.cat(
            [
                functional.one_hot(labels[:, i], len(values)).float()
                for i, values in enumerate(GAN_FAMILIES.values())
            ],
            dim=1,
        )
        sizes = [len(values) for values in GAN_FAMILIES.values()]
        model = SceneJudge(GAN_FAMILIES).to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=1.0, weight_decay=chosen["weight_decay"]
        )
        for step in range(chosen["steps"]):
            for group in optimiser.param_groups:
                group["lr"] = one_cycle(step, chosen["steps"], chosen["peak_learning_rate"])
            rows = torch.randint(len(images), (chosen["batch"],))
            x, y = images[rows], truth[rows]
            if step % 2:
                share = torch.rand(len(rows), 1)
                x = share[..., None, None] * x + (1 - share[..., None, None]) * x.flip(0)
                y = share * y + (1 - share) * y.flip(0)
            x = x + chosen["noise"] * torch.rand(len(x), 1, 1, 1) * torch.randn_like(x)
            parts = zip(model(x).split(sizes, 1), y.split(sizes, 1), strict=True)
            loss = torch.stack([functional.cross_entropy(a, b) for a, b in parts]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if step % 50 == 49:
                text = f"step {step + 1:4d}  loss {loss.item():.3f}  {cpu_minutes(start)} CPU min"
                show(text, quiet=quiet)
        return model.to(memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def evaluate(model: SceneJudge, *, n: int = 2000, seed: int = 0) -> dict[str, float]:
    """Measure accuracy on test scenes, and how blends are told from them.

    Parameters
    ----------
    model : SceneJudge
    n : int
    seed : int

    Returns
    -------
    dict of str to float
        Accuracy by family; ``"clear"``, the share of scenes judged as clear
        combinations; ``"clear_blends"``, the share of even blends of two scenes
        that differ in colour and shape (lower is better).
    """
    images, labels = gan_scenes(n, seed=seed, split="test", varied=True)
    found = model.probabilities(images)
    figures = {
        name: float((p.argmax(1) == labels[:, i]).float().mean())
        for i, (name, p) in enumerate(found.items())
    }
    figures["clear"] = float(is_clear(found).float().mean())
    other = images.flip(0)
    differ = (labels[:, :2] != labels.flip(0)[:, :2]).all(1)
    blends = model.probabilities(0.5 * (images + other)[differ])
    figures["clear_blends"] = float(is_clear(blends).float().mean())
    return {name: round(value, 4) for name, value in figures.items()}


def is_clear(probabilities: dict[str, torch.Tensor]) -> torch.Tensor:
    """Tell which images show a clear combination, (n,) bool."""
    best = torch.stack([p.amax(1) for p in probabilities.values()], dim=1)
    return best.amin(1) >= CLEAR


def save(model: SceneJudge, path: Path, measured: dict[str, float], card: dict[str, Any]) -> None:
    """Write weights, configuration and card as a bundle."""
    full = {
        "name": "embedded judge",
        "task": "attributes of 32x32 scenes of one object",
        "script": "python -m conceptlab.assets.train_judge",
        "parameters": sum(p.numel() for p in model.parameters()),
        "test": "gan_scenes(2000, seed=0, split='test', varied=True)",
        "clear_threshold": CLEAR,
        "measured": measured,
        "tolerance": TOLERANCE,
        **card,
    }
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    data = {"config": {"families": model.families}, "card": full}
    write_bundle(
        path, Bundle(JUDGE_KIND, data, tensors, {"README.md": _readme(full, model).encode()})
    )


def _readme(card: dict[str, Any], model: SceneJudge) -> str:
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in card["measured"].items())
    families = "\n".join(f"| {name} | {', '.join(v)} |" for name, v in model.families.items())
    return f"""# The embedded judge

A network of {card["parameters"]:,} parameters that names the attributes of a 32x32 scene of one
object. It is the independent opinion on the embedded generator: neither the encoder that guides an
unlearning nor any generator was trained with it, and it has its own architecture, scenes and seed.

Made by `{card["script"]}` in {card["cpu_minutes"]} CPU minutes on one thread, seed {card["seed"]}.
Training again gives these figures to within {card["tolerance"]}.

| {card["test"]} | |
|---|---|
{rows}

`clear`: every family has a value with a probability of at least {card["clear_threshold"]}.
`clear_blends`: the same on even blends of two scenes that differ in colour and shape; low is right.

| family | values |
|---|---|
{families}
"""


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, and write the bundle with its card."""
    run_script(
        arguments,
        __doc__,
        out=JUDGE,
        seed=101,
        settings=SETTINGS,
        train=train,
        evaluate=evaluate,
        save=save,
    )


if __name__ == "__main__":
    main()
