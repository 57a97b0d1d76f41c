"""One of each sound file that others write, and what reads it."""

import json
import zipfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn
from word_encoder import WordEncoder

from conceptlab import ConceptBank
from conceptlab.commands.zeroshot import names_of
from conceptlab.datasets.folder import load_image_folder
from conceptlab.datasets.images import as_image_batch
from conceptlab.models.load import load_state_dict
from conceptlab.vocabulary import read_concepts, synthesize
from conceptlab.vocabulary.checkpoint import read_state
from unlearning.commands.material import with_weights
from unlearning.removal import CocoRemovals, MaskFolder
from unlearning.removal.removers import TorchScriptRemover


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
