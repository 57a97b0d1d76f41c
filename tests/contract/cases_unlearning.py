"""Quick calls of what ``unlearning`` offers: classes, audit, removal, generators."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from cases import Breakable, case, marked
from cases_conceptlab import fitted_craft
from instances import features, images
from torch import nn
from toy_gan import ToyJudge, toy_gan, toy_guide
from unlearning_world import data, net, request, small

import unlearning
from conceptlab.errors import DependencyError
from conceptlab.seeds import quiet_randomness, torch_generator
from unlearning import ShardedEnsemble, Unlearner, audit, gan, removal
from unlearning.data import Samples
from unlearning.distances import Features
from unlearning.removal import removers
from unlearning.removal.removers import available_removers


# --------------------------------------------------------------------- makings
def model(*, training=True):
    """Make a classifier of images (n, 3, 8, 8) that can break, marked as a user's may be."""
    return marked(Breakable(*net().eval()), training=training)


@cache
def samples():
    """The samples of a request, as the audit takes them."""
    parts = request()
    return {name: unlearning.as_samples(parts[name], name=name) for name in parts}


@cache
def forgotten():
    """Make the model forget; a result with its certificate."""
    return small("LogitMask").unlearn(model(), **request())


def curve(steps):
    """Make a curve of relearning."""
    return audit.RelearnCurve(np.arange(2), np.zeros(2), np.zeros(2), 0.9, steps, 100)


def probabilities(seed=0, n=30, classes=4):
    """Probabilities of n samples."""
    drawn = np.random.default_rng(seed).multinomial(16, np.full(classes, 1 / classes), size=n)
    return drawn / 16  # exact in every dtype


@cache
def ensemble():
    """Fit two small models."""
    return ShardedEnsemble(_line, n_shards=2, n_slices=1, epochs=1, random_state=0).fit(
        torch.tensor(features()).float(), np.arange(40) % 3
    )


def _line():
    return nn.Linear(6, 3)


@cache
def _trained():
    return toy_gan(steps=200)


def generator():
    """Make a small generator that knows its colours."""
    return copy.deepcopy(_trained())


def holes(n=2, side=16):
    """Masks of objects, (n, 1, side, side)."""
    found = torch.zeros(n, 1, side, side, dtype=torch.bool)
    found[..., 4:10, 5:12] = True
    return found


def cast(c, name):
    """Give labelled samples of the request in the caller's kind."""
    X, y = request()[name]
    return c(X), y


def _cells(pictures):
    """Averages in 16 by 16 cells as a map of features."""
    return torch.nn.functional.adaptive_avg_pool2d(pictures, 16)


def painted(c):
    """Two images as a tensor of the caller's dtype."""
    return torch.as_tensor(c(images(2)))


@cache
def stars():
    """Scenes with stars, and without."""
    return removal.SceneRemovals(("star",), n=4, size=32)


@cache
def lpips():
    """Make a distance with a network of torchvision's layout, of three channels."""
    with quiet_randomness(0):
        layers = [
            nn.ReLU() if number in (1, 4, 7, 9, 11) else nn.Conv2d(3, 3, 1) for number in range(12)
        ]
        return removal.Lpips(nn.Sequential(*layers), [torch.ones(3)] * 5, net="alex")


# ------------------------------------------------------------- data and requests
case(unlearning.as_samples, lambda c: ((c(images()), c.of([0, 1, 1, 0, 2, 1])),), "tensor")
case(unlearning.split_classes, lambda c: ((c(images()), [0, 1, 1, 0, 2, 1]), 1), "tensor")
case(unlearning.find_head, lambda c: (model(training=False), data()[0][:2]))
case(
    unlearning.features_and_logits,
    lambda c: (model(training=False), torch.as_tensor(c(data()[0][:3]))),
    "tensor",
)
case(
    unlearning.unlearn_sequence,
    lambda c: (
        (small("LogitMask"), model(), [request()["forget"]]),
        {"retain": request()["retain"]},
    ),
)
case(
    unlearning.verify_certificate,
    lambda c: ((forgotten().certificate,), {"before": model(), "after": forgotten().model}),
)
case(
    Unlearner.unlearn,
    lambda c: (
        (small("FineTune"), model()),
        {"forget": cast(c, "forget"), "retain": cast(c, "retain")},
    ),
    "self",
    tolerance=np.inf,
)
case(ShardedEnsemble.predict_proba, lambda c: (ensemble(), c(features())), "like")
case(ShardedEnsemble.predict, lambda c: (ensemble(), c(features())), "numpy")

