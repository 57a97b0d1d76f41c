"""Unlearning in generators, on one whose truth is known."""

import copy
import json
import signal

import numpy as np
import pytest
import torch
import typer
from scipy.stats import wasserstein_distance
from torch import nn
from toy_gan import (
    COLOURS,
    FAMILIES,
    SIDE,
    SMALL,
    StyleGan2Shaped,
    ToyGan,
    ToyJudge,
    toy_gan,
    toy_guide,
)
from typer.testing import CliRunner

from conceptlab.errors import ConceptlabError, InputError
from unlearning.gan import (
    DirectionalAdaptation,
    Generator,
    LatentGuard,
    NegativeFineTune,
    RejectionFilter,
    TextToUnlearn,
    assess,
    degree_of_unlearning,
    latent_search,
    paraphrases,
    prompt_attack,
    relearn,
)
from unlearning.gan.finetune import finetune
from unlearning.gan.gate import fit_gate
from unlearning.gan.guide import Guide, augment_pair
from unlearning.gan.layers import sensitive_layers
from unlearning.gan.mapper import LatentMapper
from unlearning.gan.objective import Objective
from unlearning.gan.places import match_styles
from unlearning.gan.survey import survey
from unlearning.gan.views import told


@pytest.fixture(scope="module")
def gan():
    return toy_gan()


@pytest.fixture(scope="module")
def guide():
    return toy_guide()


@pytest.fixture(scope="module")
def red_gone(gan, guide):
    before = copy.deepcopy(gan.state_dict())
    state = torch.random.get_rng_state()
    result = TextToUnlearn(guide, "red", retain=FAMILIES, random_state=0, **SMALL).unlearn(gan)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in gan.state_dict().items():
        assert torch.equal(value, before[name]), name
    return result


@pytest.fixture(scope="module")
def report(gan, guide, red_gone):
    return assess(gan, red_gone, "red", guide, ToyJudge(), retain=FAMILIES, n=500)


def test_the_concept_is_gone_and_the_rest_is_there(report, gan, red_gone):
    f = report.figures
    assert f["judge: share before"] == pytest.approx(1 / 3, abs=0.08)
    # All of the shares are 1 or 0 and the degree 0.95 whatever the processor.
    assert f["judge: removed"] >= 0.95
    assert f["judge: kept light"] >= 0.95
    assert f["judge: unchanged, never had it"] >= 0.95
    assert f["judge: leak"] <= 0.05
    assert f["degree, guide"] >= 0.8
    assert f["pixel change, never had it"] < 0.1 * f["pixel change, had it"]
    assert isinstance(red_gone.module, ToyGan)
    assert red_gone.module is not gan
    assert not red_gone.module.training
    flags = [p.requires_grad for p in red_gone.module.parameters()]
    assert flags == [p.requires_grad for p in gan.parameters()]


def test_not_only_the_mapping_forgets(gan, red_gone):
    old, new = Generator(gan), red_gone.generator
    w = old.styles(old.draw(400, torch.Generator().manual_seed(3)))
    with torch.no_grad():
        before, after = (ToyJudge().probabilities(g.images_of(w))["colour"] for g in (old, new))
    red = before.argmax(1) == 0
    assert float((after.argmax(1)[red] == 0).float().mean()) <= 0.05
    assert float((after.argmax(1) == before.argmax(1))[~red].float().mean()) >= 0.95


def test_two_at_once_and_a_third_after_them(gan, guide):
    targets = ["red", "bright"]
    result = TextToUnlearn(guide, targets, retain=FAMILIES, random_state=0, **SMALL).unlearn(gan)
    f = assess(gan, result, targets, guide, ToyJudge(), retain=FAMILIES, n=400).figures
    assert f["judge: removed"] >= 0.95
    assert f["judge: unchanged, never had it"] >= 0.95
    assert {"degree, guide, red", "degree, guide, bright"} <= set(f)
    third = TextToUnlearn(guide, "blue", retain=FAMILIES, random_state=0, **SMALL)
    after = third.unlearn(result.generator)
    for target in ("red", "blue"):  # what went first stays away
        f = assess(gan, after, target, guide, ToyJudge(), n=300).figures
        assert f["judge: removed"] >= 0.95


