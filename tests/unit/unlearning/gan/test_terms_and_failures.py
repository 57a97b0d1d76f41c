"""Unlearning in generators: terms of the training, and everything that can go wrong with it."""

import copy
import math
import sys
import warnings

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn
from torch.nn import functional
from toy_gan import FAMILIES, SIDE, SMALL, StyleGan3Shaped, ToyJudge, read, toy_gan, toy_guide

from conceptlab.encoders import CallableEncoder
from conceptlab.errors import InputError
from conceptlab.progress import in_notebook
from unlearning.gan import (
    Generator,
    RejectionFilter,
    TextToUnlearn,
    assess,
    identity_loss,
    perceptual_loss,
)
from unlearning.gan.aim import missed
from unlearning.gan.finetune import finetune
from unlearning.gan.guide import Guide
from unlearning.gan.held_out import HeldOut
from unlearning.gan.mapper import LatentMapper
from unlearning.gan.objective import Objective, Weights
from unlearning.gan.options import Request
from unlearning.gan.places import find_places, match_styles
from unlearning.gan.sight import Sight, look
from unlearning.gan.survey import Survey, survey
from unlearning.gan.thumbnails import Thumbnails
from unlearning.gan.views import told
from unlearning.notices import UnlearningWarning

QUICK = {**SMALL, "n_survey": 200, "mapper_steps": 3, "steps": 12, "fold_steps": 0}


@pytest.fixture(scope="module")
def gan():
    return toy_gan()


@pytest.fixture(scope="module")
def guide():
    return toy_guide()


def forget(gan, guide, *, progress=False, **options):
    settings = {**QUICK, "retain": FAMILIES, "random_state": 0, **options}
    return TextToUnlearn(guide, "red", **settings).unlearn(gan, progress=progress)


# Terms of the training


def test_a_second_encoder_has_a_say_of_its_own(gan, guide):
    """Its degree is that of the formula, on the latents that the judge says had the concept."""

    def reds(x):
        left = read(x)[0]
        return torch.cat([left, torch.ones(len(x), 1)], 1)

    def texts(items):
        found = [[1.0, -1, -1, 0] if "red" in t.split() else [0.0, 0, 0, 1] for t in items]
        return torch.tensor(found).numpy()

    other = CallableEncoder(reds, texts, dim=4, name="reds", fingerprint="reds")
    result = forget(gan, guide, fold_steps=100, steps=40)
    options = {"anchor": "a thing", "n": 300, "random_state": 5}
    f = assess(gan, result, "red", guide, ToyJudge(), second_encoder=other, **options).figures
    old = Generator(gan)
    z = old.draw(300, torch.Generator().manual_seed(5))
    with torch.no_grad():
        before, after = old.images(z), result.generator.images(z)
    had = ToyJudge().probabilities(before)["colour"].argmax(1) == 0
    red = functional.normalize(torch.tensor([1.0, -1, -1, 0]), dim=0)
    scores = [
        functional.normalize(reds(x), dim=1) @ (red - torch.eye(4)[3]) for x in (before, after)
    ]
    known = 1 - wasserstein_distance(scores[1][had], scores[0][~had]) / wasserstein_distance(
        scores[0][had], scores[0][~had]
    )
    assert f["degree, second encoder"] == pytest.approx(known, abs=1e-4)
    assert f["degree, second encoder"] != pytest.approx(f["degree, guide"], abs=1e-3)


def test_identity_loss_is_one_less_the_cosine_and_holds_images():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 5))
    a, b = torch.rand(2, 4, 3, SIDE, SIDE).requires_grad_(True)
    a.retain_grad()
    b.retain_grad()
    loss = identity_loss(a, b, network)
    x, y = network(a), network(b)
    cosine = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
    assert loss.item() == pytest.approx(1 - cosine.mean().item(), abs=1e-6)
    loss.backward()
    assert b.grad is None  # what was there is not moved
    step = 0.1 / float(a.grad.norm())
    assert identity_loss(a - step * a.grad, b, network) < loss


