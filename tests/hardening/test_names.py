"""Names of files and of concepts: any script, spaces, quotes, marks, very long, and no text."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from loose_files import FILES
from PIL import Image
from reports import SAVED
from saved_objects import answers_of, load, plain
from word_encoder import WordEncoder
from writers import WRITERS, made

from conceptlab import ConceptBank
from conceptlab.assets import load_embedded_classifier
from conceptlab.datasets.folder import load_image_folder
from conceptlab.encoders import load_encoder
from conceptlab.errors import ConceptlabError, InputError
from conceptlab.models import ActivationStore
from conceptlab.plot import patch_grid, weight_map
from conceptlab.vocabulary import ClassConcepts, read_concepts, write_concepts
from conceptlab.zeroshot import BayesianZeroShot

pytestmark = pytest.mark.filterwarnings("ignore")

PATHS = {
    "other scripts": "каталог 日本語 📷 مجلد",
    "quotes and a shell": 'it\'s "here" $HOME `x`; rm & *',
    "an address": "#1 100%25 ?a=b&c=d",
    "a dash": "--out",
    "two lines": "one\ntwo",
    "long": "n" * 200,
    "no UTF-8": os.fsdecode(b"caf\xe9"),
}
NAMES = [
    "naïve café",
    "日本語の概念",
    "🙂 🙃",
    "مرحبا",
    "e\u0301 combined",
    "\u202eright to left",
    "very " * 2000 + "long",
    "tab\there",
    "two\nlines",
    "zero\0byte",
    "%s {0} {class}",
    "$x^2$ \\frac",
    "<b>&amp;",
    "=1+1",
    "'; DROP TABLE x; --",
]


# -------------------------------------------------------------------------- paths
@pytest.mark.parametrize("path", PATHS)
def test_written_and_read(path, tmp_path):
    """Everything small is written there; what is saved comes back."""
    folder = tmp_path / PATHS[path]
    for number, (name, write) in enumerate(WRITERS.items()):
        if name == "embeddings" and path == "no UTF-8":
            with pytest.raises(ConceptlabError, match="is no UTF-8"):
                write(folder)
        elif not name.startswith(("page", "saved")) or "GanReport" in name:
            write(folder / f"{PATHS[path][:40]} {number}")
    bank = made(ConceptBank)
    assert ConceptBank.load(bank.save(folder / PATHS[path])).names == bank.names
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    store = ActivationStore(folder / "rows", shard_size=12)
    store.append(rows)
    store.finish()
    np.testing.assert_array_equal(np.asarray(ActivationStore(folder / "rows")), rows)


@pytest.mark.parametrize("kind", SAVED, ids=lambda kind: kind.__name__)
def test_saved_objects(kind, tmp_path):
    folder = tmp_path / PATHS["other scripts"] / PATHS["quotes and a shell"]
    found = made(kind)
    found.save(folder)
    assert plain(answers_of(load(kind, folder))) == plain(answers_of(found))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", FILES)
def test_files_of_others(name, path, tmp_path):
    make, read = FILES[name]
    folder = tmp_path / PATHS[path]
    folder.mkdir()
    if path == "no UTF-8" and name == "remover.pt":
        pytest.skip("torch cannot write or read a file of such a name")
    read(make(folder / name))


@pytest.mark.parametrize("path", PATHS)
def test_folders_of_images(path, tmp_path):
    for label in (PATHS[path], "plain"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / label / f"{PATHS[path]}.png"[-200:])
    data = load_image_folder(tmp_path)
    assert len(data.class_names) == 2
    assert data.images.shape == (2, 3, 9, 9)
    shown = " ".join(data.class_names).encode()  # whole text, also where the names are none
    assert PATHS[path].encode("utf-8", "surrogateescape") in shown or path == "no UTF-8"
    if path == "no UTF-8":
        assert "caf\\xe9" in data.class_names


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_a_command_whose_terminal_knows_few_letters(locale, tmp_path):
    for label, grey in ((PATHS["other scripts"], 40), (PATHS["no UTF-8"], 120), ("<b>", 200)):
        (tmp_path / "in" / label).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (64, 64), (grey, i, 0)).save(tmp_path / "in" / label / f"{i}.png")
    out = tmp_path / PATHS["other scripts"] / "report.html"
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "conceptlab",
            "explain",
            str(tmp_path / "in"),
            "--out",
            str(out),
            "--concepts",
            "2",
            "--max-images",
            "9",
        ],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()[-1500:]
    assert done.returncode == 0, done.stderr.decode()[-1500:]
    assert out.read_text("utf-8").startswith("<!doctype html>")


# ----------------------------------------------------------------------- concepts
def test_banks(tmp_path):
    bank = ConceptBank.from_texts(WordEncoder(), NAMES, templates=None)
    again = ConceptBank.load(bank.save(tmp_path / "bank"))
    assert again.names == tuple(NAMES)
    np.testing.assert_array_equal(again.vectors, bank.vectors)
    bank._repr_html_().encode()
    assert len(repr(bank)) < 1000


def test_concept_files(tmp_path):
    texts = dict.fromkeys(NAMES, NAMES)
    path = write_concepts(ClassConcepts(texts), tmp_path / "x.json")
    assert read_concepts(path, duplicates="keep").texts == {
        name: [n.strip() for n in NAMES] for name in NAMES
    }
    half = {"half \ud800": ["of a \udcff character"]}
    assert read_concepts(write_concepts(half, path)).texts == half


def test_classification_through_them():
    concepts = ClassConcepts({name: [name, "a tail"] for name in NAMES}).embed(WordEncoder())
    model = BayesianZeroShot(concepts).fit()
    explanation = model.explain(np.random.default_rng(0).normal(size=(2, 64)))
    explanation._repr_html_().encode()
    assert set(model.predict(np.eye(64)[:3])) <= set(NAMES)


@pytest.mark.parametrize(
    "plot",
    [
        lambda names: weight_map(np.eye(len(names)), names, names),
        lambda names: patch_grid([[np.zeros((3, 4, 4))]] * len(names), names, notes=names),
    ],
    ids=["weights", "patches"],
)
def test_plots(plot):
    drawn = plot([*NAMES, "half \ud800"])
    figure = drawn if hasattr(drawn, "savefig") else drawn.figure
    figure.savefig(io.BytesIO(), dpi=20)


def test_half_characters_are_no_text():
    with pytest.raises(InputError, match=r"texts\[1\] is no whole text: 'half \\ud800'"):
        WordEncoder().encode_text(["a", "half \ud800"])
    with pytest.raises(InputError, match="no whole text"):
        ConceptBank.from_texts(WordEncoder(), ["half \udce9"])
    assert load_embedded_classifier().class_names


@pytest.mark.parametrize("text", [name for name in NAMES if len(name) < 100])
def test_the_embedded_encoder_reads_them(text):
    vector = ENCODER().encode_text([text])
    assert np.isfinite(vector).all()


def ENCODER(kept=[]):  # noqa: B006 - loaded once
    if not kept:
        kept.append(load_encoder("embedded", device="cpu"))
    return kept[0]
