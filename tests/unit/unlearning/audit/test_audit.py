"""The audit on a world with known concepts: verdicts, references, files, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from glyph_world import CONCEPTS, FORGOTTEN, SIDE, build, data, models
from torch import nn

from conceptlab.errors import InputError, SplitError
from conceptlab.provenance import fingerprint
from unlearning import LogitMask
from unlearning.audit import Report, Thresholds, Training, audit, relearn
from unlearning.audit.figures import FIGURES
from unlearning.audit.measuring import random_twin
from unlearning.audit.reading import read_model
from unlearning.audit.subjects import check_sets, read_concepts
from unlearning.data import as_samples
from unlearning.notices import UnlearningWarning

ATTACK = {"relearn": True, "max_steps": 16, "attacker": Training(batch_size=24)}


def parts():
    forget, retain, test, _ = data()
    return {"forget": forget, "retain": retain, "test": test}


@pytest.fixture(scope="module")
def masked():
    return LogitMask().unlearn(models()[0], forget=data()[0], retain=data()[1])


@pytest.fixture(scope="module")
def whole(masked):
    """A mask, with everything there is to measure."""
    return audit(
        models()[0],
        masked,
        **parts(),
        retrained=list(models()[1:3]),
        concepts=(data()[3], CONCEPTS),
        class_names=["a", "b", "<c>", "d"],
        **ATTACK,
        retrain_seconds=4.0,
        seconds=1.0,
    )


def quick(before, after, **options):
    return audit(before, after, **{**parts(), "relearn": False, "bits": (), **options})


# -- known truth
def test_a_mask_is_suppressed_with_and_without_reference(whole, masked):
    assert whole.verdict.word == "suppressed"
    assert whole.baselines == {"before": "not forgotten", "mask": "suppressed"}
    assert quick(models()[0], masked).verdict.word == "suppressed"
    huge = LogitMask(margin=1e4).unlearn(models()[0], forget=data()[0], retain=data()[1])
    found = audit(models()[0], huge, **parts(), retrained=models()[1], **ATTACK)
    assert found.verdict.word == "suppressed"
    # The margin does not make it look hard to teach: the attacker resets the row.
    assert found.value("relearn_steps") == found.value("relearn_steps", "mask")


def test_a_retrained_model_is_removed_and_the_original_is_not_forgotten():
    original, first, second, third = models()
    found = audit(
        original,
        third,
        **parts(),
        retrained=[first, second],
        **ATTACK,
        concepts=(data()[3], CONCEPTS),
    )
    assert found.verdict.word == "removed"
    assert quick(original, third, retrained=first).verdict.word == "removed"
    assert quick(original, third).verdict.word in ("removed", "undecided")
    assert quick(original, original, retrained=[first, second]).verdict.word == "not forgotten"


def test_a_ruined_model_is_damaged():
    assert quick(models()[0], random_twin(models()[0], 5)).verdict.word in (
        "damaged",
        "not forgotten",
    )
    broken = nn.Sequential(models()[1], nn.Identity())
    with torch.no_grad():
        ruined = build().eval()
        ruined.load_state_dict(models()[1].state_dict())
        ruined[-1].weight.zero_()
    assert quick(models()[0], ruined, retrained=broken).verdict.word == "damaged"


def test_figures_beside_the_references(whole):
    value = whole.value
    assert value("fa_train") == value("fa_test") == value("fa_train", "retrained") == 0
    assert value("fa_train", "before") > 0.95
    assert value("js") == value("js", "mask")
    assert value("js", "retrained") == 0
    assert value("js_mask") == 0
    assert value("js", "before") > 0.5
    assert value("agreement", "retrained") == value("tow", "retrained") == 1
    assert value("gap", "retrained") == 0
    assert value("features_kept") == 1
    assert value("features_kept", "retrained") < 0.2
    assert value("probe_recall") == value("probe_recall", "before")
    assert value("probe_recall") > value("probe_recall", "retrained")
    assert value("ain", "before") == 0
    assert value("rte") == 0.25
    assert whole.floor("js") == value("js", "retrained_b")
    # Every figure has its floor, and the originals' beside it.
    free = {"fa_recovered", "relearn_steps", "ain", "rte"}
    for figure in set(whole.figures()) - free:
        assert np.isfinite(whole.floor(figure)), figure
        assert np.isfinite(value(figure, "before")), figure
        assert np.isfinite(value(figure, "mask")), figure
    assert whole.excess("probe_recall") == value("probe_recall") - value(
        "probe_recall", "retrained"
    )


def test_concepts_of_the_class(whole):
    assert [whole.concept_names[k] for k in whole.class_concepts] == ["bar", "dot"]
    assert [whole.concept_names[k] for k in whole.exclusive] == ["bar"]
    frame = whole.concept_frame().set_index(["concept", "model"])
    assert frame.loc[("bar", "before"), "attribution"] > 3
    assert frame.loc[("bar", "after"), "auc"] == frame.loc[("bar", "before"), "auc"] > 0.95
    assert whole.value("concept_auc", "retrained") < whole.value("concept_auc")
    assert whole.value("concept_attribution") < whole.value("concept_attribution", "before")
    # Class 1 shares a concept with the forgotten one: who never saw the latter says class 1.
    assert whole.destinations["retrained"][1] > 0.9
    # The mask leaves the original's second choices, whatever they are.
    test = parts()["test"]
    held = test.inputs[test.y == FORGOTTEN]
    with torch.no_grad():
        others = models()[0](held)[:, 1:].double().softmax(1).mean(0)
    np.testing.assert_allclose(whole.destinations["mask"][1:], others, atol=1e-4)


def test_the_same_bits_again(whole, masked, global_state_untouched):
    frame = {name: data()[3][:, k] for k, name in enumerate(CONCEPTS)}
    again = quick(models()[0], masked, retrained=models()[1], concepts=frame)
    for key in again.figures():
        assert again.value(key) == whole.value(key)


# -- models are borrowed
def test_models_come_back_as_they_were(masked):
    original, first = models()[:2]
    seen = []
    handle = original.register_forward_hook(lambda *_: seen.append(1))
    original[1].train()
    first[-1].bias.requires_grad_(False)
    original[0].weight.grad = torch.ones_like(original[0].weight)
    states = [fingerprint(m) for m in (original, first, masked.model)]
    try:
        audit(original, masked, **parts(), retrained=first, relearn=True, max_steps=2)
        with pytest.raises(InputError, match="class_names has 1 names"):
            quick(original, masked, class_names=["only"])
        assert seen
        assert original[1].training
        assert not original.training
        assert not first[-1].bias.requires_grad
        assert bool((original[0].weight.grad == 1).all())
        assert len(original._forward_hooks) == 1
        assert len(original[-1]._forward_pre_hooks) == 0
        assert states == [fingerprint(m) for m in (original, first, masked.model)]
    finally:
        handle.remove()
        original.eval()
        original[0].weight.grad = None
        first[-1].bias.requires_grad_(True)


def test_relearning_counts_only_while_the_model_stays_whole():
    forget, retain, test, _ = data()
    kept = test.select(test.y != FORGOTTEN)
    options = {"target": 0.9, "max_steps": 60, "starts": ("head reset",)}
    known = relearn(models()[0], forget, retain, kept, **{**options, "starts": ("as it is",)})
    assert known.reached == known.count == 0
    curve = relearn(models()[1], forget, retain, kept, **options)
    assert 0 < curve.reached <= 60
    assert curve.forget[-1] >= 0.9
    assert curve.test[-1] >= curve.test[0] - 0.05
    wild = relearn(models()[1], forget, retain, kept, how=Training(lr=50.0, clip=None), **options)
    assert wild.broken
    assert np.isnan(wild.count)
    short = relearn(models()[1], forget, retain, kept, **{**options, "max_steps": 2})
    assert (short.reached, short.count, short.broken) == (None, 2, False)
    with pytest.raises(InputError, match="Unknown start 'middle'"):
        relearn(models()[1], forget, retain, kept, target=0.9, starts=("middle",))


def test_random_twin_resets_every_depth_and_keeps_the_model():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleList([nn.Sequential(nn.Linear(6, 6))])
            self.free = nn.Parameter(torch.arange(12.0))

        def forward(self, x):
            return self.inner[0](x)

    model = Net()
    before = fingerprint(model)
    twin = random_twin(model, 0)
    assert fingerprint(model) == before
    assert not torch.equal(twin.inner[0][0].weight, model.inner[0][0].weight)
    assert not torch.equal(twin.free, model.free)
    assert torch.equal(twin.free.sort().values, model.free.detach())
    assert fingerprint(twin) == fingerprint(random_twin(model, 0))


# -- earlier requests, several classes, other outputs
def test_earlier_classes_are_told_apart():
    original, retrained = models()[:2]
    forget, retain, test, _ = data()
    after = LogitMask().unlearn(original, forget=forget, retain=retain).model
    found = audit(
        original,
        after,
        forget=forget,
        retain=retain.select(retain.y != 3),
        test=test,
        earlier=[3],
        relearn=False,
        bits=(),
        retrained=retrained,
    )
    assert found.earlier["after"] == {3: found.value("fa_earlier")}
    assert found.value("fa_earlier") > 0.9  # class 3 is still known
    assert found.sizes["test"] == int(torch.isin(test.y, torch.tensor([1, 2])).sum())
    with pytest.raises(InputError, match="no sample of class 9, named in earlier"):
        quick(original, after, earlier=[9])


def test_two_classes_at_once_and_outputs_in_an_object():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, pixel_values):
            return {"logits": self.inner(pixel_values), "more": 1}

    forget, retain, test, _ = data()
    X = torch.cat([forget.inputs, retain.inputs])
    y = torch.cat([forget.y, retain.y])
    gone = y <= 1
    both = {
        "forget": ({"pixel_values": X[gone]}, y[gone]),
        "retain": ({"pixel_values": X[~gone]}, y[~gone]),
    }
    model = Wrapped(models()[0])
    after = LogitMask().unlearn(model, **both)
    found = audit(model, after, **both, test=({"pixel_values": test.inputs}, test.y), relearn=False)
    assert found.forgotten == [0, 1]
    assert found.value("fa_test") == 0
    assert found.verdict.word == "suppressed"


def test_samples_are_cut_to_what_is_allowed(masked):
    forget, retain, test, shown = data()
    sets = check_sets(forget, retain, test, max_samples=60)
    assert [len(s) for s in (sets.forget, sets.retain, sets.test)] == [60, 60, 60]
    assert int(sets.mine.sum()) == 30
    reading = read_model(models()[0], {"test": sets.test})
    concepts = read_concepts((shown, CONCEPTS), sets, reading)
    np.testing.assert_array_equal(concepts.shown, shown[sets.rows.numpy()])
    found = quick(models()[0], masked, max_samples=60, concepts=(shown, CONCEPTS))
    assert found.verdict.word == "suppressed"


def test_a_bank_on_the_original_s_features(masked):
    from conceptlab import ConceptBank

    _, _, test, shown = data()
    F = read_model(models()[0], {"test": test}).features["test"]
    vectors = np.stack([F[shown[:, k]].mean(0) - F[~shown[:, k]].mean(0) for k in range(7)])
    bank = ConceptBank(vectors, CONCEPTS, space=None)
    found = quick(models()[0], masked, concepts=bank)
    assert "bar" in [found.concept_names[k] for k in found.exclusive]
    assert found.settings["concepts"] == "bank of 7 concepts on the original's features"
    cut = ConceptBank(vectors[:, :5], CONCEPTS, space=None)
    with pytest.raises(InputError, match="vectors have length 5"):
        quick(models()[0], masked, concepts=cut)


# -- report
def test_report_files_and_tables(whole, tmp_path):
    frame = whole.to_frame()
    assert set(frame.figure) <= set(FIGURES)
    assert {"before", "after", "mask", "retrained", "retrained_b", "excess", "floor"} <= set(frame)
    text = whole.to_json(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(text) == whole.to_dict()
    again = Report.load(whole.save(tmp_path / "bundle"))
    assert again.to_dict() == whole.to_dict()
    assert again.verdict == whole.verdict
    np.testing.assert_array_equal(again.attributions["after"], whole.attributions["after"])
    np.testing.assert_array_equal(again.pictures, whole.pictures)
    assert again.answers == whole.answers
    assert again.curves["retrained"].reached == whole.curves["retrained"].reached
    assert set(whole.provenance["models"]) == set(whole.columns)
    assert whole.certificate["method"] == "LogitMask"
    assert "suppressed" in repr(whole)


def test_pages_hold_everything_and_believe_no_name(whole, tmp_path):
    page = whole.to_html(tmp_path / "page.html").read_text()
    assert page.count("class='drawn'") == 5
    assert page.index("before and after") < page.index("Verdict<")
    assert "lower is better" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "Suppressed" in page
    assert "not forgotten</b>" in page
    for one in whole.verdict.evidence:
        assert one.text.replace("'", "&#x27;") in page
    hostile = quick(
        models()[0],
        models()[1],
        class_names=["<script>alert(1)</script>", "b", "c", "d"],
    )
    html = hostile._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<b>Report</b>" in whole._repr_html_()


@pytest.mark.parametrize("kind", ["figures", "concepts", "relearn", "destinations", "pictures"])
def test_plots(whole, kind):
    assert whole.plot(kind) is not None


def test_plots_that_were_not_measured(masked):
    found = quick(models()[0], masked)
    for kind, words in (("relearn", "relearn=True"), ("concepts", "concepts=")):
        with pytest.raises(InputError, match=words):
            found.plot(kind)
    with pytest.raises(InputError, match="Unknown plot 'figure'"):
        found.plot("figure")
    with pytest.raises(InputError, match="Unknown figure 'fa'"):
        found.value("fa")
    assert np.isnan(found.value("ain"))
    assert np.isnan(found.excess("ta"))
    assert found.plot("figures") is not None


# -- bad input
def test_sets_that_do_not_fit(masked):
    forget, retain, test, _ = data()
    original = models()[0]
    for sets, words in (
        ({"test": test.select(test.y != 0)}, "no sample of the forgotten class 0"),
        ({"test": test.select(test.y == 0)}, "holds the forgotten class only"),
        ({"test": forget}, "holds the forgotten class only"),
        (
            {"test": (torch.cat([forget.inputs, test.inputs]), torch.cat([forget.y, test.y]))},
            "`forget` and `test` overlap: 90 samples",
        ),
        (
            {
                "retain": (
                    torch.cat([forget.inputs, retain.inputs]),
                    torch.cat([forget.y + 1, retain.y]),
                )
            },
            "overlap",
        ),
        (
            {"forget": (torch.cat([forget.inputs, retain.inputs[:1]]), [0] * 90 + [1])},
            "overlap",
        ),
        (
            {"forget": (torch.cat([forget.inputs, forget.inputs[:1] + 9]), [0] * 90 + [1])},
            "`retain` holds samples of class 1 and none of class 0, both of `forget`",
        ),
        ({"forget": (forget.inputs[:0], [])}, "`forget` is empty"),
        (
            {
                "forget": (
                    torch.cat([forget.inputs, retain.inputs]),
                    torch.cat([forget.y, retain.y]),
                )
            },
            "overlap",
        ),
        ({"retain": (retain.inputs[:0], [])}, "`retain` is empty"),
        ({"retain": retain.select(retain.y == 1)}, "holds one class"),
        ({"test": (test.inputs[:, :, :6], test.y)}, "have shape"),
    ):
        with pytest.raises(InputError, match=words):
            quick(original, masked, **sets)


def test_a_few_twins_among_photos_are_a_note(masked):
    _, retain, test, _ = data()
    X, y = test.inputs.clone(), test.y.clone()
    X[1], y[1] = retain.inputs[0], retain.y[0]
    found = quick(models()[0], masked, test=(X, y))
    assert any("1 samples are in `retain` and in `test`" in note for note in found.notes)


def test_models_that_do_not_fit(masked):
    original = models()[0]
    five = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 5))
    with pytest.raises(InputError, match="`retrained` has 5 classes, the original 4"):
        quick(original, masked, retrained=five)
    with pytest.raises(InputError, match="`after` must be a torch.nn.Module or an UnlearnResult"):
        quick(original, "weights.pt")
    with pytest.raises(InputError, match="one model or two, got 3"):
        quick(original, masked, retrained=list(models()[1:]))

    class Words(nn.Module):
        def forward(self, x):
            return "a class"

    with pytest.raises(SplitError, match="must return logits"):
        quick(original, nn.Sequential(nn.Linear(SIDE, 4), Words()))
    with pytest.raises(SplitError, match="has no linear layer"):
        quick(original, nn.Flatten())
    nan = build().eval()
    nn.init.constant_(nan[-1].weight, float("nan"))
    with pytest.raises(InputError, match="logits of the model `after` contains NaN"):
        quick(original, nan)
    labels = torch.where(data()[2].y == 3, 7, data()[2].y)
    with pytest.raises(InputError, match="Labels go up to 7"):
        quick(original, masked, test=(data()[2].inputs, labels))


def test_references_that_saw_the_class_are_refused(masked):
    original, first = models()[:2]
    with pytest.raises(InputError, match="given as `retrained_b` gets .* it was trained on them"):
        quick(original, masked, retrained=[first, original])


def test_references_of_another_architecture_are_told():
    original, first, second = models()[:3]
    wide = nn.Sequential(nn.Flatten(), nn.Linear(np.prod(data()[0].inputs.shape[1:]), 4))
    with torch.no_grad():  # which never names the class, whatever it was drawn as
        wide[1].bias[int(data()[0].y[0])] = -1e3
    with pytest.warns(UnlearningWarning, match="`retrained_b` has other weights than the original"):
        found = quick(original, second, retrained=[first, wide])
    assert any("another architecture" in note for note in found.notes)


def test_the_rates_that_are_told_are_those_of_the_table():
    """The page of results is made from the same judgements."""
    from unlearning.audit.rates import RATES, in_words

    told = Path(__file__).parents[4] / "docs" / "results" / "audit-errors.md"
    rows = [line for line in told.read_text().splitlines() if line.startswith(("| supp", "| rem"))]
    for number in (2, 1, 0):
        holding, free = rows[2 * (2 - number) :][:2]
        cells = [[int(c) for c in row.strip("| ").split(" | ")[1:]] for row in (holding, free)]
        rates = RATES[number]
        assert (rates.holding, rates.called_removed) == (cells[0][0], cells[0][1])
        found = (cells[1][0], cells[1][2], cells[1][5])
        assert (rates.free, rates.called_suppressed, rates.called_undecided) == found
        assert f"on {rates.holding} and {rates.free} models" in in_words(number)
    every = [RATES[n] for n in (2, 1, 0)]
    said = " ".join((audit.__doc__ or "").split())
    for holding, free in {(r.holding, r.free) for r in every}:
        removed, suppressed, undecided = (
            "{}, {} and {}".format(*(getattr(r, f"called_{word}") for r in every))
            for word in ("removed", "suppressed", "undecided")
        )
        assert f"of {holding} that held the class {removed} were called removed" in said
        assert f"of {free} that never saw it, {suppressed} were called suppressed" in said
        assert f"and {undecided} undecided" in said


def test_options_that_do_not_fit(masked):
    original = models()[0]
    shown = data()[3]
    for options, words in (
        ({"bits": (3,)}, "bits may hold 8 and 4"),
        ({"alpha": 1.5}, "alpha must be in"),
        ({"max_samples": 3}, "max_samples must be at least 10"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"concepts": (shown[:5], CONCEPTS)}, "a row for each of the 240 test samples"),
        ({"concepts": (shown + 0.5, CONCEPTS)}, "must be booleans"),
        ({"concepts": 7}, "concepts must be a mapping"),
        ({"concepts": (shown, CONCEPTS), "exclusive": ["x"]}, "Unknown concept 'x'"),
    ):
        with pytest.raises(InputError, match=words):
            quick(original, masked, **options)


def test_a_class_the_original_never_knew():
    never = models()[1]
    after = LogitMask().unlearn(never, forget=data()[0], retain=data()[1])
    found = audit(never, after, **parts(), bits=(), relearn=True, recovery=False)
    assert found.verdict.word == "undecided"
    assert "hardly knew the class" in found.verdict.summary
    assert any("nothing was relearned" in note for note in found.notes)


def test_thresholds_are_parameters(masked):
    original, first = models()[:2]
    blind = Thresholds(kept=0.0, answers=0.0, probe=1.0)
    found = quick(original, masked, retrained=first, thresholds=blind).verdict
    assert found.word == "undecided"
    assert "passing them proves nothing" in found.summary


@pytest.mark.gpu
def test_models_on_a_gpu_and_samples_on_the_cpu():
    original, first = (m.cuda() for m in models()[:2])
    try:
        found = audit(original, first, **parts(), relearn=True, max_steps=5)
        assert found.value("fa_train", "before") > 0.9
    finally:
        original.cpu()
        first.cpu()


def test_numpy_and_loaders_are_samples_too(whole, masked):
    forget, retain, test, _ = data()
    plain = {
        "forget": (forget.inputs.numpy(), forget.y.numpy()),
        "retain": torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(retain.inputs, retain.y), batch_size=50
        ),
        "test": as_samples(test),
    }
    found = audit(models()[0], masked, **plain, relearn=False, bits=())
    assert found.value("ra") == whole.value("ra")
