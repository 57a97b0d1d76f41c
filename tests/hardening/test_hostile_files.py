"""Files made with intent: to run code, to leave their folder, to fill memory, to crash C code."""

import json
import pickle
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from damage import MARK, Bomb, bomb
from PIL import Image
from tiny_gpt import build

from conceptlab.assets import ENCODER
from conceptlab.datasets.folder import load_image_folder
from conceptlab.datasets.images import as_image_batch
from conceptlab.encoders import load_encoder
from conceptlab.errors import ConceptlabError, InputError
from conceptlab.models.load import load_model, load_state_dict, load_torchscript
from conceptlab.vocabulary import load_generator, read_concepts
from unlearning.removal import CocoRemovals
from unlearning.removal.removers import TorchScriptRemover

pytestmark = pytest.mark.filterwarnings("ignore")


# ------------------------------------------------------------------ that run code
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", ".joblib", ".bin", ".safetensors"])
def test_no_pickle_is_ever_run(suffix, tmp_path):
    file = tmp_path / f"weights{suffix}"
    for content in ({"state_dict": {"weight": Bomb(tmp_path)}}, Bomb(tmp_path)):
        with open(file, "wb") as stream:
            pickle.dump(content, stream)
        for read in (load_state_dict, read_concepts, TorchScriptRemover, load_encoder):
            with pytest.raises(ConceptlabError):
                read(str(file))
        with pytest.raises(ConceptlabError):
            load_model(f"torchvision:resnet18@{file}")
        torch.save(content, file)
        with pytest.raises(ConceptlabError):
            load_state_dict(file)
    assert not (tmp_path / MARK).exists()


def code_in(folder, name):
    """Put a Python file there, and give the entry that makes transformers import it."""
    (folder / "evil.py").write_text(
        f"import os\nos.mkdir({str(folder / MARK)!r})\nclass Evil:\n    pass\n"
    )
    return {"auto_map": {name: "evil.Evil"}}


def ours(folder):
    """Copy the embedded open_clip model; its tokenizer is to come from transformers."""
    shutil.copytree(ENCODER, folder)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "any",
        "tokenizer_kwargs": {"trust_remote_code": True},
    }
    path.write_text(json.dumps(config))
    return code_in(folder, "AutoTokenizer")


