"""Train the embedded image-text encoder: ``python -m conceptlab.assets.train_encoder``.

A small ``open_clip.CLIP`` learns from images and captions by a contrastive
loss. No scene is seen twice, and 32 of the 256 combinations of colour, shape
and texture are never shown. Captions tell a part of the truth in varied words.
Since it is known which caption holds for which image, all the true ones of an
image are its positives; each image is also contrasted with short captions that
differ in one value, such as "a red thing" with "a green object".

The image tower learns first, against one free vector for every attribute value
in place of the texts, and then both towers learn together. Started together they
wait for each other: after 1000 steps shapes and hats were still at chance.
"""

from __future__ import annotations

__all__ = ["attribute_prompts", "evaluate", "main", "train"]

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch.nn import functional

from conceptlab.assets import ENCODER, ENCODER_KIND
from conceptlab.assets.clip import (
    CONFIG,
    MERGES,
    PREPROCESS,
    WEIGHTS,
    build,
    learn_merges,
    merges_file,
    model_config,
    tokenizer_of,
    vocabulary_words,
)
from conceptlab.assets.training import cpu_minutes, one_cycle, seeded, show
from conceptlab.datasets.captions import CLAIM_FAMILIES, claims_hold, draw_claims, word
from conceptlab.datasets.layout import MAX_OBJECTS
from conceptlab.datasets.scenes import load_scenes
from conceptlab.datasets.world import FAMILIES, HELD_OUT
from conceptlab.io.files import Bundle, atomic_write, write_bundle

SETTINGS: dict[str, Any] = {
    "look_steps": 600,
    "steps": 450,
    "batch": 128,
    "captions": 32,
    "look_learning_rate": 4e-3,
    "value_learning_rate": 1e-2,
    "image_learning_rate": 1e-3,
    "text_learning_rate": 2e-3,
    "weight_decay": 0.05,
    "hats": 0.35,
    "shape_weight": 3.0,
    "logit_scale": 20.0,
    "single_object_batches": "2 of 3",
}
TOLERANCE = 0.03
MAX_LOGIT_SCALE = float(np.log(100))


def attribute_claims() -> tuple[np.ndarray, dict[str, slice]]:
    """Give the claims of one value each, and the rows of each family.

    Returns
    -------
    claims : ndarray of shape (n_values, 3, 7)
    rows : dict of str to slice
        The accessory's second row says that there is none.
    """
    claims, rows, begin = [], {}, 0
    for column, family in enumerate(CLAIM_FAMILIES):
        values = [1, 0] if family == "hat" else list(range(len(FAMILIES[family])))
        part = np.full((len(values), MAX_OBJECTS, len(CLAIM_FAMILIES)), -1, dtype=np.int8)
        part[:, 0, column] = values
        claims.append(part)
        rows["accessory" if family == "hat" else family] = slice(begin, begin + len(values))
        begin += len(values)
    return np.concatenate(claims), rows


def attribute_prompts() -> dict[str, list[str]]:
    """Give the zero-shot prompts: one a value, family by family.

    Returns
    -------
    dict of str to list of str
        Such as ``{"colour": ["a photo of a red object", ...], ...}``; for the
        accessory the second prompt says that there is none.
    """
    claims, rows = attribute_claims()
    prompts = word(claims)
    return {family: prompts[part] for family, part in rows.items()}


