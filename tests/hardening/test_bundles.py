"""Every saved object, damaged in every way: an error with a code, or the same object."""

from pathlib import Path

import pytest
from damage import MARK, copied, in_place_of, of_bytes, of_data, of_manifest, of_tensors, verdict
from reports import SAVED
from saved_objects import answers_of, load, plain

from conceptlab.assets import (
    CLASSIFIER,
    ENCODER,
    GAN,
    JUDGE,
    WITHOUT,
    embedded_open_clip,
    load_embedded_classifier,
    load_embedded_gan,
    load_embedded_judge,
)

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = {kind.__name__: kind for kind in SAVED}
EMBEDDED = {
    "classifier": (CLASSIFIER, load_embedded_classifier),
    "classifier_without_ilko": (WITHOUT["ilko"], load_embedded_classifier),
    "encoder": (ENCODER, embedded_open_clip),
    "generator": (GAN, load_embedded_gan),
    "judge": (JUDGE, load_embedded_judge),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folders of sound objects, saved once."""
    folder, made = tmp_path_factory.mktemp("sound"), {}

    def save(name):
        if name not in made:
            found = SAVED[KINDS[name]]()
            made[name] = Path(found.save(folder / name)), plain(answers_of(found))
        return made[name]

    return save


def findings(source, read, accept, loose, tmp_path, *, files=None):
    """Damage copies of a folder in all ways; give those that were taken wrongly."""
    outside, wrong = tmp_path / "outside", {}
    outside.mkdir()
    bad = tmp_path / "bad"

    def judge(name, taken):
        found = verdict(read, bad, taken)
        if found:
            wrong[name] = found

    for path in files or sorted(p for p in source.rglob("*") if p.is_file()):
        inside = path.relative_to(source)
        for name, content in of_bytes(path.read_bytes(), outside).items():
            copied(source, bad)
            (bad / inside).write_bytes(content)
            judge(f"{inside}: {name}", accept)
        for name in in_place_of(path, outside):
            copied(source, bad)
            in_place_of(bad / inside, outside)[name]()
            judge(f"{inside}: {name}", accept)
    for ways, taken in (
        (lambda: of_manifest(bad, outside), accept),
        (lambda: of_data(bad), loose),
        (lambda: of_tensors(bad), loose),
    ):
        copied(source, bad)
        for name in ways():
            copied(source, bad)
            ways()[name]()
            judge(name, taken)
    assert not (outside / MARK).exists(), "a pickle was read"
    return wrong


@pytest.mark.parametrize("name", KINDS)
def test_saved_objects(name, sound, tmp_path):
    kind = KINDS[name]
    source, expected = sound(name)
    found = findings(
        source,
        lambda folder: load(kind, folder),
        lambda answer: plain(answers_of(answer)) == expected,
        lambda answer: isinstance(answer, kind),
        tmp_path,
    )
    assert found == {}


@pytest.mark.parametrize(
    "name",
    ["judge", *(pytest.param(n, marks=pytest.mark.slow) for n in EMBEDDED if n != "judge")],
)
def test_embedded_models(name, tmp_path):
    source, read = EMBEDDED[name]
    small = [source / "manifest.json", source / "data.json"]
    found = findings(source, read, lambda answer: True, lambda answer: True, tmp_path, files=small)
    assert found == {}