def test_the_training_holds_identity_by_its_weight(gan, guide):
    """The term is the loss between the images of the two generators at the same styles."""
    seen = []

    def network(images):
        seen.append(images.detach())
        return images.flatten(1) - 0.5

    options = {"identity": network, "identity_weight": 3.0, "guide_every": 2}
    work, chosen, _ = objective(gan, guide, **options)
    with torch.no_grad():
        for p in chosen.values():
            p.add_(0.05)
    terms = work.losses(0, torch.Generator().manual_seed(0))
    before, after = seen
    assert not torch.equal(before, after)
    known = 2 * 3.0 * identity_loss(after, before, lambda x: x.flatten(1) - 0.5)
    assert terms["identity"].item() == pytest.approx(known.item(), rel=1e-5)
    slopes = torch.autograd.grad(terms["identity"], list(chosen.values()))
    assert all(float(slope.abs().max()) > 0 for slope in slopes)
    assert "identity" not in work.losses(1, torch.Generator().manual_seed(0))


def objective(gan, guide, **options):
    """The losses of a training on the toy, with the parameters that it would train."""
    unlearner = TextToUnlearn(guide, "red", retain=FAMILIES, **{**QUICK, **options})
    frozen, trained, inner = Generator(gan).frozen(), Generator(gan).fork(), Guide(guide)
    seen = survey(frozen, inner, 100, torch.Generator().manual_seed(0))
    shows = seen.z[:, 0] == 1
    sight = Sight(frozen, inner, seen, [], {}, shows.float(), {}, {}, None)
    mapper, weights = LatentMapper(seen.styles), Weights.of(unlearner)
    work = Objective(weights, sight, trained, mapper, torch.ones(6))
    body = trained.module.synthesis.requires_grad_(True)
    return work, dict(body.named_parameters()), seen[~shows]


def test_fisher_weights_are_squared_slopes_on_images_without_the_concept(gan, guide):
    work, chosen, free = objective(gan, guide, fisher_weight=2.0)
    work.measure_fisher(chosen, batches=3)
    draws = torch.Generator().manual_seed(0)
    sums = [torch.zeros_like(p) for p in chosen.values()]
    for _ in range(3):
        w = free.styles[torch.randint(len(free), (8,), generator=draws)]
        images = work.trained.images_of(w)
        sign = torch.randint(0, 2, images.shape, generator=draws) * 2.0 - 1
        slopes = torch.autograd.grad((sign * images).mean(), list(chosen.values()))
        sums = [s + g**2 / 3 for s, g in zip(sums, slopes, strict=True)]
    mean = torch.cat([s.flatten() for s in sums]).mean()
    for (_, _, found), known in zip(work.fisher, sums, strict=True):
        assert torch.allclose(found, known / mean, rtol=1e-4, atol=1e-7)
    draws = torch.Generator().manual_seed(0)
    assert work.losses(1, draws)["fisher"].item() == 0
    with torch.no_grad():
        for p in chosen.values():
            p.add_(0.1)
    known = 2.0 * 0.01 * sum(float(f.sum()) for _, _, f in work.fisher)
    assert work.losses(1, draws)["fisher"].item() == pytest.approx(known, rel=1e-4)


def test_fisher_weights_hold_the_weights(gan, guide):
    def way(result):
        pairs = zip(result.module.parameters(), gan.parameters(), strict=True)
        return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))

    loose, tight = (forget(gan, guide, fisher_weight=w) for w in (0.0, 10.0))
    assert "fisher" in tight.history[0]
    assert "fisher" not in loose.history[0]
    assert way(tight) < 0.5 * way(loose)


