"""The training of a detour: its gate on the guide's answers, its shift through the generator."""

from __future__ import annotations

__all__ = ["Bank", "copy_losses", "detour_losses", "learn_gate", "least_cost", "new_detour"]

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from unlearning.gan.detour import Detour, ImageGate, LatentShift, perceptron
from unlearning.gan.generators import Generator
from unlearning.gan.losses import margin_loss, perceptual_loss, retain_divergence
from unlearning.gan.sight import Sight

_ASKED = 4  # times the survey: latents whose images the guide and the gate look at
_STEPS = 500  # of the gate
_FALSE = 0.02  # share of images without the concept that it may take for such with it
_BATCH = 128  # latents at once, where no gradient is kept
_POOL = 32  # latents drawn for each of a batch
_WEIGHTS = {"margin": 4.0, "clear": 0.5, "retain": 1.0, "near": 0.1, "alike": 0.2}


def new_detour(sight: Sight, draws: torch.Generator) -> tuple[ImageGate, LatentShift]:
    """Make gate and shift with weights that are drawn from `draws`."""
    z = sight.seen.z
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))
        gate = ImageGate().to(z.device)
        shift = LatentShift(z, sight.frozen.n_classes).to(z.device)
    return gate, shift


class Bank:
    """Latents that likely show the concept, as many as are asked for, without an image.

    A small network learns from latents with known scores which these are; what it lets through
    is mostly right, which is enough to train on.

    Parameters
    ----------
    sight : Sight
    shift : LatentShift
        Gives latents their scale.
    z : Tensor of shape (n, ...)
    scores : Tensor of shape (n,)
        Positive where the image shows the concept.
    draws : torch.Generator
    """

    def __init__(
        self,
        sight: Sight,
        shift: LatentShift,
        z: torch.Tensor,
        scores: torch.Tensor,
        draws: torch.Generator,
    ) -> None:
        self.frozen, self.shift, self.draws = sight.frozen, shift, draws
        self.known, self.share = z[scores > 0], float((scores > 0).float().mean())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))
            self.likely = perceptron(shift.seen(z[:1]).shape[1], 128, 1).to(z.device)
        _fit(self.likely, shift.seen(z), scores, draws)

    @torch.no_grad()
    def some(self, n: int) -> torch.Tensor:
        """Give n latents, half of them known to show it, (n, ...)."""
        old = self.known[torch.randint(len(self.known), (n - n // 2,), generator=self.draws)]
        pool = self.frozen.draw(_POOL * n, self.draws)
        best = self.likely(self.shift.seen(pool))[:, 0].argsort(descending=True)
        wide = best[: max(n, int(0.7 * self.share * len(pool)))]  # not the surest alone
        rows = wide[torch.randperm(len(wide), generator=self.draws)[: n // 2].to(wide)]
        return torch.cat([old, pool[rows]])


def learn_gate(
    gate: ImageGate, sight: Sight, draws: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Teach the gate which images show the concept, by the guide's scores.

    Parameters
    ----------
    gate : ImageGate
        Changed, with its threshold.
    sight : Sight
    draws : torch.Generator

    Returns
    -------
    z : Tensor of shape (n, ...)
        Latents that the guide was asked about.
    scores : Tensor of shape (n,)
    found : dict of str to float
        ``"recall"`` and ``"false"``: for which share of images with and without the concept the
        gate opens, on those that the threshold was set on and that it did not learn from.
    """
    n = len(sight.seen)  # the threshold is set on so many, that the gate does not learn from
    z = sight.frozen.draw(_ASKED * n, draws)
    with torch.no_grad():
        images = torch.cat([sight.frozen.images(part) for part in z.split(_BATCH)])
        scores = _scores(sight, sight.guide.embed_all(images))
    _fit(gate, images[n:], scores[n:], draws, batch=64)
    with torch.no_grad():
        said = torch.cat([gate(part) for part in images[:n].split(_BATCH)])
    truth = scores[:n] > 0
    gate.threshold.fill_(least_cost(said, truth))
    opens = said > gate.threshold
    shares = {"recall": opens[truth], "false": opens[~truth]}
    return z, scores, {name: float(share.float().mean()) for name, share in shares.items()}


def detour_losses(
    shift: LatentShift, bank: Bank, sight: Sight, batch_size: int, margin: float
) -> Callable[[int], dict[str, torch.Tensor]]:
    """Give the losses of a step of the shift's training.

    The generator, frozen, paints latents before and after, and the guide must see no target
    by a margin, a clear other value of its family, and retained attributes as they were. The
    shift is held small, and images alike.

    Parameters
    ----------
    shift : LatentShift
    bank : Bank
    sight : Sight
    batch_size : int
    margin : float
        Below the gate, in units of its gap.

    Returns
    -------
    callable
        Of a step's number.
    """
    frozen, guide = sight.frozen, sight.guide

    def losses(step: int) -> dict[str, torch.Tensor]:
        z = bank.some(batch_size)
        moved = shift(z)
        images = frozen.images(moved)
        with torch.no_grad():
            before = frozen.images(z)
        e, still = guide.embed_pair(images, before, bank.draws)
        terms = {
            "margin": torch.stack([margin_loss(s, margin) for s in _each(sight, e)]).sum(),
            "near": ((moved - z) / shift.scale).square().flatten(1).mean(),
            "alike": perceptual_loss(images, before),
        }
        if sight.families:
            terms["retain"] = retain_divergence(e, still, sight.families, guide.scale)
        if sight.rivals:
            unclear = [_unclear(e, vectors[1:], guide.scale) for vectors in sight.rivals]
            terms["clear"] = torch.stack(unclear).mean()
        return {name: _WEIGHTS[name] * term for name, term in terms.items()}

    return losses


def copy_losses(
    detour: Detour, bank: Bank, trained: Generator, batch_size: int
) -> Callable[[int], dict[str, torch.Tensor]]:
    """Give the losses of a step in which a copy learns what a detour gives.

    Parameters
    ----------
    detour : Detour
    bank : Bank
    trained : Generator
    batch_size : int
        Half of it are latents that likely show the concept.

    Returns
    -------
    callable
        Of a step's number.
    """
    half = batch_size // 2

    def losses(step: int) -> dict[str, torch.Tensor]:
        z = torch.cat([bank.some(half), bank.frozen.draw(batch_size - half, bank.draws)])
        with torch.no_grad():
            goal = detour.inner.unit(detour(z))
        images = trained.images(z)
        return {
            "surrogate": perceptual_loss(images[:half], goal[:half]),
            "preserve": 2 * perceptual_loss(images[half:], goal[half:]),
        }

    return losses


def _each(sight: Sight, e: torch.Tensor) -> list[torch.Tensor]:
    """Give the scores by each gate, and by the family of each target, (n,) each.

    A gate finds the images that show a target most clearly; where its family is known, those
    that the guide takes for the target sooner than for all others are meant, too.
    """
    found = [gate.score(e) for gate in sight.gates]
    for vectors in sight.rivals:
        found.append((sight.guide.scale * e @ vectors.T).softmax(1)[:, 0] - 0.5)
    return found


def _scores(sight: Sight, embeddings: torch.Tensor) -> torch.Tensor:
    """Give the largest score of all, (n,); positive shows a target."""
    return torch.stack(_each(sight, embeddings)).amax(0)


def _fit(
    network: nn.Module,
    inputs: torch.Tensor,
    scores: torch.Tensor,
    draws: torch.Generator,
    batch: int = 256,
) -> None:
    """Learn scores as log-odds; the score itself says more of an input than yes or no."""
    goal = (4 * scores).clamp(-4, 4)  # the gap between the groups is 1
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    for step in range(_STEPS):
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1.0, 2 * (1 - step / _STEPS))
        rows = torch.randint(len(goal), (batch,), generator=draws)
        said = network(inputs[rows]).view(-1)
        loss = functional.smooth_l1_loss(said, goal[rows])
        loss = loss + functional.binary_cross_entropy_with_logits(said, (goal[rows] > 0).to(said))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def least_cost(said: torch.Tensor, truth: torch.Tensor) -> float:
    """Find the threshold where misses and false opens, which count four times, are fewest."""
    order = said.argsort(descending=True)
    shows = truth[order].double()
    missed = 1 - shows.cumsum(0) / shows.sum().clamp(min=1)
    false = (1 - shows).cumsum(0) / (1 - shows).sum().clamp(min=1)
    cost = torch.where(false <= _FALSE, missed + 4 * false, torch.inf)
    best = int(cost.argmin())
    return float(said[order[best : best + 2]].mean())


def _unclear(e: torch.Tensor, vectors: torch.Tensor, scale: float) -> torch.Tensor:
    """Tell how far images are from the nearest of some texts alone, in nats."""
    return -(scale * e @ vectors.T).log_softmax(1).amax(1).mean()