def train(*, seed: int = 0, quiet: bool = False, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Train the encoder.

    Parameters
    ----------
    seed : int
        Of the initial weights, the scenes and the captions.
    quiet : bool
        Whether to write no log to the standard error stream.
    **settings
        Replace entries of ``SETTINGS``.

    Returns
    -------
    model : open_clip.CLIP
        In eval mode.
    config : dict
        Its ``model_cfg``.
    """
    chosen = {**SETTINGS, **settings}
    merges = learn_merges(vocabulary_words())
    config = model_config(len(merges))
    with seeded(seed), tempfile.TemporaryDirectory() as folder:
        merges_path = atomic_write(Path(folder) / MERGES, merges_file(merges))
        tokenizer = tokenizer_of(merges_path, config["text_cfg"]["context_length"])
        model = build(config)
        model.visual.to(memory_format=torch.channels_last)
        rng = np.random.default_rng(seed)
        model.train()
        _learn_looks(model, seed, chosen, quiet)
        _learn_together(model, tokenizer, seed, rng, chosen, quiet)
        model.visual.to(memory_format=torch.contiguous_format)
        return model.eval(), config


def _learn_looks(model: Any, seed: int, chosen: dict[str, Any], quiet: bool) -> None:
    """Train the image tower against one free vector for every attribute value."""
    claims, families = attribute_claims()
    tower = list(model.visual.parameters())
    values = torch.nn.Parameter(0.1 * torch.randn(len(claims), model.visual.output_dim))
    groups = [
        {"params": tower, "peak": chosen["look_learning_rate"]},
        {"params": [values], "peak": chosen["value_learning_rate"]},
    ]

    def loss_of(step: int) -> torch.Tensor:
        layout, pixels = _batch(step, seed, chosen)
        true = torch.from_numpy(claims_hold(claims, layout))
        logits = model.visual(pixels) @ values.T
        loss = torch.zeros(())
        for family, rows in families.items():
            weight = chosen["shape_weight"] if family == "shape" else 1.0
            loss = loss + weight * _contrast(logits[:, rows], true[rows].T)
        return loss

    _descend("looks", groups, tower, loss_of, chosen["look_steps"], chosen, quiet)


def _learn_together(
    model: Any,
    tokenizer: Any,
    seed: int,
    rng: np.random.Generator,
    chosen: dict[str, Any],
    quiet: bool,
) -> None:
    """Train both towers on images and captions."""
    short, families = attribute_claims()
    tower = list(model.visual.parameters())
    rest = [p for name, p in model.named_parameters() if not name.startswith("visual.")]
    groups = [
        {"params": tower, "peak": chosen["image_learning_rate"]},
        {"params": rest, "peak": chosen["text_learning_rate"]},
    ]
    with torch.no_grad():
        model.logit_scale.fill_(float(np.log(chosen["logit_scale"])))

    def loss_of(step: int) -> torch.Tensor:
        layout, pixels = _batch(chosen["look_steps"] + step, seed, chosen)
        claims = np.concatenate([short, draw_claims(layout[: chosen["captions"]], rng)])
        texts = word(claims, rng.random(len(claims)))
        true = torch.from_numpy(claims_hold(claims, layout))
        images = model.encode_image(pixels, normalize=True)
        vectors = model.encode_text(tokenizer(texts), normalize=True)
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        logits = model.logit_scale.exp() * images @ vectors.T  # (images, texts)
        within = [_contrast(logits[:, rows], true[rows].T) for rows in families.values()]
        across = _contrast(logits, true.T) + _contrast(logits.T, true)
        return torch.stack(within).mean() + 0.5 * across

    _descend("both", groups, list(model.parameters()), loss_of, chosen["steps"], chosen, quiet)


def _batch(step: int, seed: int, chosen: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """Render the scenes of a step; give what they hold, and the tower's input."""
    # Small main objects stand alone only, so most batches show one object a scene.
    scenes = load_scenes(
        "train",
        chosen["batch"],
        seed=seed,
        species=None,
        combinations="seen",
        n_objects=(2, 3) if step % 3 == 2 else 1,
        hats=chosen["hats"],
        start=step * chosen["batch"],
    )
    pixels = torch.from_numpy(normalise(scenes.images))
    return scenes.layout, pixels.to(memory_format=torch.channels_last)


def _descend(
    stage: str,
    groups: list[dict[str, Any]],
    clipped: list[Any],
    loss_of: Callable[[int], torch.Tensor],
    steps: int,
    chosen: dict[str, Any],
    quiet: bool,
) -> None:
    """Run one stage: AdamW with one cycle of the learning rates."""
    optimiser = torch.optim.AdamW(
        groups, lr=1.0, betas=(0.9, 0.98), weight_decay=chosen["weight_decay"]
    )
    start, smooth = time.process_time(), 0.0
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = one_cycle(step, steps, group["peak"])
        loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        optimiser.step()
        now = loss.item()
        smooth = now if step == 0 else 0.95 * smooth + 0.05 * now
        if step % 20 == 19:
            text = f"{stage} {step + 1:4d}  loss ~{smooth:.3f}  {cpu_minutes(start)} CPU min"
            show(text, quiet=quiet)


def _contrast(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row with its positives, all alike; rows without any do not count."""
    count = true.sum(dim=1)
    rows = count > 0
    weights = true[rows] / count[rows, None]
    return functional.cross_entropy(logits[rows], weights)


def normalise(images: np.ndarray) -> np.ndarray:
    """Shift and scale images in [0, 1] as the preprocessing of the model says."""
    mean = np.array(PREPROCESS["mean"], dtype=np.float32)[:, None, None]
    std = np.array(PREPROCESS["std"], dtype=np.float32)[:, None, None]
    return np.asarray((images - mean) / std, dtype=np.float32)


@torch.no_grad()
def evaluate(
    model: Any, tokenizer: Any, *, n: int = 2000, split: str = "test", seed: int = 0
) -> dict[str, float]:
    """Measure zero-shot accuracy: the nearest prompt of a family, on single objects.

    Parameters
    ----------
    model, tokenizer
        As :func:`conceptlab.assets.embedded_open_clip` gives them.
    n : int
        Scenes of seen, and as many of held-out combinations.
    split : str
    seed : int

    Returns
    -------
    dict of str to float
        ``"colour"`` ... for the seen combinations, ``"colour_unseen"`` ... for
        the held-out ones.
    """
    figures = {}
    prompts = {
        family: model.encode_text(tokenizer(texts), normalize=True)
        for family, texts in attribute_prompts().items()
    }
    for combinations, suffix in (("seen", ""), ("held_out", "_unseen")):
        scenes = load_scenes(
            split, n, seed=seed, species=None, n_objects=1, hats=0.5, combinations=combinations
        )
        parts = [normalise(scenes[i : i + 250].images) for i in range(0, n, 250)]
        images = torch.cat(
            [model.encode_image(torch.from_numpy(part), normalize=True) for part in parts]
        )
        main = scenes.main_attributes
        names = scenes.attribute_names
        for family, vectors in prompts.items():
            guess = (images @ vectors.T).argmax(1).numpy()
            columns = [names.index(value) for value in FAMILIES[family]]
            shown = main[:, columns]
            truth = np.where(shown.any(1), shown.argmax(1), len(columns))
            figures[family + suffix] = round(float(np.mean(guess == truth)), 4)
    return figures


def save(
    model: Any, config: dict[str, Any], path: Path, measured: dict[str, float], card: dict[str, Any]
) -> None:
    """Write weights (float16), configuration, vocabulary and card as a bundle.

    The folder is also a checkpoint that open_clip reads: ``local-dir:PATH``.
    """
    full = {
        "name": "embedded image-text encoder",
        "task": "zero-shot attributes of rendered scenes",
        "script": "python -m conceptlab.assets.train_encoder",
        "parameters": sum(p.numel() for p in model.parameters()),
        "test": (
            "2000 scenes of seen and 2000 of unseen combinations of colour, shape and texture, "
            "one object each, half with a hat: load_scenes('test', 2000, seed=0, species=None, "
            "n_objects=1, hats=0.5, combinations='seen' or 'held_out'); "
            "nearest prompt of the family"
        ),
        "prompts": attribute_prompts(),
        "held_out_combinations": int(HELD_OUT.sum()),
        "measured": measured,
        "tolerance": TOLERANCE,
        **card,
    }
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    files = {
        WEIGHTS: save_tensors(state, metadata={"format": "pt"}),
        CONFIG: json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}, indent=2).encode(),
        MERGES: merges_file(learn_merges(vocabulary_words())),
        "README.md": _readme(full).encode(),
    }
    write_bundle(path, Bundle(ENCODER_KIND, {"card": full}, {}, files))


def _readme(card: dict[str, Any]) -> str:
    measured, prompts = card["measured"], card["prompts"]
    rows = "\n".join(
        f"| {family} | {len(texts)} | {measured[family]:.4f} | "
        f"{measured[family + '_unseen']:.4f} | {texts[0]} |"
        for family, texts in prompts.items()
    )
    return f"""# The embedded image-text encoder

An `open_clip.CLIP` of {card["parameters"]:,} parameters (stored in float16) for 64x64 pixels: a
`ModifiedResNet` and a two-layer text transformer with a small vocabulary of its own. It saw only
rendered scenes and their captions and is of no use on photographs.

Made by `{card["script"]}` in {card["cpu_minutes"]} CPU minutes on one thread, seed {card["seed"]}.
Training again gives these figures to within {card["tolerance"]}.

Zero-shot accuracy on {card["test"]}. {card["held_out_combinations"]} of the 256 combinations were
never shown in training.

| family | values | seen | unseen | first prompt |
|---|---|---|---|---|
{rows}

The folder is a checkpoint of open_clip too; the vocabulary is named by hand there:
`open_clip.create_model("local-dir:" + folder)` and
`open_clip.get_tokenizer("local-dir:" + folder, bpe_path=folder + "/{MERGES}")`.
"""


def main(arguments: list[str] | None = None) -> None:
    """Train, measure what was stored, and write the bundle with its card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ENCODER, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    start = time.process_time()
    model, config = train(seed=chosen.seed)
    minutes = cpu_minutes(start)
    model = model.half().float()  # measure the weights as they are stored
    with tempfile.TemporaryDirectory() as folder:
        merges = merges_file(learn_merges(vocabulary_words()))
        path = atomic_write(Path(folder) / MERGES, merges)
        tokenizer = tokenizer_of(path, config["text_cfg"]["context_length"])
        measured = evaluate(model, tokenizer)
    card = {"seed": chosen.seed, "cpu_minutes": minutes, "settings": SETTINGS}
    save(model, config, chosen.out, measured, card)
    show(json.dumps(measured, indent=2), quiet=False)


if __name__ == "__main__":
    main()