def test_the_mean_of_the_weights_is_given_back():
    """The recursion, run again beside Adam: slow start, then the decay."""
    ends = {}
    for average in (0.0, 0.8):
        module, seen = nn.Linear(2, 2), []
        nn.init.constant_(module.weight, 1.0)

        def losses(step, module=module, seen=seen):
            seen.append(module.weight.detach().clone())
            return {"loss": (module.weight * (step + 1)).sum()}

        finetune(
            [module.weight],
            losses,
            steps=30,
            lr=0.1,
            draws=torch.Generator().manual_seed(0),
            average=average,
        )
        ends[average] = (module.weight.detach().clone(), seen)
    last, seen = ends[0.0]
    path = [*seen[1:], last]
    mean = seen[0]
    for step, value in enumerate(path):
        keep = min(0.8, (step + 1) / (step + 10))
        mean = keep * mean + (1 - keep) * value
    assert torch.allclose(ends[0.8][0], mean, atol=1e-6)
    assert not torch.allclose(mean, last, atol=1e-3)


def test_what_takes_the_place_of_a_concept_is_shared_out(gan, guide):
    """Red becomes blue and green as often as these are there, and by nothing that is seen."""
    frozen, inner = Generator(gan, latent=seldom_green).frozen(), Guide(guide)
    seen = survey(frozen, inner, 600, torch.Generator().manual_seed(0))
    shows, colours = seen.z[:, 0] == 1, seen.z[:, :3].argmax(1)
    known = {f: told(inner.texts(values), seen, None) for f, values in FAMILIES.items()}
    places = find_places(shows, known, FAMILIES, ["red"])
    assert places.kinds == [(1,), (2,)]  # blue, green
    assert places.shares.tolist() == [int((colours == 1).sum()), int((colours == 2).sum())]
    rows, partners = match_styles(seen, shows, {"light": known["light"]}, [], places=places)
    assert torch.equal(rows, shows.nonzero()[:, 0])
    for kind in (0, 1):  # the wanted colour, the same light
        assert (colours[partners[:, kind]] == kind + 1).all()
        assert torch.equal(seen.z[partners[:, kind], 3], seen.z[rows, 3])
    mapper = LatentMapper(seen.styles, kinds=2)
    mapper.share_out(seen[shows], places.shares)
    fresh = frozen.draw(2000, torch.Generator().manual_seed(1))
    fresh = fresh[fresh[:, 0] == 1]
    kind = mapper.choose(fresh)
    assert float(kind.float().mean()) == pytest.approx(0.25, abs=0.06)
    bright = fresh[:, 3] == 1
    assert float(kind[bright].float().mean() - kind[~bright].float().mean()) < 0.05


def seldom_green(n, draws):
    colour = torch.multinomial(torch.tensor([0.4, 0.45, 0.15]), n, True, generator=draws)
    light = functional.one_hot(torch.randint(2, (n,), generator=draws), 2)
    parts = [functional.one_hot(colour, 3), light, torch.randn(n, 1, generator=draws)]
    return torch.cat(parts, 1).float()


def test_places_that_cannot_be_shared_out(gan, guide):
    """Without the target's family, or another value in it, there is one kind."""
    inner = Guide(guide)
    seen = survey(Generator(gan).frozen(), inner, 200, torch.Generator().manual_seed(0))
    shows = seen.z[:, 0] == 1
    known = {f: told(inner.texts(values), seen, None) for f, values in FAMILIES.items()}
    assert find_places(shows, known, {"light": FAMILIES["light"]}, ["red"]) is None
    assert (
        find_places(shows, {"colour": known["colour"][:, :1]}, {"colour": ["red"]}, ["red"]) is None
    )
    both = find_places(shows | (seen.z[:, 3] == 1), known, FAMILIES, ["red", "bright"])
    assert both.kinds == [(1, 1), (2, 1)]  # dark and blue, dark and green
    mapper = LatentMapper(seen.styles)
    assert (mapper.choose(seen.z) == 0).all()
    wide = LatentMapper(seen.styles, kinds=9)  # more kinds than latents have free directions
    wide.share_out(seen[shows], torch.ones(9))
    assert len(wide.choose(seen.z[shows]).unique()) > 5