# ----------------------------------------------------------------------- audit
P, Q, Y = probabilities(), probabilities(1), np.arange(30) % 4
case(audit.js_divergence, lambda c: (c(P), c(Q)), "numpy")
case(audit.activation_distance, lambda c: (c(P), c(Q)), "numpy")
case(audit.agreement, lambda c: (c(P), c(Q)), "numpy")
case(audit.zero_retrain_forgetting, lambda c: (c(P), c(Q)), "numpy")
case(audit.modified_entropy, lambda c: (c(P), c.of(Y)), "numpy")
case(audit.average_gap, lambda c: ({"ua": 1.0}, {"ua": 0.9}))
case(
    audit.tug_of_war,
    lambda c: (
        dict.fromkeys(("forget", "retain", "test"), 0.5),
        dict.fromkeys(("forget", "retain", "test"), 0.6),
    ),
)
case(audit.adaptive_unlearning_score, lambda c: (0.9, 0.9, 1.0))
case(audit.non_member_share, lambda c: (c(P[:, 0]), c(Q[:, 0]), c(P[:9, 0])), "numpy")
case(audit.member_share, lambda c: (c(P[:, 0]), c(Q[:, 0]), c(P[:9, 0])), "numpy")
case(audit.loss_attack, lambda c: ((c(P[:, 0]), c(Q[:, 0])), {"n_splits": 2}), "numpy")
case(audit.neighbour_attack, lambda c: (c(P), c(Q), c.of([0])), "numpy")
case(audit.scaled_confidence, lambda c: (c(P), c.of(Y)), "numpy")
case(audit.likelihood_ratio, lambda c: (c(P[0]), c(P), c(Q)), "numpy", tolerance=10)
case(audit.class_probe, lambda c: (c(P), c.of(Y), c(Q), c.of(Y), c.of([1])), "numpy", tolerance=10)
case(audit.concept_auc, lambda c: (c(P), c.of(Q[:, :2] > 0.2)), "numpy")
case(audit.concept_surrogate, lambda c: (c(P), c(5 * Q), c.of(Y), c.of([0])), "numpy", tolerance=10)
case(audit.find_class_concepts, lambda c: (c.of(P > 0.2), c.of(Y), c.of([0])), "numpy")
case(audit.quantise, lambda c: (torch.as_tensor(c(features())), 4), "tensor")
case(audit.quantised_copy, lambda c: (model(), 4))
case(audit.anamnesis_index, lambda c: (curve(10), curve(40)))
case(
    audit.judge,
    lambda c: (
        ({"fa_train": 1.0, "fa_test": 0.98, "ta": 0.99},),
        {"before": {"fa_train": 1.0, "fa_test": 0.98, "ta": 0.99}, "mask": {}},
    ),
)
case(
    audit.relearn,
    lambda c: (
        (model(), samples()["forget"], samples()["retain"], samples()["valid"]),
        {"target": 0.9, "max_steps": 2},
    ),
)
case(
    audit.spontaneous_recovery,
    lambda c: (model(), samples()["forget"], samples()["retain"], samples()["valid"]),
)
case(
    audit.trace_concepts,
    lambda c: (
        (
            fitted_craft(),
            copy.deepcopy(fitted_craft().split.model),
            c(images(6)),
            c.of([0, 1] * 3),
            [1],
        ),
        {"method": "upsample", "n_maps": 1},
    ),
)
case(
    audit.audit,
    lambda c: (
        (model(), model()),
        {
            "forget": cast(c, "forget"),
            "retain": cast(c, "retain"),
            "test": cast(c, "valid"),
            "relearn": False,
            "bits": (),
        },
    ),
    "numpy",
    tolerance=np.inf,
)
case(Samples.select, lambda c: (samples()["retain"], [0, 2]))

# --------------------------------------------------------------------- removal
X, Z = features(30, 5), features(30, 5)[::-1] ** 2
case(removal.frechet_distance, lambda c: (c(X), c(Z)), "numpy", tolerance=10)
case(removal.frechet, lambda c: (c(X), c(Z)), "numpy", tolerance=10)
case(
    removal.frechet_distance,
    lambda c: (Features.of(c(X)), Features.of(c(Z))),
    "numpy",
    tolerance=10,
    variant="checked",
)
case(Features.of, lambda c: (c(X),), "tensor")
case(removal.kid, lambda c: (c(X), c(Z)), "numpy", tolerance=10)
case(removal.cmmd, lambda c: (c(X), c(Z)), "numpy", tolerance=10)
case(removal.null_bias, lambda c: (c(X[0]), 50, 60), "numpy")
case(removal.u_ids, lambda c: (c(X), c(Z)), "numpy")
case(removal.u_ids, lambda c: ((c(X), c(Z)), {"method": "cv"}), "numpy", variant="cv")
case(removal.p_ids, lambda c: (c(X), c(Z)), "numpy")
case(removal.concept_fid, lambda c: (c(X[:, :2]), c(Z[:, :2]), ["a", "b"]), "numpy", tolerance=10)
case(removal.presence, lambda c: ((c(X[:, 0]), c(Z[:, 0])), {"n_bootstrap": 5}), "numpy")
case(removal.psnr, lambda c: (c(images(2)), c(images(2)[::-1])), "numpy")
case(removal.ssim, lambda c: (c(images(2)), c(images(2)[::-1])), "numpy")
case(removal.remove_score, lambda c: (c(images(2)), holes()), "numpy")
case(removal.context_deviation, lambda c: (c(images(2)), holes(), c(images(2))), "numpy")
case(removal.removal_coherence, lambda c: (c(images(2)), holes(), _cells), "numpy")
case(removal.segment_colours, lambda c: (np.asarray(images(1)[0]),), "numpy")
case(removal.effect_mask, lambda c: (painted(c), painted(c).flip(0), holes()), "tensor")
case(removal.match_context, lambda c: (c(X[:3]), c(Z)), "numpy")
case(removal.make_remover, lambda c: ("mean_fill+2",))
case(available_removers)
case(removal.FeatureStatistics.update, lambda c: (removal.FeatureStatistics(), c(X)), "self")
case(
    removal.RemoverSetup.run,
    lambda c: (removal.make_remover("blur"), torch.as_tensor(c(images(2))), holes()),
    "tensor",
)


