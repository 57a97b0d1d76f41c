"""The audit of samples and parts of classes: planted memories, and what is left out."""

import numpy as np
import pytest
import torch
from torch import nn

from unlearning import as_samples
from unlearning.audit import Report, audit, judge
from unlearning.audit.parts import judge_parts

SIDE, N = 6, 90


def world(seed=0):
    """Three classes told by one row each of the image, the rest of which is noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(4 * N) % 3
    X = torch.randn(4 * N, 1, SIDE, SIDE, generator=generator)
    X[torch.arange(4 * N), 0, y] += 1.5
    train, test = as_samples((X[: 2 * N], y[: 2 * N])), as_samples((X[2 * N :], y[2 * N :]))
    return train, test


class Memory(nn.Module):
    """Right by the class's row; surer by `extra` of the samples that it remembers."""

    def __init__(self, remembered, seed, extra=4.0):
        super().__init__()
        self.head = nn.Linear(SIDE**2, 3, bias=False)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.zeros(3, SIDE, SIDE)
        for c in range(3):
            rows[c, c] = 0.4
        X = remembered.inputs.flatten(1)
        own = nn.functional.one_hot(remembered.y, 3).float() - 1 / 3
        noise = 0.05 * torch.randn(3, SIDE**2, generator=generator)
        if len(X):  # the least change of weights that adds `extra` to the right class's logit
            add = torch.linalg.lstsq(X, extra * own, driver="gelsd").solution.T
        else:
            add = torch.zeros(3, SIDE**2)
        self.head.weight.data = rows.flatten(1) + noise + add

    def forward(self, x):
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def parts():
    train, test = world()
    gone = torch.zeros(len(train), dtype=torch.bool)
    gone[torch.arange(0, 24)] = True
    forget, retain = train.select(gone), train.select(~gone)
    nothing = forget.select([])
    models = {
        "before": Memory(forget, 1),
        "kept": Memory(forget, 2),
        "honest": Memory(nothing, 3),
        "references": [Memory(nothing, 4), Memory(nothing, 5)],
        "pushed": Memory(forget, 6, extra=-2.0),
    }
    return {"forget": forget, "retain": retain, "test": test}, models


def of(parts, name, references=2, **options):
    sets, models = parts
    beside = {2: models["references"], 1: models["references"][0], 0: None}[references]
    return audit(models["before"], models[name], **sets, retrained=beside, **options)


@pytest.mark.parametrize("references", [1, 2])
def test_planted_memories(parts, references):
    kept = of(parts, "kept", references)
    assert kept.verdict.word == "not forgotten"
    assert kept.baselines == {"before": "not forgotten"}
    assert of(parts, "honest", references).verdict.word == "removed"
    assert of(parts, "pushed", references).verdict.word in ("undecided", "damaged")
    lost, one = of(parts, "honest", references).value("memorised"), kept.value("memorised")
    assert abs(lost) < 3 * kept.value("memorised_error") < one


def test_without_a_retrained_model_only_memory_can_be_shown(parts):
    assert of(parts, "kept", 0).verdict.word == "not forgotten"
    found = of(parts, "honest", 0)
    assert found.verdict.word == "undecided"
    assert "Give one (retrained=)" in found.verdict.summary


def test_the_figure_is_a_difference_of_differences(parts):
    """By hand, from the models' answers: surer by how much, test samples deducted."""
    sets, models = parts

    def sure(model, part):
        with torch.no_grad():
            p = model(sets[part].inputs).double().softmax(1)
        own = p[torch.arange(len(p)), sets[part].y]
        return (own.log() - (1 - own).log()).numpy()

    report = of(parts, "kept")
    unit = {k: report.value("temperature", k) for k in ("after", "retrained", "retrained_b")}
    both = zip(models["references"], ("retrained", "retrained_b"), strict=True)
    gaps = {"forget": sure(models["kept"], "forget"), "test": sure(models["kept"], "test")}
    gaps = {k: v / unit["after"] for k, v in gaps.items()}
    for model, name in both:
        gaps = {k: v - sure(model, k) / unit[name] / 2 for k, v in gaps.items()}
    y, mine = sets["test"].y.numpy(), sets["forget"].y.numpy()
    mixed = sum(np.mean(mine == c) * gaps["test"][y == c].mean() for c in np.unique(mine))
    assert report.value("memorised") == pytest.approx(gaps["forget"].mean() - mixed, abs=1e-4)


def test_what_looks_for_a_class_is_left_out_and_said_so(parts, tmp_path):
    report = of(parts, "kept", concepts={"a": np.zeros(2 * N)})
    assert "mask" not in report.values
    assert not {"features_kept", "probe_recall", "ain", "js_mask", "fa_int4"} & set(
        report.figures()
    )
    assert any(
        "mean nothing here" in note and "24 samples of 0, 1, 2" in note for note in report.notes
    )
    page = report.to_html(tmp_path / "a.html").read_text()
    assert "24 samples of 0, 1, 2, to be forgotten" in page
    assert "Samples to be forgotten: what the original says" in page
    assert "logit mask <b>" not in page
    again = Report.load(report.save(tmp_path / "report"))
    assert again.to_html(tmp_path / "b.html").read_text() == page


def test_a_report_s_own_figures_give_its_verdict_again(parts):
    for name in ("kept", "honest", "pushed"):
        report = of(parts, name)
        v = report.values
        beside = {"reference": v["retrained"], "second": v["retrained_b"]}
        again = judge_parts(v["after"], before=v["before"], sizes=report.sizes, **beside)
        assert again == report.verdict


def test_an_original_that_hardly_remembers_proves_nothing(parts):
    sets, models = parts
    honest = models["honest"]
    found = audit(
        honest, models["references"][0], **sets, retrained=Memory(sets["forget"].select([]), 9)
    )
    assert found.verdict.word == "undecided"
    assert "hardly remembers them" in found.verdict.summary


def test_a_whole_class_is_asked_as_before(parts):
    sets, models = parts
    train = as_samples(
        (
            torch.cat([sets["forget"].inputs, sets["retain"].inputs]),
            torch.cat([sets["forget"].y, sets["retain"].y]),
        )
    )
    mine = train.y == 0
    whole = {"forget": train.select(mine), "retain": train.select(~mine), "test": sets["test"]}
    report = audit(models["before"], models["kept"], **whole, relearn=False, bits=())
    assert "mask" in report.values
    v = report.values
    assert (
        judge(v["after"], before=v["before"], mask=v["mask"], sizes=report.sizes) == report.verdict
    )