@pytest.mark.parametrize("kinds", [2, 3, 6])
def test_kinds_are_told_by_the_latents_that_are_not_seen(kinds):
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(3000, 10, generator=draws)
    part = Survey(z, z, torch.tanh(z[:, :4]))  # what is seen tells the first four
    mapper = LatentMapper(z, kinds=kinds)
    shares = torch.arange(1.0, kinds + 1)
    mapper.share_out(part, shares)
    found = mapper.choose(torch.randn(4000, 10, generator=draws)).bincount(minlength=kinds) / 4000
    assert torch.allclose(found, shares / shares.sum(), atol=0.04)
    assert float(mapper.ways[:4].norm()) < 0.15 * float(mapper.ways.norm())


def test_the_ideal_is_what_rejection_comes_to(gan, guide):
    """Images drawn again until the concept is away are of the law that the ideal is of."""
    rejected = RejectionFilter(guide, "red", n_survey=200, random_state=0).unlearn(gan)
    f = assess(gan, rejected, "red", guide, n=400).figures
    same = assess(gan, gan, "red", guide, n=400).figures
    assert 0.5 < f["fid / ideal"] < 2
    assert same["fid / ideal"] > 5
    assert f["fid, ideal"] == pytest.approx(same["fid, ideal"])


# Generators