def test_the_papers_way_moves_every_latent(gan, guide):
    method = TextToUnlearn.paper(
        guide,
        "red",
        retain=FAMILIES,
        n_survey=300,
        random_state=0,
        mapper_steps=20,
        steps=30,
        perceptual_weight=0.0,
        lr=4e-3,
    )
    result = method.unlearn(gan)
    f = assess(gan, result, "red", guide, ToyJudge(), n=300).figures
    assert f["pixel change, never had it"] > 0.005  # a gate leaves them alone, to 0.003
    assert set(result.history[0]) == {"step", "direction"}


def test_baselines_do_what_they_say(gan, guide):
    f = {}
    options = {"retain": FAMILIES, "random_state": 0}
    for method in (
        DirectionalAdaptation(guide, "red", lr=4e-3, **options),
        NegativeFineTune(guide, "red", **options),
        LatentGuard(guide, "red", **options),
        RejectionFilter(guide, "red", **options),
    ):
        result = method.unlearn(gan)
        f[type(method).__name__] = assess(gan, result, "red", guide, ToyJudge(), n=300).figures
    assert f["RejectionFilter"]["judge: removed"] >= 0.95
    assert f["RejectionFilter"]["pixel change, never had it"] < 1e-5
    assert f["RejectionFilter"]["judge: kept light"] < 0.8  # another latent, another light
    assert f["LatentGuard"]["judge: removed"] >= 0.9
    assert f["DirectionalAdaptation"]["pixel change, never had it"] > 0.005
    assert (
        f["NegativeFineTune"]["pixel change, had it"]
        > f["NegativeFineTune"]["pixel change, never had it"]
    )


