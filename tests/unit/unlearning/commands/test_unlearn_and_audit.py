"""``conceptlab unlearn`` and ``conceptlab audit``: on scenes, on a folder, on wrong input."""

import json

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from conceptlab.datasets import load_embedded_classifier
from conceptlab.errors import CheckpointError, InputError
from conceptlab.models.load import load_state_dict
from unlearning.certificate import verify_certificate
from unlearning.commands.audit import audit
from unlearning.commands.material import Selected, load_material, load_references
from unlearning.commands.unlearn import unlearn
from unlearning.registry import METHODS

NETWORK = """
import torch
from torch import nn
from conceptlab.models.load import LoadedModel

class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(8 * (torch.eye(3) - 1 / 3))
            self.head.bias.zero_()

    def forward(self, x):
        mean = x.mean(dim=(2, 3))
        return {"scores": self.head(mean), "mean": mean}

def build():
    return LoadedModel(TwoOutputs().eval(), None, ["red", "green", "blue"], 16, output="scores")

def build_bare():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)).eval()
"""


def call(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A classifier of colours in a file, and thirty pictures of each of its classes."""
    place = tmp_path_factory.mktemp("colours")
    (place / "net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for c, name in enumerate(("red", "green", "blue")):
        (place / "pictures" / name).mkdir(parents=True)
        for i in range(30):
            picture = rng.integers(0, 90, (16, 16, 3))
            picture[:, :, c] += rng.integers(90, 160)
            Image.fromarray(picture.astype(np.uint8)).save(place / "pictures" / name / f"{i}.png")
    return place


@pytest.fixture(scope="module")
def written(world):
    """What the command writes for a mask of "green"."""
    out = world / "out"
    answer = call(
        unlearn,
        world / "pictures",
        "--class",
        "green",
        "--model",
        f"{world / 'net.py'}:build",
        "--method",
        "logit-mask",
        "--n-images",
        60,
        "--n-test",
        40,
        "--out",
        out,
        "--json",
    )
    assert answer.exit_code == 0, answer.output
    return out, json.loads(answer.stdout)


def test_unlearn_a_folder_with_a_model_of_one_s_own(world, written):
    from conceptlab.models.load import load_model

    out, facts = written
    assert facts["verdict"]["word"] == "suppressed"
    assert facts["figures"]["before"]["fa_test"] > 0.9
    assert facts["figures"]["after"]["fa_test"] == 0
    assert facts["class_names"] == ["red", "green", "blue"]
    assert facts["forgotten"] == [1]
    assert sum(facts["sizes"][k] for k in ("forget", "retain", "test", "forget_test")) == 90
    assert {p.name for p in out.iterdir()} == {
        "model.safetensors",
        "certificate.json",
        "report.html",
        "report.json",
    }
    loaded = load_model(f"{world / 'net.py'}:build").model
    loaded.load_state_dict(load_state_dict(out / "model.safetensors"))
    assert loaded.head.weight[1].abs().sum() == 0
    certificate = json.loads((out / "certificate.json").read_text())
    assert certificate["method"] == "LogitMask"
    assert verify_certificate(certificate, after=Selected(loaded, "scores")) == {"after": True}
    page = (out / "report.html").read_text()
    assert "Is green forgotten?" in page
    assert page.count("class='drawn'") == 3


def test_weights_are_kept_when_the_audit_fails(world, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise InputError("The audit broke.", code="CL-INPUT-LABELS")

    monkeypatch.setattr("unlearning.audit.audit", fails)
    options = {"--model": f"{world / 'net.py'}:build", "--class": "green", "--out": tmp_path}
    options |= {"--method": "logit-mask", "--n-images": 60, "--n-test": 40}
    words = [word for pair in options.items() for word in pair]
    with pytest.raises(InputError, match="The audit broke"):
        call(unlearn, world / "pictures", *words)
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "certificate.json"}


def test_audit_of_what_unlearn_wrote(world, written):
    out, _ = written
    answer = call(
        audit,
        out,
        "--images",
        world / "pictures",
        "--class",
        1,
        "--model",
        f"{world / 'net.py'}:build",
        "--retrained",
        out / "model.safetensors",
        "--n-images",
        60,
        "--n-test",
        40,
        "--steps",
        5,
        "--out",
        world / "audit.html",
        "--json",
    )
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert facts["certificate"]["method"] == "LogitMask"
    assert facts["figures"]["after"]["js"] == 0
    assert facts["figures"]["after"]["ain"] == 1
    assert (world / "audit.html").read_text().count("class='drawn'") == 4


def test_scenes_by_default(tmp_path):
    answer = call(
        unlearn,
        "--method",
        "logit-mask",
        "--n-images",
        60,
        "--n-test",
        60,
        "--out",
        tmp_path,
    )
    assert answer.exit_code == 0
    assert "Forget ilko:" in answer.stdout
    assert "Audit, beside an embedded model that never saw ilko" in " ".join(answer.stdout.split())
    assert "suppressed" in answer.stdout
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["figures"]["retrained"]["fa_test"] == 0
    assert {row["concept"] for row in facts["concepts"] if row["exclusive"]} == {"heart", "checked"}


def test_a_reference_is_taken_where_it_fits_and_none_is_given(tmp_path):
    sizes = {"n_images": 60, "n_test": 60}
    found = load_material(None, "embedded", "ilko", **sizes)
    twin = load_embedded_classifier(without="ilko")
    (one,), _ = load_references(found, "embedded", None)
    assert torch.equal(one.fc.weight, twin.fc.weight)
    weights = tmp_path / "given.safetensors"
    save_file(found.model.state_dict(), weights)
    (given,), words = load_references(found, "embedded", [weights])
    assert torch.equal(given.fc.weight, found.model.fc.weight)
    assert "given" in words
    assert load_references(found, "torchvision:resnet18", None)[0] == []
    other = load_material(None, "embedded", "jura", **sizes)
    assert load_references(other, "embedded", None)[0] == []


def test_every_method_has_a_name():
    import unlearning

    classes = {
        name
        for name in unlearning.__all__
        if isinstance(getattr(unlearning, name), type)
        and issubclass(getattr(unlearning, name), unlearning.Unlearner)
    } - {"Unlearner"}
    assert set(METHODS.values()) == classes


def test_settings_reach_the_method(world, tmp_path):
    answer = call(
        unlearn,
        world / "pictures",
        "--class",
        "blue",
        "--model",
        f"{world / 'net.py'}:build",
        "--method",
        "random-label",
        "--epochs",
        2,
        "--lr",
        0.5,
        "--n-images",
        60,
        "--n-test",
        40,
        "--out",
        tmp_path,
        "--json",
    )
    certificate = json.loads(answer.stdout)["certificate"]
    assert certificate["parameters"]["epochs"] == 2
    assert certificate["parameters"]["lr"] == 0.5
    assert certificate["steps"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "logitmask"], "Unknown method 'logitmask'. Did you mean 'logit-mask'"),
        (["--method", "logit-mask", "--lr", 0.1], "--lr is no setting of logit-mask"),
        (["--class", "nobody"], "Unknown class 'nobody'"),
        (["--n-images", 3], "--n-images and --n-test must be at least 40"),
        (["nowhere"], "nowhere does not exist"),
        (["--retrained", "a", "--retrained", "b", "--retrained", "c"], "once or twice, got 3"),
    ],
)
def test_wrong_requests(arguments, words):
    with pytest.raises(InputError, match=words):
        call(unlearn, *arguments)


def test_folders_and_weights_that_do_not_fit(world, written, tmp_path):
    out, _ = written
    pictures, build = world / "pictures", f"{world / 'net.py'}:build"
    with pytest.raises(InputError, match="has no subfolders"):
        call(unlearn, pictures / "red", "--model", build, "--class", "red")
    (tmp_path / "cyan").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "cyan" / "1.png")
    with pytest.raises(InputError, match="Folder 'cyan' is no class of the model"):
        call(unlearn, tmp_path, "--model", build, "--class", "red")
    with pytest.raises(CheckpointError, match="do not fit Sequential"):
        call(
            audit,
            out,
            "--images",
            pictures,
            "--class",
            "1",
            "--model",
            f"{world / 'net.py'}:build_bare",
            "--size",
            16,
        )
    with pytest.raises(CheckpointError, match="does not exist"):
        call(
            audit,
            tmp_path / "none.safetensors",
            "--images",
            pictures,
            "--class",
            "1",
            "--model",
            build,
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        call(
            unlearn, pictures, "--model", build, "--class", "red", "--out", tmp_path / "file" / "x"
        )
