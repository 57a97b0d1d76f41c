"""``conceptlab explain`` as a user runs it, on small photos and a small model of one's own."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from attribution.commands.explain import explain
from conceptlab import Explanation
from conceptlab.errors import InputError

MODEL = """
import torch
from torch import nn


def build(channels=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(6, 2),
        ).eval()
    model.class_names = ["warm", "cold"]
    return model


def grey():
    return build(1)


def four():
    return build(4)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    (folder / "mine.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    for name in ("warm", "cold"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    return folder


def call(world, *arguments, model="build"):
    app = typer.Typer()
    app.command()(explain)
    given = [world / "photos", "--model", f"{world / 'mine.py'}:{model}", "--concepts", 2,
             "--depth", 0, *arguments]  # fmt: skip
    return CliRunner().invoke(app, [str(a) for a in given], catch_exceptions=False)


def test_a_class_folder_and_all_that_can_be_written(world, tmp_path):
    out = tmp_path / "seen.html"
    answer = call(world, "--only-class", "cold", "--format", "svg,csv,data", "--out", out)
    assert answer.exit_code == 0, answer.output
    assert "6 images from" in answer.output
    assert "Accuracy against the names of folders" in answer.output
    assert "raises" in answer.output
    page = out.read_text("utf-8")
    assert "What mine.py:build sees" in page
    assert "folder cold" in page
    assert "folder warm" not in page
    lines = (tmp_path / "seen.csv").read_text().splitlines()
    assert lines[0] == "image,folder,answer,target,concept 0,concept 1"
    assert [line.split(",")[0] for line in lines[1:]] == [f"cold/{i}.png" for i in range(6)]
    drawn = {path.stem for path in (tmp_path / "seen-figures").glob("*.svg")}
    assert {"importance", "patches", "maps", "faithfulness"} <= drawn
    again = Explanation.load(tmp_path / "seen-data")
    assert again.labels == ["cold"] * 6
    assert again.to_html("What mine.py:build sees") == page


def test_images_of_each_folder_are_told(world, tmp_path):
    arguments = ("--max-images", 8, "--maps", "none", "--json", "--out", tmp_path / "seen.html")
    facts = json.loads(call(world, *arguments).stdout)
    assert "8 images" in facts["settings"]["images"]
    assert "evenly chosen of 12" in facts["settings"]["images"]
    assert "cold 4, warm 4" in facts["settings"]["images"]
    assert facts["accuracy"]["n_images"] == 8


def test_a_grey_model_gets_grey_images(world, tmp_path):
    answer = call(world, "--maps", "none", "--out", tmp_path / "seen.html", model="grey")
    assert answer.exit_code == 0, answer.output
    assert "(as grey)" in answer.output


@pytest.mark.parametrize(
    ("arguments", "model", "text"),
    [
        (("--only-class", "wram"), "build", r"Did you mean 'warm'.*\[CL-INPUT-LABELS\]$"),
        (("--format", "svgz"), "build", r"Did you mean 'svg'.*\[CL-INPUT-OPTION\]$"),
        (("--names", "red"), "build", r"at least two different words.*\[CL-INPUT-FEW\]$"),
        (("--name-with", "clap:x"), "build", r"Unknown encoder 'clap:x'"),
        ((), "four", r"images of 4 channels, and pictures have 3.*\[CL-INPUT-LAYOUT\]$"),
    ],
)
def test_what_does_not_fit_is_told(world, tmp_path, arguments, model, text):
    with pytest.raises(InputError, match=text):
        call(world, *arguments, "--maps", "none", "--out", tmp_path / "a.html", model=model)
