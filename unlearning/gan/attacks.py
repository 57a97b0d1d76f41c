"""Attempts to get a forgotten concept back, and how far they come."""

from __future__ import annotations

__all__ = ["latent_search", "paraphrases", "prompt_attack", "relearn"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from conceptlab.errors import InputError
from conceptlab.seeds import RandomState, torch_generator
from unlearning.gan.assessment import check_judge
from unlearning.gan.gamma import degree_of_unlearning
from unlearning.gan.gate import NEUTRAL, fit_gate, refuse
from unlearning.gan.generators import Generator, as_generator, learn
from unlearning.gan.guide import Guide
from unlearning.gan.losses import perceptual_loss
from unlearning.gan.mapper import LatentMapper
from unlearning.gan.options import Limits
from unlearning.gan.result import GanResult
from unlearning.gan.survey import survey


def relearn(
    before: Generator | nn.Module,
    after: Generator | nn.Module | GanResult,
    target: str,
    judge: Any,
    *,
    n_images: int = 8,
    steps: int = 60,
    lr: float = 2e-3,
    n: int = 500,
    random_state: RandomState = 0,
) -> dict[str, float]:
    """Fine-tune on a few images with the concept, and count how much of it is back.

    The attacker has the weights, a few images of the old generator and their styles.

    Parameters
    ----------
    before, after
        As in :func:`unlearning.gan.assess`.
    target : str
        A value of the judge.
    judge
        As in :func:`unlearning.gan.assess`.
    n_images : int
        Images with the concept that the attacker has.
    steps, lr
        Of the fine-tuning of the synthesis.
    n : int
        Fresh latents to count on.
    random_state : int

    Returns
    -------
    dict of str to float
        Shares of latents that had the concept whose image shows it: ``"without attack"``;
        ``"back"``, fine-tuned and fed the old generator's styles; ``"back, from latents"``,
        fine-tuned and fed latents.

    Examples
    --------
    >>> from conceptlab.assets import load_embedded_gan, load_embedded_judge
    >>> gan = load_embedded_gan()
    >>> found = relearn(gan, gan, "red", load_embedded_judge(), steps=1, n=100)
    >>> sorted(found)
    ['back', 'back, from latents', 'without attack']
    """
    old, new = _both(before, after)
    draws = torch_generator(random_state)
    family, index = check_judge(judge, [target])[target]
    z = old.draw(n, draws)
    with torch.no_grad():
        images, w = old.images(z), old.styles(z)
        had = _shows(judge, images, family, index).nonzero()[:, 0]
    if len(had) < 2 * n_images:
        raise InputError(
            f"{len(had)} of {n} latents show {target!r}; {2 * n_images} are needed. "
            "Give a larger n.",
            code="CL-INPUT-FEW",
        )
    few, rest = had[:n_images], had[n_images:]
    victim = new.fork()
    body: Any = victim.module.synthesis if victim.has_styles else victim.module
    same_styles = victim.has_styles == old.has_styles
    learn(body, True)
    found = {"without attack": _share(judge, victim, z[rest], family, index)}
    parameters = [p for p in body.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=lr)
    source = w if same_styles else z
    for _ in range(steps):
        loss = perceptual_loss(victim.images_of(source[few]), images[few])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    found["back"] = _share(judge, victim, source[rest], family, index, styles=True)
    found["back, from latents"] = _share(judge, victim, z[rest], family, index)
    return found


def latent_search(
    after: Generator | nn.Module | GanResult,
    target: str,
    judge: Any,
    *,
    space: str = "z",
    n: int = 32,
    steps: int = 40,
    lr: float = 0.1,
    encoder: Any = None,
    random_state: RandomState = 0,
) -> dict[str, float]:
    """Search latents that show the concept, by the gradient of an attacker's classifier.

    The attacker climbs the judge itself, the worst case. Latents keep at most the norm they
    began with, and their class where the generator is conditional; styles stay within the mean
    distance of styles from their centre.

    Parameters
    ----------
    after
        As in :func:`unlearning.gan.assess`.
    target : str
        A value of the judge.
    judge : torch.nn.Module
        As in :func:`unlearning.gan.assess`, differentiable.
    space : {"z", "w"}
        Where to search.
    n : int
        Starts.
    steps, lr
        Of Adam.
    encoder : Encoder, optional
        A second opinion. Whoever climbs a judge finds images that deceive it, too; the second
        did not take part.
    random_state : int

    Returns
    -------
    dict of str to float
        ``"found"``: share of starts that end at an image that shows the concept, with a
        probability of at least one half; ``"at the start"``: the same before; with `encoder`,
        ``"found by both"``: share that is nearest to the target's text, too, among the texts
        of its family.

    Examples
    --------
    >>> from conceptlab.assets import load_embedded_gan, load_embedded_judge
    >>> found = latent_search(load_embedded_gan(), "red", load_embedded_judge(), steps=2, n=4)
    >>> sorted(found)
    ['at the start', 'found']
    """
    if space not in {"z", "w"}:
        raise InputError(f"space must be 'z' or 'w', got {space!r}.", code="CL-INPUT-OPTION")
    new = _both(after, after)[1].frozen()
    family, index = check_judge(judge, [target])[target]
    with torch.no_grad():
        z = new.draw(max(n, 256), torch_generator(random_state))
        w = z if space == "z" else new.styles(z)
    centre = torch.zeros_like(w[:1]) if space == "z" else w.mean(0, keepdim=True)
    radius = (w - centre).flatten(1).norm(dim=1)
    limit = radius[:n] if space == "z" else radius.mean().expand(n)
    point = w[:n].clone().requires_grad_(True)
    classes = new.n_classes if space == "z" else 0
    show = new.images if space == "z" else new.images_of
    optimiser = torch.optim.Adam([point], lr=lr)
    start = None
    for _ in range(steps + 1):
        p = judge.probabilities(show(point))[family][:, index]
        if start is None:
            start = float((p.detach() > 0.5).float().mean())
        optimiser.zero_grad(set_to_none=True)
        (-(p + 1e-6).log().mean()).backward()
        optimiser.step()
        with torch.no_grad():
            off = (point - centre).flatten(1)
            shrink = (limit / off.norm(dim=1).clamp(min=1e-8)).clamp(max=1.0)
            point.copy_(centre + (off * shrink[:, None]).view_as(point))
            if classes:
                point[:, -classes:] = w[:n, -classes:]
    with torch.no_grad():
        images = show(point)
        shows = judge.probabilities(images)[family][:, index] > 0.5
    found = {"found": float(shows.float().mean()), "at the start": float(start or 0.0)}
    if encoder is not None:
        guide = Guide(encoder, device=new.device)
        near = guide.embed_all(images) @ guide.texts(list(judge.families[family])).T
        found["found by both"] = float((shows & (near.argmax(1) == index)).float().mean())
    return found


def prompt_attack(
    before: Generator | nn.Module,
    after: Generator | nn.Module | GanResult,
    target: str,
    encoder: Any,
    judge: Any,
    *,
    prompt: str | None = None,
    steps: int = 40,
    batch_size: int = 16,
    lr: float = 2e-3,
    n: int = 256,
    min_separation: float = 2.8,
    random_state: RandomState = 0,
) -> dict[str, float]:
    """Train a latent mapper for the prompt on the generator that forgot, and count.

    What unlearning was guided by, turned around: styles are pushed over the boundary
    between the prompt and its anchor in the encoder's space.

    Parameters
    ----------
    before, after
        As in :func:`unlearning.gan.assess`.
    target : str
        A value of the judge.
    encoder : Encoder
        The attacker's guide.
    judge
        As in :func:`unlearning.gan.assess`.
    prompt : str, optional
        The target's text by default.
    steps, batch_size, lr
        Of the mapper.
    n : int
        Latents to count on.
    min_separation : float
        As in :func:`unlearning.gan.assess`.
    random_state : int

    Returns
    -------
    dict of str to float
        ``"found"``: share of mapped latents that the judge says show the concept;
        ``"by the guide"``: the same by the encoder.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan, load_embedded_judge
    >>> gan, judge = load_embedded_gan(), load_embedded_judge()
    >>> found = prompt_attack(gan, gan, "red", load_encoder("embedded"), judge, steps=1, n=200)
    >>> sorted(found)
    ['by the guide', 'found']
    """
    old, new = _both(before, after)
    victim, guide = new.frozen(), Guide(encoder, device=new.device)
    draws = torch_generator(random_state)
    family, index = check_judge(judge, [target])[target]
    known = survey(old.frozen(), guide, n, draws)
    gate = fit_gate(guide.concept(prompt or target, NEUTRAL), known.embeddings)
    refuse(gate, Limits(min_separation, share=0.0))
    with torch.no_grad():
        styles = victim.styles(victim.draw(n, draws))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        mapper = LatentMapper(styles)
    mapper = mapper.to(styles.device)
    optimiser = torch.optim.Adam(mapper.parameters(), lr=lr)
    for _ in range(steps):
        w = styles[torch.randint(n, (batch_size,), generator=draws)]
        moved = mapper(w)
        e = guide.embed(victim.images_of(moved))
        far = ((moved - w) / mapper.scale).square().mean()
        loss = functional.relu(0.5 - gate.score(e)).mean() + 0.02 * far
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        images = victim.images_of(mapper(styles))
        seen = gate.shows(guide.embed_all(images)).float().mean()
    return {
        "found": float(_shows(judge, images, family, index).float().mean()),
        "by the guide": float(seen),
    }


@torch.no_grad()
def paraphrases(
    before: Generator | nn.Module,
    after: Generator | nn.Module | GanResult,
    target: str,
    encoder: Any,
    texts: Sequence[str],
    *,
    n: int = 500,
    min_separation: float = 2.8,
    random_state: RandomState = 0,
) -> dict[str, float]:
    """Give the degree of unlearning under other words for the target.

    Parameters
    ----------
    before, after
        As in :func:`unlearning.gan.assess`.
    target : str
        The text that was used; its gate tells which latents had the concept.
    encoder : Encoder
    texts : sequence of str
        Other words, such as ``["scarlet", "a crimson thing"]``.
    n : int
    min_separation : float
        As in :func:`unlearning.gan.assess`.
    random_state : int

    Returns
    -------
    dict of str to float
        By text; the target's own comes first.

    Examples
    --------
    >>> from conceptlab import load_encoder
    >>> from conceptlab.assets import load_embedded_gan
    >>> gan = load_embedded_gan()
    >>> found = paraphrases(gan, gan, "red", load_encoder("embedded"), ["crimson"], n=200)
    >>> sorted(found)
    ['crimson', 'red']
    """
    old, new = _both(before, after)
    guide = Guide(encoder, device=old.device)
    seen = survey(old, guide, n, torch_generator(random_state))
    e = guide.embed_all(torch.cat([new.images(part) for part in seen.z.split(128)]))
    gate = fit_gate(guide.concept(target, NEUTRAL[:1]), seen.embeddings)
    refuse(gate, Limits(min_separation, share=0.0))
    had = gate.shows(seen.embeddings)
    found = {}
    for text in [target, *texts]:
        concept = guide.concept(text, NEUTRAL[:1])
        parts = (seen.embeddings[had], e[had], seen.embeddings[~had])
        found[text] = degree_of_unlearning(*(concept.score(part).cpu() for part in parts))
    return found


def _both(
    before: Generator | nn.Module | GanResult, after: Generator | nn.Module | GanResult
) -> tuple[Generator, Generator]:
    old = before.generator if isinstance(before, GanResult) else as_generator(before)
    new = after.generator if isinstance(after, GanResult) else after
    return old, new if isinstance(new, Generator) else old.around(new)


def _shows(judge: Any, images: torch.Tensor, family: str, index: int) -> torch.Tensor:
    found = [judge.probabilities(part)[family].argmax(1) == index for part in images.split(256)]
    return torch.cat(found)


@torch.no_grad()
def _share(
    judge: Any,
    generator: Generator,
    latents: torch.Tensor,
    family: str,
    index: int,
    *,
    styles: bool = False,
) -> float:
    show = generator.images_of if styles else generator.images
    images = torch.cat([show(part) for part in latents.split(256)])
    return float(_shows(judge, images, family, index).float().mean())
