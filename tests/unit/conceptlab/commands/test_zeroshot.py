"""The zero-shot command, its report, the scenes' concepts, and the run with real encoders."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from conceptlab.commands.zeroshot import zeroshot
from conceptlab.datasets import load_scenes
from conceptlab.datasets.world import SPECIES
from conceptlab.encoders import load_encoder
from conceptlab.errors import InputError
from conceptlab.vocabulary import ClassConcepts, write_concepts
from conceptlab.zeroshot import BayesianZeroShot, benchmark
from conceptlab.zeroshot.scenes import scene_concepts

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("embedded", device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder a class, named as the classes but for an underscore."""
    folder = tmp_path_factory.mktemp("pictures")
    scenes = load_scenes("test", 40, seed=3, n_objects=1)
    for label, name in ((0, "red_circle"), (8, "yellow_heart")):
        (folder / name).mkdir()
        for i in np.flatnonzero(scenes.y == label)[:2]:
            pixels = np.moveaxis(scenes.pixels[i], 0, -1)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


CONCEPTS = {
    "red circle": ["a red circle", "a red object", "a circle"],
    "yellow heart": ["a yellow heart", "a yellow object", "a heart"],
}


def call(function, *arguments):
    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_scenes_by_default(tmp_path):
    out = tmp_path / "page.html"
    answer = call(zeroshot, "--max-images", 24, "--shown", 1, "--out", out, "--json")
    assert answer.exit_code == 0
    facts = json.loads(answer.stdout)
    assert facts["accuracy"] > 0.8
    assert len(facts["images"]) == 24
    first = facts["images"][0]
    assert {"path", "label", "probability", "winner", "runner-up", "log_odds"} <= set(first)
    page = out.read_text()
    assert "Zero-shot by concepts" in page
    assert page.count("class='drawn'") == 1
    assert "http" not in page.replace("http-equiv", "")


def test_a_folder_with_a_concept_file(pictures, tmp_path):
    concepts = write_concepts(CONCEPTS, tmp_path / "concepts.json")
    answer = call(
        zeroshot,
        pictures,
        "--concepts",
        concepts,
        "--prompt",
        "concept",
        "--shown",
        1,
        "--out",
        tmp_path / "page.html",
    )
    assert answer.exit_code == 0
    assert "Accuracy: 100.0%." in answer.stdout
    assert "knows rendered scenes only" in " ".join(answer.stdout.split())
    page = (tmp_path / "page.html").read_text()
    assert "Accuracy: 100.0%." in page
    assert "red_circle/" in page
    assert str(pictures) not in page  # paths are told from the folder on


def test_accuracy_says_how_many_images_have_a_label_among_the_classes(pictures, tmp_path):
    concepts = {"red circle": CONCEPTS["red circle"], "blue star": ["a blue star"]}
    path = write_concepts(concepts, tmp_path / "concepts.json")
    answer = call(
        zeroshot,
        pictures,
        "--concepts",
        path,
        "--prompt",
        "concept",
        "--shown",
        0,
        "--out",
        tmp_path / "page.html",
        "--json",
    )
    facts = json.loads(answer.stdout)
    assert facts["images_with_label"] == 2
    assert facts["accuracy"] == 1.0
    assert "(2 of 4 images; the others' labels are no classes)" in facts["notes"][0]


def test_classes_choose_from_the_file(pictures, tmp_path):
    concepts = write_concepts({**CONCEPTS, "blue star": ["a blue star"]}, tmp_path / "c.json")
    answer = call(
        zeroshot,
        pictures,
        "--concepts",
        concepts,
        "--classes",
        "yellow heart,blue star",
        "--shown",
        0,
        "--out",
        tmp_path / "page.html",
        "--json",
    )
    winners = {entry["winner"]["class"] for entry in json.loads(answer.stdout)["images"]}
    assert winners <= {"yellow heart", "blue star"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["--classes", "arvo"], "at least two different names"),
        (["--classes", "arvo,bellu"], "Did you mean 'belu'"),
        (["--rule", "trimm"], "Did you mean 'trim'"),
    ],
)
def test_bad_input_leaves_no_report(arguments, message, tmp_path):
    out = tmp_path / "page.html"
    with pytest.raises(InputError, match=message):
        call(zeroshot, *arguments, "--max-images", 4, "--out", out)
    assert not out.exists()


# -- concepts of scenes ---------------------------------------------------------------
@pytest.mark.parametrize("kind", ["absent", "other", "rival"])
def test_planted_sentences_are_false_and_the_others_true(kind):
    made = scene_concepts(SPECIES, 30, outliers=kind, rate=0.5, random_state=0)
    words = {s.name: {s.colour, s.texture, s.shape} for s in SPECIES}
    known = set().union(*words.values())
    all_values = {
        "green",
        "orange",
        "cyan",
        "purple",
        "pink",
        "square",
        "triangle",
        "ring",
        "crescent",
        *known,
    }
    for k, name in enumerate(made.classes):
        for text, false in zip(made[name], made.meta["planted"][name], strict=True):
            named = {w for w in text.split() if w in all_values}
            if not false:
                assert named <= words[name]
            elif kind == "absent":
                assert not named & words[name]
            elif kind == "rival":
                assert named <= words[made.classes[(k + 1) % 10]]
            else:
                assert any(named <= words[other] for other in made.classes if other != name)
    share = np.mean([f for flags in made.meta["planted"].values() for f in flags])
    assert 0.4 < share < 0.6