class Painter(nn.Module):
    """Paints the code itself: its colours, a blend of the rows of a table."""

    output_range = (0.0, 1.0)

    def __init__(self, colours):
        super().__init__()
        self.table = nn.Parameter(colours.clone())

    def draw_latents(self, n, generator):
        return ToyGan.draw_latents(self, n, generator)

    def forward(self, z):
        left = (4 * z[:, :3]).softmax(1) @ self.table
        light = z[:, 3:4].sigmoid().expand(-1, 3)
        halves = torch.stack([left, light], 2)[:, :, None].repeat_interleave(SIDE, 2)
        return halves.repeat_interleave(SIDE // 2, 3)


def test_attacks_tell_a_generator_that_forgot_from_one_that_did_not(guide):
    """One can paint red; the other has blue in its place, and no blend of its colours is red."""
    judge, able = ToyJudge(), Painter(COLOURS)
    unable = Painter(COLOURS[[1, 1, 2]])
    for space in ("z", "w"):
        found = [
            latent_search(g, "red", judge, space=space, steps=40, encoder=guide)
            for g in (able, unable)
        ]
        assert found[0]["found"] > 0.9
        assert found[0]["at the start"] < 0.6
        assert 0.9 < found[0]["found by both"] <= found[0]["found"]
        assert found[1]["found"] == found[1]["found by both"] == 0
    few = relearn(able, unable, "red", judge, n=200, steps=1, lr=1e-3)
    many = relearn(able, unable, "red", judge, n=200, steps=80, lr=3e-2)
    assert few == {"without attack": 0, "back": 0, "back, from latents": 0}
    assert many == {"without attack": 0, "back": 1, "back, from latents": 1}
    words = paraphrases(able, unable, "red", guide, ["a red thing"])
    assert list(words) == ["red", "a red thing"]
    assert min(words.values()) > 0.9
    mapped = [
        prompt_attack(able, g, "red", guide, judge, steps=50, lr=2e-2)["found"]
        for g in (able, unable)
    ]
    assert mapped[0] > 0.9
    assert mapped[1] == 0


def test_report_says_when_the_guide_is_alone(gan, guide, red_gone, report, tmp_path):
    alone = assess(gan, red_gone, "red", guide, n=200)
    assert "No independent judge" in alone.notes[0]
    assert not report.notes
    assert alone.figures["guide: removed"] >= 0.95
    page = report.to_html(tmp_path / "a.html").read_text()
    assert page.count("class='drawn'") == 3
    assert "http" not in page.split("</style>")[1]
    assert json.loads(json.dumps(report.to_dict()))["facts"]["targets"] == ["red"]
    assert list(report.to_frame().columns) == ["figure", "value"]
    report.add("search", {"found": 0.5})
    assert report.figures["search: found"] == 0.5
    with pytest.raises(InputError, match="Did you mean 'grids'"):
        report.plot("grid")


def test_degree_follows_the_formula():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(3, 1, 200), rng.normal(1, 1, 200), rng.normal(0, 1, 150)
    known = 1 - wasserstein_distance(b, c) / wasserstein_distance(a, c)
    assert degree_of_unlearning(a, b, c) == pytest.approx(known)
    assert degree_of_unlearning(a, a, c) == 0
    assert degree_of_unlearning(a, 2 * a, c) < 0
    with pytest.raises(InputError, match="nothing to forget"):
        degree_of_unlearning(a, b, a)
    with pytest.raises(InputError, match="CL-INPUT-NONFINITE"):
        degree_of_unlearning(a, [np.nan], c)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_a_stylegan2_shaped_module_works_as_it_is(c_dim):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = StyleGan2Shaped(c_dim=c_dim).eval()
    generator = Generator(module)
    generator.check()
    z = generator.draw(4, torch.Generator().manual_seed(0))
    assert z.shape == (4, 8 + c_dim)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        w, images = generator.styles(z), generator.images(z)
        known = module(z[:, :8], z[:, 8:], noise_mode="const")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert w.shape == (4, module.num_ws, 8)
    assert torch.allclose(images, (known + 1) / 2)
    half = Generator(module, truncation=0.5)
    assert torch.allclose(half.styles(z), 0.5 * w, atol=1e-6)  # the mean style is 0 here
    mapper = LatentMapper(w, groups=3)
    nn.init.normal_(mapper.step.bias)
    step = (mapper(w) - w).detach()
    assert torch.allclose(step[:, 0], step[:, 0])
    assert not torch.allclose(step[:, 0], step[:, -1])


def test_a_stylegan2_shaped_module_is_trained(guide):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = StyleGan2Shaped().eval()
    unlearner = TextToUnlearn(
        guide,
        "red",
        min_separation=0.0,
        n_survey=64,
        mapper_steps=2,
        steps=2,
        n_held_out=16,
        random_state=0,
        layers=["convs.0", "torgb"],
        fold_steps=5,
    )
    result = unlearner.unlearn(module)
    moved = {
        n
        for (n, a), b in zip(
            module.synthesis.named_parameters(), result.module.synthesis.parameters(), strict=True
        )
        if not torch.equal(a, b)
    }
    assert moved
    assert all(n.startswith(("convs.0", "torgb")) for n in moved)
    # 5 steps teach a mapping nothing: then it stays as it was
    assert not result.details["mapping"]["learned"]
    for a, b in zip(module.mapping.parameters(), result.module.mapping.parameters(), strict=True):
        assert torch.equal(a, b)


def test_direct_and_conditional_modules():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 12)

        def forward(self, z, label):
            assert label.dtype == torch.int64
            return torch.tanh(self.layer(torch.cat([z, torch.eye(2)[label]], 1))).view(-1, 3, 2, 2)

    generator = Generator(Direct(), latent=3, output_range=(-1, 1), n_classes=2, labels="index")
    generator.check()
    z = generator.draw(5, torch.Generator().manual_seed(0))
    assert z.shape == (5, 5)
    assert torch.equal(generator.styles(z), z)
    assert generator.images(z).shape == (5, 3, 2, 2)


