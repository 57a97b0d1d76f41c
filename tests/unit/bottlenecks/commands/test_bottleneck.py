"""The bottleneck command, on scenes and on a folder."""

import json
import re

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from bottlenecks import SparseCBM
from bottlenecks.commands.bottleneck import bottleneck
from conceptlab.datasets import load_scenes
from conceptlab.errors import InputError


def call(*arguments):
    app = typer.Typer()
    app.command()(bottleneck)
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of pictures, eight of each."""
    place = tmp_path_factory.mktemp("pictures")
    scenes = load_scenes("test", 160, seed=3, n_objects=1)
    for label, name in ((0, "red_circle"), (8, "yellow_heart")):
        (place / name).mkdir()
        for i in np.flatnonzero(scenes.y == label)[:8]:
            Image.fromarray(np.moveaxis(scenes.pixels[i], 0, -1)).save(place / name / f"{i}.png")
    return place


def test_scenes_by_default(tmp_path):
    out = tmp_path / "page.html"
    answer = call(
        "--max-images", 300, "--shown", 1, "--out", out, "--save", tmp_path / "m", "--json"
    )
    assert answer.exit_code == 0
    facts = json.loads(answer.stdout)
    accuracy = facts["accuracy"]
    assert accuracy["bottleneck"] > accuracy["all concepts, dense"] - 0.05
    assert accuracy["bottleneck"] > accuracy["random concepts"] + 0.1
    assert facts["nec"] == 3
    assert {"red", "circle"} <= set(facts["weights"]["arvo"]) <= {"red", "circle", "striped"}
    assert facts["interventions"]["gain"][3] > facts["interventions"]["gain"][0]
    assert facts["report"] == str(out.resolve())
    page = out.read_text()
    assert page.count("class='drawn'") == 3
    assert "What if concepts were set right?" in page
    assert SparseCBM.load(tmp_path / "m").active_concepts_ == facts["active"]


def test_folder_with_concepts_of_a_file(folder, tmp_path):
    concepts = tmp_path / "concepts.json"
    concepts.write_text(json.dumps(["red", "yellow", "circle", "heart"]))
    out = tmp_path / "page.html"
    answer = call(folder, "--concepts", concepts, "--nec", 1, "--shown", 1, "--out", out)
    assert answer.exit_code == 0
    assert "1 of 4 concepts a class" in answer.stdout
    assert "Accuracy, bottleneck: 100.0%" in answer.stdout
    assert "knows rendered scenes only" in " ".join(answer.stdout.split())
    assert "What if" not in out.read_text()
    assert "knows rendered scenes only" in out.read_text()


def test_folder_makes_its_own_concepts(folder, tmp_path):
    answer = call(folder, "--nec", 1, "--shown", 1, "--out", tmp_path / "page.html", "--json")
    facts = json.loads(answer.stdout)
    assert facts["concepts"] > 4
    assert set(facts["weights"]) <= {"red_circle", "yellow_heart"}


def test_many_concepts_are_cut_short(folder, tmp_path):
    answer = call(folder, "--nec", 30, "--shown", 1, "--out", tmp_path / "page.html")
    told = " ".join(answer.stdout.replace("│", " ").split())
    assert re.search(r"and \d+ more", told), told
    assert told.count(" +") <= 2 * 8  # two classes


def test_bad_input(folder, tmp_path):
    with pytest.raises(InputError, match="does not exist; give a folder or zip"):
        call(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no subfolders, so no labels"):
        call(folder / "red_circle")
    with pytest.raises(InputError, match="--test must be a share between 0 and 1"):
        call(folder, "--test", 2)
    with pytest.raises(InputError, match="two classes with 4 images each"):
        call(folder, "--max-images", 4)
    with pytest.raises(InputError, match="Unknown mode 'anchord'"):
        call(folder, "--mode", "anchord")
