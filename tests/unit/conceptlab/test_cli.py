import importlib.metadata
import json
import re
import shutil
import sys
from collections import Counter

import pytest
import torch
from PIL import Image

from conceptlab import cli
from conceptlab.datasets import load_embedded_classifier, load_scenes


def run(monkeypatch, *arguments):
    """Run the command line as a user does; gives the exit code."""
    monkeypatch.setattr(sys, "argv", ["conceptlab", *map(str, arguments)])
    with pytest.raises(SystemExit) as info:
        cli.main()
    return info.value.code or 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "with space ü"
    path.mkdir()
    for i, image in enumerate(load_scenes("test", 12, seed=0).images):
        pixels = (image.transpose(1, 2, 0) * 255).round().astype("uint8")
        Image.fromarray(pixels).save(path / f"{i:02d}.png")
    return path


QUICK = ("--concepts", 3, "--depth", 0, "--patch-size", 32, "--maps", "upsample")


def test_explain_without_images(monkeypatch, capsys, tmp_path):
    out = tmp_path / "report.html"
    code = run(monkeypatch, "explain", *QUICK, "--max-images", 16, "--out", out)
    shown = capsys.readouterr().out
    assert code == 0
    assert "16 images from the rendered world" in shown
    assert "Concepts of layer4" in shown
    assert str(out) in shown.replace("\n", "")
    assert "<!doctype html>" in out.read_text()


def test_explain_a_folder_as_json(monkeypatch, capsys, tmp_path, folder):
    out = tmp_path / "report.html"
    code = run(monkeypatch, "explain", folder, *QUICK, "--target", "belu", "--json", "--out", out)
    facts = json.loads(capsys.readouterr().out)
    assert code == 0
    assert facts["n_images"] == 12
    assert facts["targets"] == {"belu": 12}
    assert len(facts["concepts"]) == 3
    assert facts["report"] == str(out)
    assert facts["faithfulness"]


SIGNED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, act, scale):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 6, 5, 4), act), nn.Linear(6, 2)
        self.scale = scale

    def forward(self, x):
        y = self.head(self.body(x).mean((2, 3))) * self.scale
        return {"scores": y, "others": y + 1}

def gelu():
    return Net(nn.GELU(), 1.0)

def relu():
    return Net(nn.ReLU(), 1.0)

def dead():
    return Net(nn.ReLU(), 0.0)