def test_a_search_keeps_the_class():
    class ByClass(nn.Module):
        def forward(self, z, label):
            images = 0.5 + 0 * z.sum() + torch.zeros(len(z), 3, SIDE, SIDE)
            images[..., : SIDE // 2] = (label @ COLOURS)[:, :, None, None]
            return images

    generator = Generator(ByClass(), latent=2, output_range=(0, 1), n_classes=3)
    found = latent_search(generator, "red", ToyJudge(), steps=5)
    assert 0 < found["found"] == found["at the start"] < 1


def test_what_a_generator_must_declare(gan):
    class Plain(nn.Module):
        def forward(self, z):
            return 255 * torch.sigmoid(z)[:, :, None, None].expand(-1, 3, 2, 2)

    with pytest.raises(InputError, match="in which range"):
        Generator(Plain(), latent=3)
    with pytest.raises(InputError, match="what its latents are"):
        Generator(Plain(), output_range=(0, 1))
    with pytest.raises(InputError, match="the pixels lie in"):
        Generator(Plain(), latent=3, output_range=(-1, 1)).check()
    with pytest.raises(InputError, match="cannot take latents"):
        Generator(gan, latent=7).check()
    generator = Generator(gan, truncation=0.7)
    with pytest.raises(InputError, match="truncation_psi"):
        generator.images(torch.zeros(2, 6))


def test_targets_that_cannot_be_forgotten(gan, guide):
    with pytest.raises(InputError, match="cannot tell 'red' from the anchor"):
        TextToUnlearn(guide, "red", anchor="red", n_survey=64).unlearn(gan)
    blue = torch.tensor([[0.0, 1, 0, 0.5, 0.5, 0]])
    never = Generator(gan, latent=lambda n, g: blue + 0.1 * torch.randn(n, 6, generator=g))
    with pytest.raises(InputError, match="do not fall into two groups"):
        TextToUnlearn(guide, "red", n_survey=200, random_state=0).unlearn(never)
    with pytest.raises(InputError, match="All 200 images show 'red' or 'blue' or 'green'"):
        TextToUnlearn(guide, ["red", "blue", "green"], n_survey=200, random_state=0).unlearn(gan)
    quick = {"n_survey": 200, "mapper_steps": 1, "fold_steps": 0}
    with pytest.raises(InputError, match="CL-SPLIT-LAYER"):
        TextToUnlearn(guide, "red", layers=["nowhere"], **quick).unlearn(gan)
    with pytest.raises(InputError, match="CL-INPUT-EMPTY"):
        TextToUnlearn(guide, []).unlearn(gan)
    with pytest.raises(InputError, match="CL-INPUT-DEVICE"):
        TextToUnlearn(guide, "red", device="nowhere").unlearn(gan)
    with pytest.raises(InputError, match="embed_image"):
        TextToUnlearn(object(), "red").unlearn(gan)
    with pytest.raises(InputError, match="CL-INPUT-TARGET"):
        assess(gan, gan, "purple", guide, ToyJudge(), n=100)


def test_gate_finds_the_groups(gan, guide):
    inner = Guide(guide)
    seen = survey(Generator(gan), inner, 400, torch.Generator().manual_seed(0))
    gate = fit_gate(inner.concept("red", ["blue", "green"]), seen.embeddings)
    truth = seen.z[:, 0] == 1
    assert torch.equal(gate.shows(seen.embeddings), truth)
    assert gate.separation > 10
    known = {"light": told(inner.texts(FAMILIES["light"]), seen, None)}
    rows, partners = match_styles(seen, truth, known, [gate])
    assert truth[rows].all()
    assert not truth[partners].any()
    assert partners.shape == (len(rows), 1)
    assert torch.equal(seen.z[rows, 3], seen.z[partners[:, 0], 3])  # the light is kept


def test_both_of_a_pair_move_alike():
    images = torch.rand(3, 3, 16, 16)
    first, second = augment_pair(images, images, torch.Generator().manual_seed(0))
    assert torch.equal(first, second)
    assert not torch.equal(first, images)


def loop_of(module, losses, **options):
    draws = torch.Generator().manual_seed(0)
    return finetune(list(module.parameters()), losses, lr=0.1, draws=draws, **options)


def test_a_loop_rewinds_after_nan_and_collapse():
    module = nn.Linear(2, 2)

    def losses(step):
        value = module.weight.square().sum()
        return {"loss": value if step < 4 else value * float("nan")}

    loop = loop_of(module, losses, steps=10, check_every=2)
    assert loop.stopped == "nan: rewound"
    assert "Use a smaller lr" in loop.warnings[0]
    assert loop.steps == 4
    assert torch.isfinite(module.weight).all()
    before = module.weight.clone()
    spread = iter([1.0, 0.1])
    loop = loop_of(
        module,
        lambda s: {"loss": module.weight.square().sum()},
        steps=10,
        check_every=2,
        check=lambda: {"spread": next(spread)},
    )
    assert loop.stopped == "collapse: rewound"
    assert loop.steps == 4
    assert not torch.equal(module.weight, before)
    assert loop_of(module, lambda s: {"l": module.weight.sum()}, steps=9, max_steps=3).steps == 3
    stop = loop_of(module, lambda s: {"l": module.weight.sum()}, steps=9, max_seconds=0.0)
    assert stop.stopped == "max_seconds"


def test_an_interrupted_run_goes_on_to_the_same_bits(gan, guide, tmp_path, monkeypatch, request):
    settings = {**SMALL, "steps": 12, "mapper_steps": 2, "n_survey": 200, "fold_steps": 50}
    unlearner = TextToUnlearn(guide, "red", retain=FAMILIES, random_state=0, **settings)
    whole = unlearner.unlearn(gan)
    losses, count = Objective.losses, iter(range(100))

    def press(self, step, draws):
        if next(count) == 7:
            signal.raise_signal(signal.SIGINT)
        return losses(self, step, draws)

    monkeypatch.setattr(Objective, "losses", press)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(KeyboardInterrupt):
        unlearner.unlearn(gan, checkpoint=tmp_path / "run")
    monkeypatch.undo()
    again = unlearner.unlearn(gan, checkpoint=tmp_path / "run")
    for a, b in zip(again.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not (tmp_path / "run").exists()


def test_sensitive_layers_are_those_that_matter():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    loss = module[1](torch.ones(1, 2)).square().sum()
    assert {n.split(".")[0] for n in sensitive_layers(module, loss, "auto")} == {"1"}
    assert len(sensitive_layers(module, loss, "all")) == 4
    with pytest.raises(InputError, match="CL-INPUT-OPTION"):
        sensitive_layers(module, loss, "some")


class Small(TextToUnlearn):
    """With settings that suit the toy."""

    def __init__(self, encoder, target, anchor=None, **options):
        super().__init__(encoder, target, anchor, **{**SMALL, **options})


def test_the_command_writes_report_and_weights(guide, tmp_path, monkeypatch):
    from unlearning.commands.gan import unlearn_gan
    from unlearning.gan import text_to_unlearn

    app = typer.Typer()
    app.command()(unlearn_gan)

    monkeypatch.setattr(text_to_unlearn, "TextToUnlearn", Small)
    monkeypatch.setattr("conceptlab.encoders.load_encoder", lambda name: guide)
    call = [
        "--generator",
        "toy_gan:toy_gan",
        "--target",
        "red",
        "--steps",
        "5",
        "--latents",
        "200",
        "--out",
        str(tmp_path / "a.html"),
        "--save",
        str(tmp_path / "w"),
        "--json",
    ]
    answer = CliRunner().invoke(app, call)
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert facts["figures"]["guide: removed"] > 0.9
    assert "No independent judge" in facts["notes"][0]
    assert facts["facts"]["stopped"] == "done"
    assert (tmp_path / "a.html").read_text().count("class='drawn'") == 3
    assert (tmp_path / "w").stat().st_size > 1000
    families = tmp_path / "families.json"
    families.write_text(json.dumps(FAMILIES))
    known = ["--judge", "toy_gan:ToyJudge", "--retain", str(families)]
    answer = CliRunner().invoke(app, [*call, *known])
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert not facts["notes"]
    assert facts["figures"]["judge: removed"] > 0.9
    for bad in ("[]", "{", '{"colour": "red"}'):
        families.write_text(bad)
        with pytest.raises(InputError, match="CL-INPUT-FILE"):
            CliRunner().invoke(app, [*call, *known], catch_exceptions=False)
    for name, words in (
        ("toy_gan", "must be 'embedded'"),
        ("toy_gan:none", "Cannot call"),
        ("torchscript:none.pt", "none.pt does not exist"),
    ):
        with pytest.raises(ConceptlabError, match=words):
            CliRunner().invoke(app, ["--generator", name], catch_exceptions=False)


class FromNormal(nn.Module):
    """The toy from normal latents: what a file says nothing of."""

    def __init__(self, inner):
        super().__init__()
        self.inner_mapping, self.inner_synthesis = inner.mapping, inner.synthesis

    def forward(self, z):
        light = torch.sigmoid(9 * z[:, 3:4])
        code = torch.cat([(9 * z[:, :3]).softmax(1), light, 1 - light, z[:, 4:5]], 1)
        return self.inner_synthesis(self.inner_mapping(code))


def test_the_command_takes_a_scripted_module(gan, guide, tmp_path, monkeypatch):
    from unlearning.commands.gan import unlearn_gan
    from unlearning.gan import text_to_unlearn

    app = typer.Typer()
    app.command()(unlearn_gan)
    monkeypatch.setattr(text_to_unlearn, "TextToUnlearn", Small)
    monkeypatch.setattr("conceptlab.encoders.load_encoder", lambda name: guide)
    torch.jit.script(FromNormal(gan)).save(tmp_path / "gan.pt")
    (tmp_path / "families.json").write_text(json.dumps(FAMILIES))
    call = [
        "--generator",
        f"torchscript:{tmp_path / 'gan.pt'}",
        "--latent",
        "5",
        "--json",
        "--output-range",
        "0,1",
        "--latents",
        "200",
        "--steps",
        "160",
        "--judge",
        "toy_gan:ToyJudge",
        "--retain",
        str(tmp_path / "families.json"),
        "--out",
        str(tmp_path / "a.html"),
        "--save",
        str(tmp_path / "w"),
    ]
    answer = CliRunner().invoke(app, call, catch_exceptions=False)
    assert json.loads(answer.stdout)["figures"]["judge: removed"] > 0.9
    with pytest.raises(ConceptlabError, match=r"\(8, 3\): .*size of batch"):
        CliRunner().invoke(app, [*call, "--latent", "3"], catch_exceptions=False)


def test_a_scripted_module_can_forget(gan, guide, tmp_path):
    class Flat(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, z):
            return self.inner.synthesis(self.inner.mapping(z))

    torch.jit.script(Flat(gan)).save(tmp_path / "gan.pt")
    module = torch.jit.load(tmp_path / "gan.pt").eval()
    scripted = Generator(module, latent=gan.draw_latents, output_range=(0, 1))
    assert not scripted.has_styles
    unlearner = TextToUnlearn(guide, "red", retain=FAMILIES, random_state=0, **SMALL)
    result = unlearner.unlearn(scripted)
    f = assess(scripted, result, "red", guide, ToyJudge(), n=300).figures
    assert f["judge: removed"] >= 0.9
    assert f["judge: unchanged, never had it"] >= 0.95


def test_a_scripted_module_keeps_its_mapping_and_synthesis(gan, guide, tmp_path):
    torch.jit.script(gan).save(tmp_path / "gan.pt")
    module = torch.jit.load(tmp_path / "gan.pt").eval()
    scripted = Generator(module, latent=gan.draw_latents, output_range=(0, 1))
    assert scripted.has_styles
    z = gan.draw_latents(5, torch.Generator().manual_seed(0))
    assert torch.allclose(scripted.images(z), gan(z), atol=1e-6)
    with pytest.raises(InputError, match=r"latents of shape \(8, 9\): mat1 and mat2"):
        Generator(module, latent=9, output_range=(0, 1)).check()
    settings = {**SMALL, "n_survey": 100, "mapper_steps": 2, "steps": 2, "fold_steps": 200}
    result = TextToUnlearn(guide, "red", retain=FAMILIES, random_state=0, **settings).unlearn(
        scripted
    )
    assert result.details["mapping"]["learned"]
    assert not torch.equal(result.generator.styles(z), scripted.styles(z))
