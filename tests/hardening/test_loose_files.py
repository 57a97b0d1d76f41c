"""Files that others wrote, damaged in every way: an error with a code, or a sound answer."""

import numpy as np
import pytest
import torch
from damage import MARK, copied, in_place_of, of_bytes, verdict
from loose_files import FILES

from conceptlab.encoders import CallableEncoder, EmbeddingCache
from conceptlab.encoders.cache import EmbeddingCacheWarning
from conceptlab.models import ActivationStore
from unlearning.removal import RemovalCache

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", FILES)
def test_files(name, tmp_path):
    make, read = FILES[name]
    outside, bad = tmp_path / "outside", tmp_path / "bad"
    outside.mkdir()
    (tmp_path / "sound").mkdir()
    source = make(tmp_path / "sound" / name)
    read(source)  # sound, it is read
    wrong = {}

    def judge(what):
        found = verdict(lambda folder: read(folder / name), bad, lambda answer: True)
        if found:
            wrong[what] = found

    for what, content in of_bytes(source.read_bytes(), outside).items():
        copied(tmp_path / "sound", bad)
        (bad / name).write_bytes(content)
        judge(what)
    for what in in_place_of(source, outside):
        copied(tmp_path / "sound", bad)
        in_place_of(bad / name, outside)[what]()
        judge(what)
    assert wrong == {}
    assert not (outside / MARK).exists(), "a pickle was read"


# --------------------------------------------------------------- stores and caches
def store(path):
    made = ActivationStore(path, shard_size=256)
    for number in range(4):
        made.append(np.full((8, 4), float(number), np.float32))
    return made.finish()


def test_activation_stores(tmp_path):
    source, bad, outside = tmp_path / "sound", tmp_path / "bad", tmp_path / "outside"
    outside.mkdir()
    expected, wrong = np.asarray(store(source)), {}
    files = sorted(p.name for p in source.iterdir())
    assert len(files) >= 3

    def judge(what):
        found = verdict(
            lambda folder: np.asarray(ActivationStore(folder)),
            bad,
            lambda rows: rows.shape == expected.shape and (rows == expected).all(),
        )
        if found:
            wrong[what] = found

    for name in (files[0], files[-1]):
        for what, content in of_bytes((source / name).read_bytes(), outside).items():
            copied(source, bad)
            (bad / name).write_bytes(content)
            judge(f"{name}: {what}")
        for what in in_place_of(source / name, outside):
            copied(source, bad)
            in_place_of(bad / name, outside)[what]()
            judge(f"{name}: {what}")
    assert wrong == {}


def test_embedding_caches_compute_again(tmp_path):
    """A cache never fails for a damaged file: it says so and computes."""
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    encoder = CallableEncoder(lambda x: x.flatten(1)[:, :5], dim=5, name="e", fingerprint="e")
    source, bad, outside = tmp_path / "sound", tmp_path / "bad", tmp_path / "outside"
    outside.mkdir()
    expected = EmbeddingCache(source).encode_image(encoder, images)
    inside = next(source.rglob("*.safetensors")).relative_to(source)
    for what, content in of_bytes((source / inside).read_bytes(), outside).items():
        copied(source, bad)
        (bad / inside).write_bytes(content)
        with (
            pytest.warns(EmbeddingCacheWarning, match="damaged")
            if (content != (source / inside).read_bytes())
            else pytest.warns()
        ):
            found = EmbeddingCache(bad).encode_image(encoder, images)
        assert torch.equal(found, expected), what
    assert not (outside / MARK).exists()


def test_removed_images_are_made_again(tmp_path):
    cache = RemovalCache(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (3, 6, 6), dtype=np.uint8)
    cache.put("blur", "ab", image)
    path = next(tmp_path.rglob("*.png"))
    for what, content in of_bytes(path.read_bytes(), tmp_path).items():
        path.write_bytes(content)
        found = cache.get("blur", "ab")
        assert found is None or found.shape == image.shape, what