"""


@pytest.fixture
def explained(monkeypatch, capsys, tmp_path, folder):
    code = tmp_path / "nets.py"
    code.write_text(SIGNED)

    def explain(function, *more, images=folder):
        model = ("--model", f"{code}:{function}", "--layer", "body", "--size", 32)
        options = (*QUICK, "--patch-size", 8, "--json", "--out", tmp_path / "report.html", *more)
        code_of = run(monkeypatch, "explain", images, *model, *options)
        shown = capsys.readouterr()
        return code_of, json.loads(shown.out) if code_of == 0 else None, shown.err

    return explain


def test_the_extractor_is_chosen_by_the_signs_of_the_layer(explained):
    for function, name in (("gelu", "SemiNMF"), ("relu", "NMFConcepts")):
        code, facts, told = explained(function, "--output", "scores")
        assert code == 0
        assert facts["settings"]["extractor"] == name
        assert ("below zero: semi-nmf" in told) == (name == "SemiNMF")
    code, _, told = explained("gelu", "--output", "scores", "--extractor", "nmf")
    assert code == 2
    assert "[CL-INPUT-NEGATIVE]" in told


def test_output_says_where_the_scores_are(explained):
    code, _, told = explained("relu")
    assert code == 2
    assert "[CL-SPLIT-OUTPUT]" in told
    assert explained("relu", "--output", "others")[0] == 0


def test_equal_outputs_are_told(explained):
    code, facts, _ = explained("dead", "--output", "scores")
    assert code == 0
    assert facts["warning"].startswith("The model gives the same outputs for all 12 images")
    _, facts, _ = explained("relu", "--output", "scores")
    assert "same outputs" not in facts["warning"]


def test_photos_for_the_toy_classifier_are_told(monkeypatch, capsys, tmp_path, folder):
    line = "The embedded classifier knows rendered scenes only; give yours with --model."
    for images, told in (((folder,), True), ((), False)):
        out = ("--max-images", 12, "--out", tmp_path / "report.html")
        assert run(monkeypatch, "explain", *images, *QUICK, *out) == 0
        assert (line in " ".join(capsys.readouterr().out.split())) == told


@pytest.mark.parametrize("packed", [False, True])
def test_accuracy_against_the_names_of_folders(monkeypatch, capsys, tmp_path, packed):
    model, scenes = load_embedded_classifier(), load_scenes("test", 12, seed=0)
    with torch.no_grad():
        answers = model(torch.from_numpy(scenes.images)).argmax(1).tolist()
    names = [model.class_names[i] for i in answers]
    wrong = next(name for name in model.class_names if name != names[0])
    names[0] = wrong  # one folder that is not the answer, and one that is no class
    names[1] = "unknown"
    place = tmp_path / "photos"
    for i, (name, image) in enumerate(zip(names, scenes.images, strict=True)):
        (place / name.upper()).mkdir(parents=True, exist_ok=True)
        pixels = (image.transpose(1, 2, 0) * 255).round().astype("uint8")
        Image.fromarray(pixels).save(place / name.upper() / f"{i:02d}.png")
    if packed:
        place = shutil.make_archive(str(place), "zip", place)
    out = ("--json", "--out", tmp_path / "report.html")
    assert run(monkeypatch, "explain", place, *QUICK, *out) == 0
    found = json.loads(capsys.readouterr().out)["accuracy"]
    assert found["n_images"] == 11
    assert found["accuracy"] == pytest.approx(10 / 11)
    assert found["low"] < 10 / 11 < found["high"]
    counts = Counter([names[0], *names[2:]])
    assert found["commonest"] == pytest.approx(max(counts.values()) / 11)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--model", "embeded"), "Did you mean 'embedded'"),
        (("--target", "belo"), "Did you mean 'belu'"),
        (("--target", "77"), "out of range: the model has 10 outputs"),
        (("--concepts", "many"), "positive number or 'auto'"),
        (("--extractor", "nfm"), "Did you mean 'nmf'"),
        (("--layer", "layer9"), "layer4"),
        (("/no/such/folder",), "does not exist"),
        (("--device", "cuda:7"), "device"),
        (("--maps", "implict"), "Did you mean 'implicit'"),
        (("--max-images", "0"), "--max-images must be at least 1"),
        (("--patch-size", "0"), "patch_size must be at least 1"),
        (("--depth", "-1"), "depth must be a whole number"),
    ],
)
def test_mistakes_end_with_one_message_and_code_2(monkeypatch, capsys, tmp_path, arguments, text):
    out = tmp_path / "report.html"
    code = run(monkeypatch, "explain", "--max-images", 4, "--out", out, *arguments)
    shown = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert text in shown
    assert "Traceback" not in shown
    assert not out.exists()


COMMANDS = (
    "explain",
    "zeroshot",
    "bottleneck",
    "removal",
    "audit x",
    "unlearn --class ilko",
    "unlearn-gan",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_written_is_told_before_the_work(command, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    options = [("--out", tmp_path / "file" / "report.html")]
    if command in ("bottleneck", "unlearn-gan"):
        options.append(("--save", tmp_path / "file" / "kept" / "model"))
    for option, place in options:
        assert run(monkeypatch, *command.split(), option, place) == 2
        shown = capsys.readouterr()
        assert "[CL-CHECKPOINT-TARGET]" in shown.err
        assert option in shown.err
        assert shown.out == ""
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_report_may_be_given_a_folder(monkeypatch, capsys, tmp_path, folder):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        code = run(
            monkeypatch, "explain", folder, *QUICK, "--target", "belu", "--out", tmp_path / name
        )
        assert code == 0
        assert (tmp_path / name / "explain.html").read_text("utf-8").startswith("<!doctype html>")
        assert re.sub(r"\s", "", f"{name}/explain.html") in re.sub(
            r"\s", "", capsys.readouterr().out
        )
    (tmp_path / "there" / "zeroshot.html").mkdir()
    assert run(monkeypatch, "zeroshot", "--out", tmp_path / "there") == 2
    assert "is a folder; name a file" in capsys.readouterr().err


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"conceptlab {importlib.metadata.version('conceptlab')}\n"


def test_doctor(monkeypatch, capsys):
    code = run(monkeypatch, "doctor", "--json")
    found = json.loads(capsys.readouterr().out)
    assert set(found["packages"]) == {"conceptlab", "bottlenecks", "attribution", "unlearning"}
    assert code == (0 if found["healthy"] else 1)
    assert not any(part["clash"] for part in found["packages"].values())
    assert found["libraries"]["torch"]["version"] == importlib.metadata.version("torch")
    assert {"PIL", "pandas"} <= set(found["libraries"])
    assert "patchmatch" in found["optional"]


def test_doctor_knows_every_distribution_that_is_needed():
    from conceptlab.doctor import _LIBRARIES

    needed = {
        re.match(r"[\w.-]+", line)[0]
        for line in importlib.metadata.requires("conceptlab")
        if "extra ==" not in line
    }
    assert needed == set(_LIBRARIES.values())


def test_doctor_names_clashes_and_what_is_missing(monkeypatch):
    import io

    from rich.console import Console

    from conceptlab import doctor

    monkeypatch.setattr(doctor, "_LIBRARIES", {"numpy": "numpy", "nosuch": "no-such-project"})
    monkeypatch.setattr(doctor, "_OPTIONAL", {"nor_this": ("nor-this-project", "nothing")})
    owners = {"unlearning": ["machine-unlearning", "conceptlab"], "conceptlab": ["conceptlab"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    findings = doctor.diagnose()
    assert not findings["healthy"]
    shown = io.StringIO()
    doctor.show(findings, Console(file=shown, width=200))
    text = shown.getvalue()
    assert "missing: pip install no-such-project" in text
    assert "missing: pip install nor-this-project (optional: nothing)" in text
    assert "The name unlearning is taken by machine-unlearning." in text
    assert "pip uninstall machine-unlearning" in text
    assert "The name attribution" not in text
    assert "Some things need mending" in text