def test_a_stylegan3_shaped_module_works_as_it_is(guide):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = StyleGan3Shaped(w_dim=64).eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    generator = Generator(module)
    generator.check()
    z = generator.draw(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        w, images = generator.styles(z), generator.images(z)
        assert torch.allclose(images, ((module(z, None) + 1) / 2).clamp(0, 1))
    assert w.shape == (3, module.num_ws, 64)
    unlearner = TextToUnlearn(
        guide,
        "red",
        min_separation=0.0,
        n_survey=64,
        mapper_steps=2,
        steps=2,
        n_held_out=16,
        random_state=0,
        fold_steps=60,
    )
    result = unlearner.unlearn(module)
    assert result.details["mapping"]["learned"]
    assert type(result.module) is StyleGan3Shaped
    changed = {k for k, v in result.module.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.startswith("synthesis") for k in changed)
    assert any(k.startswith("mapping") for k in changed)
    assert not any("magnitude_ema" in k or k.endswith(("freqs", "phases")) for k in changed)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


class Odd(nn.Module):
    """A generator with one fault."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.layer = fault, nn.Linear(4, 12)

    def forward(self, z):
        images = torch.tanh(self.layer(z)).view(-1, 3, 2, 2)
        if self.fault == "range":
            return 100 * images
        if self.fault == "positive":
            return images.abs()
        if self.fault == "pairs":
            return images[:, :2]
        if self.fault == "tuple":
            return images, None
        if self.fault == "wide":
            return images / 50
        if self.fault == "label":
            raise IndexError("list index out of range")
        if self.fault == "flat":
            return images.flatten(1)
        if self.fault == "nan":
            return images / 0 * 0
        return images


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("range", "CL-INPUT-RANGE", "the pixels lie in"),
        ("positive", "CL-INPUT-RANGE", "the pixels lie in"),
        ("pairs", "CL-INPUT-LAYOUT", r"got \(8, 2, 2, 2\)"),
        ("tuple", "CL-INPUT-LAYOUT", "got tuple. Say by output="),
        ("wide", "CL-INPUT-RANGE", "the pixels lie in"),
        ("label", "CL-INPUT-SHAPE", "Odd cannot take latents.*n_classes= for a conditional"),
        ("flat", "CL-INPUT-LAYOUT", r"got \(8, 12\)"),
        ("nan", "CL-INPUT-NONFINITE", "NaN or infinity"),
    ],
)
def test_a_generator_that_is_not_as_declared(guide, fault, code, words):
    generator = Generator(Odd(fault), latent=4, output_range=(-1, 1))
    with pytest.raises(InputError, match=words) as caught:
        TextToUnlearn(guide, "red").unlearn(generator)
    assert caught.value.code == code


def test_latents_that_the_module_cannot_take(guide):
    with pytest.raises(InputError, match="cannot take latents of shape") as caught:
        TextToUnlearn(guide, "red").unlearn(Generator(Odd(""), latent=5, output_range=(-1, 1)))
    assert caught.value.code == "CL-INPUT-SHAPE"
    law = Generator(Odd(""), latent=lambda n, g: torch.zeros(n + 1, 4), output_range=(-1, 1))
    with pytest.raises(InputError, match=r"gave shape \(9, 4\) for n = 8") as caught:
        TextToUnlearn(guide, "red").unlearn(law)
    assert caught.value.code == "CL-INPUT-SHAPE"


class Turns(nn.Module):
    """One generator in many shapes of what goes in and comes out."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(4, 3 * SIDE * SIDE)

    def forward(self, z, label=None):
        z = z[0] if self.kind == "list" else z
        if self.kind == "column":
            assert z.shape[1:] == (4, 1, 1)
        images = torch.tanh(3 * self.layer(z.flatten(1))).view(-1, 3, SIDE, SIDE)
        if self.kind == "noisy":
            images = images + 0.05 * torch.randn(len(z), 3, SIDE, SIDE)
        made = {"grey": images[:, :1], "tuple": (None, images), "mapping": {"x": images}}
        return made.get(self.kind, images)


@pytest.mark.parametrize(
    ("kind", "declared", "dtype"),
    [
        ("grey", {}, torch.float32),
        ("tuple", {"output": 1}, torch.float32),
        ("mapping", {"output": "x"}, torch.float32),
        ("list", {"latent_list": True}, torch.float32),
        ("column", {"latent": (4, 1, 1)}, torch.float32),
        ("half", {}, torch.float16),
        ("half", {}, torch.bfloat16),
        ("double", {}, torch.float64),
    ],
)
def test_every_kind_of_module_gives_images(kind, declared, dtype):
    module = Turns(kind).to(dtype)
    generator = Generator(module, **{"latent": 4, "output_range": (-1, 1), **declared})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator.check()
    z = generator.draw(5, torch.Generator().manual_seed(0))
    for which in (generator, generator.frozen()):
        images = which.images(z)
        assert images.shape == (5, 3, SIDE, SIDE)
        assert images.dtype == torch.float32
    if kind == "grey":
        assert torch.equal(images[:, 0], images[:, 2])


def test_noise_that_goes_by_rows_is_told():
    generator = Generator(Turns("noisy"), latent=4, output_range=(-1, 1))
    with pytest.warns(UnlearningWarning, match="depends on its row in the batch"):
        generator.check()


def test_a_generator_of_half_precision_is_trained_and_comes_back_in_it(guide):
    module = copy.deepcopy(toy_gan()).half()
    result = forget(module, guide, steps=2)
    assert {p.dtype for p in result.module.parameters()} == {torch.float16}
    assert any(
        not torch.equal(a, b)
        for a, b in zip(module.parameters(), result.module.parameters(), strict=True)
    )


# What is missed


def test_a_run_that_misses_its_aim_says_so(gan, guide, tmp_path):
    """Without a step, and with the mapping as it was, all is as it was."""
    with pytest.warns(UnlearningWarning, match=r"removed 0\.0 % \(at least 90 %\)"):
        result = forget(gan, guide, steps=0)
    assert result.stopped == "missed: removed 0.0 % (at least 90 %)"
    assert result.details["held-out"]["removed"] == 0
    assert result.details["held-out"]["unchanged"] == 1
    assert "More steps" in result.warnings[0]
    report = assess(gan, result, "red", guide, ToyJudge(), n=200)
    assert report.facts["missed"] == ["removed 0.0 % (at least 90 %)"]
    words = "Missed: removed 0.0 % (at least 90 %)."
    assert words in repr(report)
    assert words in report._repr_html_()
    page = report.to_html(tmp_path / "a.html").read_text()
    assert page.index(words) < page.index("<section")
    assert missed(0.9, 0.97) == missed(math.nan, math.nan) == []
    assert len(missed(0.5, 0.5)) == 2


def test_held_out_figures_of_a_rare_concept(gan, guide):
    """One latent in forty is red: more are drawn until enough show it."""

    def law(n, draws):
        shares = torch.tensor([0.025, 0.5, 0.475])
        colour = functional.one_hot(torch.multinomial(shares, n, True, generator=draws), 3)
        light = functional.one_hot(torch.randint(2, (n,), generator=draws), 2)
        return torch.cat([colour, light, torch.randn(n, 1, generator=draws)], 1).float()

    frozen = Generator(gan, latent=law).frozen()
    draws = torch.Generator().manual_seed(0)
    sight = look(frozen, Guide(guide), Request.of("red"), draws, n=800, second_view=False)
    held = HeldOut(sight, frozen.fork(), 32, draws)
    assert len(held.rare) >= 12
    assert (held.rare[:, 0] == 1).all()
    assert held.at_the_end()["removed"] == 0


def test_the_perceptual_weight_counts_over_all_steps(gan, guide):
    options = {
        "perceptual_weight": 0.7,
        "guide_every": 4,
        "perceptual": lambda a, b: a.mean() * 0 + 2,
    }
    work, _, _ = objective(gan, guide, **options)
    draws = torch.Generator().manual_seed(0)
    assert work.losses(0, draws)["perceptual"].item() == pytest.approx(4 * 0.7 * 2)
    assert "perceptual" not in work.losses(1, draws)


# Targets


def test_a_target_that_is_shown_too_seldom(gan, guide):
    with pytest.raises(InputError, match=r"shows 'red' in \d\d\.\d\d % of its images, fewer"):
        forget(gan, guide, min_share=0.5)
    with pytest.raises(
        InputError, match=r"separation \d+\.\d\d, at least 1000 is needed"
    ) as caught:
        forget(gan, guide, min_separation=1000)
    assert caught.value.code == "CL-INPUT-TARGET"


def test_an_anchor_that_says_the_same(gan, guide):
    with pytest.raises(InputError, match=r"cosine of their vectors is 1\.0000") as caught:
        forget(gan, guide, anchor="a red one")
    assert caught.value.code == "CL-INPUT-TARGET"


def test_an_unknown_layer_is_named_with_those_that_there_are(gan, guide):
    with pytest.raises(InputError, match="nowhere") as caught:
        forget(gan, guide, layers=["nowhere"])
    assert caught.value.code == "CL-SPLIT-LAYER"
    assert "Known: 0, 2, 4" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retain": {"colour": "red"}}, r"retain\['colour'\] must be a list of texts"),
        ({"retain": ["red", "blue"]}, "families of texts.*got list"),
        ({"n_survey": 3}, "n_survey must be a whole number of at least 16, got 3"),
        ({"batch_size": 1}, "batch_size must be a whole number of at least 4"),
        ({"steps": 2.5}, "steps must be a whole number of at least 0, got 2.5"),
        ({"groups": 0}, "groups must be"),
    ],
)
def test_options_that_make_no_sense(gan, guide, options, words):
    with pytest.raises(InputError, match=words):
        forget(gan, guide, **options)