def optional(name):
    """Make a remover, if its package is installed."""
    try:
        return removal.make_remover(name).remover
    except DependencyError as error:
        pytest.skip(str(error))


for name in ("nothing", "mean_fill", "blur", "telea", "navier_stokes", "biharmonic", "patchmatch"):
    case(
        removers.registry.REMOVERS[name].remove,  # type: ignore[attr-defined]
        lambda c, name=name: (optional(name), painted(c), holes(), 3),  # type: ignore[misc]
        "array",
        variant=name,
    )
case(
    removers.Oracle.remove,
    lambda c: (removers.Oracle(), painted(c), holes(), 3, painted(c)),
    "tensor",
)
case(
    removers.NoisyOracle.remove,
    lambda c: (removers.NoisyOracle(), painted(c), holes(), 3, painted(c)),
    "tensor",
)
case(
    removers.Swap.remove,
    lambda c: (removers.Swap(images(2), holes()), painted(c), holes(), 3),
    "tensor",
)
case(
    removers.CallableRemover.remove,
    lambda c: (removers.CallableRemover(lambda x, masks, seed: 0 * x), painted(c), holes(), 3),
    "tensor",
)
case(removal.Lpips.forward, lambda c: (lpips(), painted(c), painted(c).flip(0)), "tensor")
case(removal.Lpips.inside, lambda c: (lpips(), painted(c), painted(c).flip(0), holes()), "tensor")
case(
    removal.RemovalBenchmark.run,
    lambda c: (
        removal.RemovalBenchmark(lambda x: x.mean(dim=(2, 3)), n_min=8, n_bootstrap=2),
        removal.SceneRemovals(("star",), n=8, size=32),
        ["blur"],
    ),
)
case(removal.SceneRemovals.images, lambda c: (stars(), [0, 1]))
case(removal.SceneRemovals.masks, lambda c: (stars(), "star", [0, 1]))
case(removal.RemovalCache.get, lambda c: (removal.RemovalCache("nowhere"), "blur", "key"))
case(removal.MaskPolicy.__call__, lambda c: (removal.MaskPolicy(dilation=1), holes()))

# ------------------------------------------------------------------ generators
E1, E2 = features(6, 5), features(6, 5)[::-1].copy()
case(gan.degree_of_unlearning, lambda c: (c(X[:, 0]), c(X[:, 1]), c(Z[:, 2])), "numpy")
case(gan.directional_loss, lambda c: (tensor(c(E1)), tensor(c(E2)), tensor(c(E1[0]))), "tensor")
case(gan.margin_loss, lambda c: (tensor(c(X[:, 0])), 0.5), "tensor")
case(
    gan.retain_divergence,
    lambda c: (tensor(c(E1)), tensor(c(E2)), {"which": tensor(c(np.eye(5)))}, 2.0),
    "tensor",
)
case(gan.perceptual_loss, lambda c: (tensor(c(images(2))), tensor(c(images(2)[::-1]))), "tensor")
case(
    gan.identity_loss,
    lambda c: (tensor(c(images(2))), tensor(c(images(2)[::-1])), lambda x: x.mean(dim=(2, 3))),
    "tensor",
    tolerance=100,
)
case(gan.assess, lambda c: ((generator(), generator(), "red", toy_guide(), ToyJudge()), {"n": 120}))
case(gan.relearn, lambda c: ((generator(), generator(), "red", ToyJudge()), {"steps": 2, "n": 100}))
case(gan.latent_search, lambda c: ((generator(), "red", ToyJudge()), {"steps": 2, "n": 4}))
case(
    gan.prompt_attack,
    lambda c: ((generator(), generator(), "red", toy_guide(), ToyJudge()), {"steps": 2, "n": 200}),
)
case(
    gan.paraphrases,
    lambda c: ((generator(), generator(), "red", toy_guide(), ["bright"]), {"n": 200}),
)
case(
    gan.Generator.images, lambda c: (g := gan.Generator(generator()), g.draw(3, torch_generator(0)))
)
case(
    gan.Generator.styles, lambda c: (g := gan.Generator(generator()), g.draw(3, torch_generator(0)))
)


def tensor(array):
    """Give a tensor: losses are made of torch and take nothing else."""
    return torch.as_tensor(np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array)
