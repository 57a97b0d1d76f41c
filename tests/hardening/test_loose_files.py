"""Files that others wrote, damaged in every way: an error with a code, or a sound answer."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import MARK, copied, in_place_of, of_bytes, verdict
from PIL import Image
from safetensors.torch import save
from torch import nn

from conceptlab import ConceptBank
from conceptlab.commands.zeroshot import names_of
from conceptlab.datasets.folder import load_image_folder
from conceptlab.datasets.images import as_image_batch
from conceptlab.encoders import CallableEncoder, EmbeddingCache
from conceptlab.encoders.cache import EmbeddingCacheWarning
from conceptlab.models import ActivationStore
from conceptlab.models.load import load_state_dict
from conceptlab.vocabulary import read_concepts, synthesize
from conceptlab.vocabulary.checkpoint import read_state
from unlearning.commands.material import with_weights
from unlearning.removal import CocoRemovals, MaskFolder, RemovalCache
from unlearning.removal.removers import TorchScriptRemover

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))
from word_encoder import WordEncoder

pytestmark = pytest.mark.filterwarnings("ignore")


# ------------------------------------------------------------ one of each sound file
def picture(path):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def state(path):
    tensors = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.ones(3)}
    if path.suffix == ".safetensors":
        path.write_bytes(save(tensors))
    else:
        torch.save({"state_dict": tensors}, path)
    return path


def concepts(path):
    path.write_text(json.dumps({"frog": ["green", "no tail"], "newt": ["a tail"]}))
    return path


def scripted(path):
    class Grey(nn.Module):
        def forward(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
            return images * (1 - masks) + 0.5 * masks

    torch.jit.save(torch.jit.script(Grey()), str(path))
    return path


def annotations(path):
    picture(path.parent / "a.png")
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 16}],
                "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 1,
                        "category_id": 1,
                        "area": 25,
                        "iscrowd": 0,
                        "bbox": [2, 2, 5, 5],
                        "segmentation": [[2, 2, 7, 2, 7, 7, 2, 7]],
                    }
                ],
            }
        )
    )
    return path


def photos(path):
    inner = picture(path.parent / "inner.png")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "cup/inner.png")
    inner.unlink()
    return path


def rounds(path):
    synthesize(
        ["frog", "newt"],
        lambda prompts: ["green skin\nlong tail\nwet"] * len(prompts),
        WordEncoder(),
        n_concepts=2,
        max_rounds=2,
        checkpoint=path,
        random_state=0,
        progress=False,
    )
    return path


def mask(path):
    images = path.parents[2] / "images"
    for folder in (images, path.parent):
        folder.mkdir(parents=True)
    picture(images / "a.png")
    Image.fromarray(np.eye(16, 20, dtype=np.uint8) * 255).save(path)
    return path


def masks(path):
    data = MaskFolder(path.parents[2], size=16)
    return data.masks("cup", data.with_class("cup"))


def names(path):
    path.write_text("cat\ndog\n")
    return path


def certificate(path):
    state(path.parent / "model.safetensors")
    path.write_text(json.dumps({"method": "retrain"}))
    return path


def coco(path):
    data = CocoRemovals(path, path.parent, size=16)
    return data.with_class("cup"), data.masks("cup", [1]), data.images([1])


FILES = {
    "picture.png": (picture, as_image_batch),
    "picture.jpg": (picture, as_image_batch),
    "weights.safetensors": (state, load_state_dict),
    "weights.pth": (state, load_state_dict),
    "concepts.json": (concepts, read_concepts),
    "bank.json": (concepts, lambda path: ConceptBank.from_json(path, WordEncoder())),
    "names.txt": (names, lambda path: names_of(str(path))),
    "certificate.json": (certificate, lambda path: with_weights(nn.Linear(4, 3), path.parent)),
    "masks/cup/a.png": (mask, masks),
    "remover.pt": (scripted, TorchScriptRemover),
    "instances.json": (annotations, coco),
    "photos.zip": (photos, lambda path: load_image_folder(path, size=8).images),
    "rounds.json": (rounds, lambda path: read_state(path, {}, None)),
}


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