def test_no_target(gan, guide):
    for target in (None, "", ["red", " "], 3):
        with pytest.raises(InputError, match="must be a text or several") as caught:
            TextToUnlearn(guide, target).unlearn(gan)
        assert caught.value.code == "CL-INPUT-EMPTY"
    with pytest.raises(InputError, match="families of texts"):
        RejectionFilter(guide, "red", retain=["red"]).unlearn(gan)
    with pytest.raises(InputError, match="must be a list of texts"):
        assess(gan, gan, "red", guide, retain={"colour": "red"})


# Training that fails


def finite(module):
    return all(bool(torch.isfinite(p).all()) for p in module.parameters())


class Breaks:
    """A perceptual loss that fails from a call on."""

    def __init__(self, good):
        self.good, self.calls = good, 0

    def __call__(self, moved, still):
        self.calls += 1
        return perceptual_loss(moved, still) * (1.0 if self.calls <= self.good else float("nan"))


def test_nan_in_the_training_is_rewound(gan, guide):
    # 2 terms for the choice of layers, then 2 terms a step
    result = forget(gan, guide, perceptual=Breaks(2 + 2 * 7))
    assert result.stopped == "nan: rewound"
    assert len(result.history) == 7
    assert finite(result.module)


def test_nan_before_the_first_step_is_told(gan, guide):
    with pytest.raises(InputError, match="not finite before the first step") as caught:
        forget(gan, guide, perceptual=Breaks(0))
    assert caught.value.code == "CL-INPUT-NONFINITE"