def test_the_same_seed_draws_the_same_sentences():
    first, second = (scene_concepts(random_state=3) for _ in range(2))
    assert first == second
    assert first != scene_concepts(random_state=4)
    assert all(len(set(first[c])) == 20 for c in first.classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outliers": "abscent", "rate": 0.1}, "Did you mean 'absent'"),
        ({"n_concepts": 43}, "n_concepts must be in 1 to 42"),
        ({"rate": 2}, r"rate in \[0, 1\]"),
        ({"species": SPECIES[:1]}, "at least two"),
    ],
)
def test_bad_scene_concepts(options, message):
    with pytest.raises(InputError, match=message):
        scene_concepts(**options)


def test_soft_trim_beats_the_mean_where_low_outliers_are_planted(encoder):
    scenes = load_scenes("test", 300, seed=0, n_objects=1)
    X = encoder.encode_image(scenes.images)
    gains = []
    for seed in range(3):
        made = scene_concepts(outliers="absent", rate=0.45, random_state=seed).embed(encoder)
        accuracy = {
            rule: BayesianZeroShot(made, rule=rule).fit().predict(X)
            == np.array(scenes.class_names)[scenes.y]
            for rule in ("trim", "mean")
        }
        gains.append(accuracy["trim"].mean() - accuracy["mean"].mean())
    assert np.mean(gains) > 0


# -- real encoders --------------------------------------------------------------------
def test_the_run_with_real_encoders_on_a_real_architecture(pictures, tmp_path):
    concepts = write_concepts(CONCEPTS, tmp_path / "concepts.json")
    out = tmp_path / "figures.json"
    answer = call(
        benchmark.main,
        pictures,
        "--concepts",
        concepts,
        "--encoder",
        "open_clip:ViT-S-32-alt",
        "--untrained",
        "--templates",
        "photos",
        "--max-images",
        3,
        "--device",
        "cpu",
        "--out",
        out,
    )
    assert answer.exit_code == 0
    facts = json.loads(out.read_text())
    assert facts["n"] == 3
    methods = [row["method"] for row in facts["rows"]]
    assert {"class name", "random words, mean", "concepts, trim"} <= set(methods)
    assert all(0 <= row["accuracy"] <= 1 and row["log_loss"] > 0 for row in facts["rows"])


@pytest.mark.slow
def test_the_run_on_vit_b_16(pictures, tmp_path):
    concepts = write_concepts(CONCEPTS, tmp_path / "concepts.json")
    answer = call(
        benchmark.main,
        pictures,
        "--concepts",
        concepts,
        "--encoder",
        "open_clip:ViT-B-16/openai",
        "--untrained",
        "--templates",
        "photo",
        "--max-images",
        2,
        "--device",
        "cpu",
    )
    assert answer.exit_code == 0


def test_comparison_counts_labels_in_the_order_of_the_concepts(encoder):
    concepts = ClassConcepts({"yellow heart": ["a yellow heart"], "a red circle": ["a red circle"]})
    scenes = load_scenes("test", 60, seed=0, n_objects=1)
    kept = np.isin(scenes.y, (0, 8))
    X, y = encoder.encode_image(scenes[kept].images), np.where(scenes.y[kept] == 8, 0, 1)
    rows = benchmark.compare(
        X, y, list(concepts.classes), concepts, encoder, prompt="concept", templates="photo"
    )
    figures = {row["method"]: row["accuracy"] for row in rows}
    assert figures["class name"] > 0.9
    assert figures["concepts, trim"] > 0.9


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no 'DTDD'; try DTD"):
        benchmark._data("torchvision:DTDD", tmp_path, None)


def test_the_table_of_scenes_is_made(tmp_path):
    script = runpy.run_path(str(ROOT / "docs/results/zeroshot_scenes.py"))
    out = tmp_path / "table.md"
    small = ["--seeds", "1", "--images", "40", "--species", "4", "--concepts", "5"]
    script["main"]([*small, "--out", str(out)])
    text = out.read_text()
    assert text.count("| CGBC (`trim`) |") == 6  # three figures, two questions
    assert text.count("| 45% rival |") == 6
    assert text.count("| diverse, exchanges | ") == 3
    for line in text.splitlines():
        if line.startswith("| CGBC (`trim`), filtered by 5 images"):
            assert len([cell for cell in line.split("|") if cell.strip()]) == 8