def test_code_of_a_tokenizer(tmp_path):
    folder = tmp_path / "clip"
    entry = ours(folder)
    entry["auto_map"]["AutoTokenizer"] = ["evil.Evil", None]
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", **entry}))
    with pytest.raises(ConceptlabError, match="code of its own.*CL-CHECKPOINT-UNSAFE"):
        load_encoder(f"open_clip:{folder}", device="cpu")
    assert not (folder / MARK).exists()


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: load_encoder(f"hf:{folder}", device="cpu"),
        lambda folder: load_generator(f"transformers:{folder}", device="cpu"),
    ],
    ids=["encoder", "generator"],
)
def test_code_of_a_model(read, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    entry = code_in(folder, "AutoConfig")
    entry["auto_map"] |= {"AutoModel": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", **entry}))
    with pytest.raises(ConceptlabError, match="code of its own.*CL-CHECKPOINT-UNSAFE"):
        read(folder)
    assert not (folder / MARK).exists()


def test_options_that_would_allow_code(tmp_path):
    shutil.copytree(ENCODER, tmp_path / "clip")
    with pytest.raises(InputError, match="weights_only=False is not allowed"):
        load_encoder(f"open_clip:{tmp_path / 'clip'}", device="cpu", weights_only=False)
    with pytest.raises(InputError, match="trust_remote_code is not allowed"):
        load_encoder(f"hf:{tmp_path}", trust_remote_code=True)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_pickled_weights_of_an_encoder(name, tmp_path):
    folder = tmp_path / "clip"
    shutil.copytree(ENCODER, folder)
    (folder / "open_clip_model.safetensors").unlink()
    (folder / name).write_bytes(bomb(tmp_path))
    with pytest.raises(ConceptlabError):
        load_encoder(f"open_clip:{folder}", device="cpu")
    torch.save(Bomb(tmp_path), folder / name)
    with pytest.raises(ConceptlabError):
        load_encoder(f"open_clip:{folder}", device="cpu")
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_folders_of_models_with_pipes_and_devices(kind, tmp_path):
    folder = tmp_path / "model"
    if kind == "open_clip":
        shutil.copytree(ENCODER, folder)
        read, config = load_encoder, folder / "open_clip_config.json"
    else:
        build(folder)
        read, config = load_generator, folder / "config.json"
    config.unlink()
    config.symlink_to("/dev/zero")
    with pytest.raises(ConceptlabError):
        read(f"{kind}:{folder}", device="cpu")


def test_a_picture_that_is_a_program(tmp_path):
    """Pillow would give EPS to Ghostscript."""
    path = tmp_path / "a.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(InputError, match="not a picture that can be read"):
        as_image_batch(path)


# --------------------------------------------------------- that leave their folder
def picture(path):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("member", ["../up.png", "/root.png", "a/../../up.png", "..\\up.png"])
def test_archives_that_point_outside(member, tmp_path):
    inner = picture(tmp_path / "inner.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr(member, inner)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConceptlabError, match="outside|no images"):
        load_image_folder(tmp_path / "photos.zip")
    assert sorted(tmp_path.rglob("*")) == before


SOUND = {
    "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 16}],
    "categories": [{"id": 1, "name": "cup"}],
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


def removals(folder, table, **entries):
    """Write annotations in which one entry differs, and use them."""
    pytest.importorskip("pycocotools")
    folder.mkdir(exist_ok=True)
    picture(folder / "a.png")
    content = json.loads(json.dumps(SOUND))
    content[table][0].update(entries)
    (folder / "instances.json").write_text(json.dumps(content))
    data = CocoRemovals(folder / "instances.json", folder, size=16)
    return data.images([1]), data.masks("cup", data.with_class("cup"))


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "..\\secret.png", "/etc/x", "", "C:/secret.png"]
)
def test_annotations_that_point_outside(name, tmp_path):
    picture(tmp_path / "secret.png")
    removals(tmp_path / "photos", "images")
    with pytest.raises(InputError, match="outside its folder"):
        removals(tmp_path / "photos", "images", file_name=name)
    with pytest.raises(InputError, match="outside its folder"):
        removals(tmp_path / "photos", "images", file_name=str(tmp_path / "secret.png"))


# ----------------------------------------------------- that fill memory, or crash C
def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def test_a_picture_that_would_fill_the_memory(tmp_path):
    """A few bytes that promise 60 000 x 60 000 pixels."""
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(InputError, match="too large"):
        as_image_batch(path)


@pytest.mark.parametrize("read", [load_state_dict, load_torchscript])
def test_weights_that_unpack_to_more_than_they_have(read, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(3)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data/9", bytes(2**28))
    assert path.stat().st_size < 2**20
    with pytest.raises(ConceptlabError, match="unpacks to"):
        read(path)


@pytest.mark.parametrize(
    "shape",
    [
        [[0, 0, 1e9, 0, 1e9, 1e9]],
        [[0, 0, 1e308, 0, 5, 5]],
        [[0, 0, -1e9, 3, 5, 5]],
        [[1, 2, 3]],
        [[]],
        [],
        [["a"] * 6],
        [[None] * 6],
        {"size": [60_000, 60_000], "counts": "0"},
        {"size": [16, 20], "counts": [0, 10**12]},
        {"size": [16, 20], "counts": [-5, 325]},
        {"size": [16, 20], "counts": "\u007f" * 500},
        {"size": [16, 20], "counts": "PPPPPPPPPPPPPPPPP"},
        {"size": [16, 20]},
        {"counts": "0"},
        "0",
        None,
        3,
    ],
    ids=str,
)
def test_masks_that_would_crash_the_library(shape, tmp_path):
    with pytest.raises(InputError, match=r"(?s)Annotation 1 of image 'a.png' has no mask.*FILE"):
        removals(tmp_path, "annotations", segmentation=shape)


@pytest.mark.parametrize(
    ("table", "entries"),
    [
        ("images", {"width": 10**9}),
        ("images", {"height": 0}),
        ("images", {"height": "16"}),
        ("images", {"id": [1]}),
        ("images", {"id": 2}),
        ("images", {"file_name": None}),
        ("categories", {"name": 3}),
        ("categories", {"id": True}),
        ("annotations", {"image_id": 7}),
        ("annotations", {"category_id": "1"}),
    ],
    ids=str,
)
def test_annotations_that_are_not_in_the_format(table, entries, tmp_path):
    with pytest.raises(InputError, match="CL-INPUT-FILE"):
        removals(tmp_path, table, **entries)