def test_nan_ends_the_training_of_the_mapper(gan, guide):
    class Once(Breaks):
        def __call__(self, moved, still):
            bad = self.calls == self.good
            self.calls += 1
            return perceptual_loss(moved, still) * (float("nan") if bad else 1.0)

    # a mapper without partners is held by the perceptual loss
    result = forget(gan, guide, perceptual=Once(1), surrogate=False)
    assert result.details["mapper_steps"] == 1
    assert not result.stopped.startswith("nan")
    assert finite(result.module)


def test_collapse_is_rewound(gan, guide):
    """A loss that is least where all images are alike."""

    def alike(moved, still):
        return 5 * (moved - 0.5).abs().mean()

    result = forget(gan, guide, perceptual=alike, steps=150, lr=1e-2, average=0.0, layers="all")
    assert result.stopped == "collapse: rewound"
    seen = [row["held-out spread"] for row in result.history if "held-out spread" in row]
    assert seen[-1] < 0.35
    z = Generator(gan).draw(64, torch.Generator().manual_seed(0))
    with torch.no_grad():
        spread = [float(g.images(z).std(0).mean()) for g in (Generator(gan), result.generator)]
    assert spread[1] >= 0.35 * spread[0]


def test_a_checkpoint_is_kept_at_a_budgets_end_and_of_another_run_refused(gan, guide, tmp_path):
    budget = {**QUICK, "max_steps": 1}
    unlearner = TextToUnlearn(guide, "red", retain=FAMILIES, random_state=0, **budget)
    assert unlearner.unlearn(gan, checkpoint=tmp_path / "run").stopped == "max_steps"
    other = TextToUnlearn(guide, "red", retain=FAMILIES, random_state=0, **{**QUICK, "lr": 1e-4})
    with pytest.raises(Exception, match="belongs to another run.*lr") as caught:
        other.unlearn(gan, checkpoint=tmp_path / "run")
    assert caught.value.code == "CL-CHECKPOINT-KIND"


# Thumbnails


class Shown:
    """Stands for a place in a notebook."""

    def __init__(self):
        self.views = []

    def __call__(self, view, display_id):
        self.views.append(view.data)
        return self

    def update(self, view):
        self.views.append(view.data)


def test_a_notebook_shows_thumbnails_over_each_other(gan, guide, monkeypatch):
    IPython = pytest.importorskip("IPython")
    place = Shown()
    monkeypatch.setattr(IPython.display, "display", place)
    strips = {"before": torch.rand(3, 3, 8, 8), "now": torch.rand(3, 3, 8, 8)}
    Thumbnails(True).show(strips)
    assert place.views == []  # no notebook
    monkeypatch.setitem(sys.modules, "ipykernel", IPython)
    assert in_notebook(True)
    assert not in_notebook(False)
    assert not in_notebook(lambda done, total: None)
    assert not in_notebook(None)  # the tests silence progress
    forget(gan, guide, progress=True, steps=50)
    assert len(place.views) == 2  # a look every 25 steps
    assert place.views[0].count("<img") == 2
    assert place.views[0] != place.views[1]
    monkeypatch.setenv("CONCEPTLAB_PROGRESS", "1")
    Thumbnails(None, delay=60.0).show(strips)
    assert len(place.views) == 2  # too early
