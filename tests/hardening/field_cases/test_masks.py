"""Masks and annotations as tools write them: read right, or refused with the values."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from conceptlab.errors import InputError, RemoverError
from unlearning.removal import CocoRemovals, MaskFolder, RemovalCache, RemoverSetup
from unlearning.removal.masks import as_masks, mask_of_picture
from unlearning.removal.removers import PipelineRemover, Remover

SQUARE = np.zeros((32, 32), bool)
SQUARE[8:24, 4:20] = True
ORIENTATION = 0x0112


def palette(colour, *, black_first=True):
    picture = Image.fromarray((black_first == SQUARE).astype(np.uint8), "P")
    colours = [0, 0, 0, *colour] if black_first else [*colour, 0, 0, 0]
    picture.putpalette(colours)
    return picture


def cut_out(colour):
    """Paint the object in a colour, and leave the rest transparent."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[SQUARE] = (*colour, 255)
    return Image.fromarray(pixels, "RGBA")


def masks():
    small = SQUARE.astype(np.uint8)
    full = Image.new("L", (32, 32), 255)
    red = np.zeros((32, 32, 3), np.uint8)
    red[SQUARE, 0] = 60
    return {
        "one bit": Image.fromarray(SQUARE),
        "0/255 L": Image.fromarray(small * 255),
        "0/1 L": Image.fromarray(small),
        "0/1 I;16": Image.fromarray(small.astype(np.uint16)),
        "0/65535 I;16": Image.fromarray(small.astype(np.uint16) * 65535),
        "0/1 F": Image.fromarray(small.astype(np.float32)),
        "dark red palette": palette((128, 0, 0)),
        "palette the other way round": palette((255, 255, 255), black_first=False),
        "dark red": Image.fromarray(red),
        "white on nothing": cut_out((255, 255, 255)),
        "full alpha": Image.merge("LA", [Image.fromarray(small * 9), full]),
    }


# wkentaro/labelme#132, nicolov/segmentation_keras#36, NimaNzrii/comfyui-photoshop#144
@pytest.mark.parametrize("kind", masks())
def test_black_and_one_other_value_are_a_mask(tmp_path, kind):
    picture = masks()[kind]
    assert np.array_equal(mask_of_picture(picture, kind), SQUARE)
    suffix = "tiff" if picture.mode == "F" else "png"
    data = folder(tmp_path, {f"0.{suffix}": picture})
    assert data.with_class("dog").tolist() == [0]
    assert np.array_equal(data.masks("dog", [0])[0, 0], SQUARE)


def half_seen():
    alpha = Image.fromarray(np.eye(4, dtype=np.uint8))
    return Image.merge("LA", [Image.new("L", (4, 4), 9), alpha])


def blurred():
    return palette((9, 9, 9)).convert("RGB").rotate(9, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) % 3), "0, 1, 2"),
        (Image.fromarray((SQUARE * 255 - (np.eye(32) > 0) * 9.0).astype(np.float32)), "-9"),
        (
            palette((9, 9, 9)).resize((16, 16)).convert("RGB").rotate(9, Image.Resampling.BICUBIC),
            "#",
        ),
        (cut_out((0, 0, 0)), "nobody can tell"),
        (
            Image.merge(
                "LA", [Image.new("L", (4, 4), 9), Image.fromarray(np.eye(4, dtype=np.uint8))]
            ),
            "alpha",
        ),
    ],
)
def test_other_values_are_named(picture, words):
    with pytest.raises(InputError, match=words) as caught:
        mask_of_picture(picture, "a.png")
    assert caught.value.code == "CL-INPUT-RANGE"


def test_a_palette_that_hides_the_object_is_told():
    picture = Image.fromarray(np.eye(8, dtype=np.uint8), mode="P")
    picture.putpalette([0, 0, 0] * 2)
    with pytest.raises(InputError, match="a palette in which all of them are black"):
        mask_of_picture(picture, "mask")


def test_arrays_of_masks_name_their_values():
    with pytest.raises(InputError, match=r"0, 3, 7"):
        as_masks(np.array([[0, 3], [7, 0]]))
    assert as_masks(np.array([[0, 3], [3, 0]])).sum() == 2


def folder(root, given, *, images=("0.png", "1.png"), exif=None):
    (root / "images").mkdir()
    (root / "masks/dog").mkdir(parents=True)
    for name in images:
        Image.new("RGB", (32, 32)).save(root / "images" / name, **({"exif": exif} if exif else {}))
    for name, picture in given.items():
        picture.save(root / "masks/dog" / name)
    return MaskFolder(root, size=32)


# AUTOMATIC1111/stable-diffusion-webui#7295, advimman/lama#314: a.jpg beside a.png
@pytest.mark.parametrize("where", ["images", "masks"])
def test_two_pictures_of_one_name_are_refused(tmp_path, where):
    white = Image.fromarray(SQUARE)
    pictures = {"0.png": white} | ({"0.tiff": white} if where == "masks" else {})
    images = ("0.png", "0.jpg") if where == "images" else ("0.png",)
    with pytest.raises(InputError, match=r"0\.(jpg|png) and 0\.(png|tiff)") as caught:
        folder(tmp_path, pictures, images=images)
    assert caught.value.code == "CL-INPUT-NAMES"


# facebookresearch/detectron2#262, tensorflow/tensorflow#49834: photo turned, mask not
def test_masks_belong_to_the_upright_photo(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    lying, standing = tmp_path / "lying", tmp_path / "standing"
    for root, size in ((lying, (32, 20)), (standing, (20, 32))):
        (root / "images").mkdir(parents=True)
        (root / "masks/dog").mkdir(parents=True)
        Image.new("RGB", (32, 20)).save(root / "images/0.jpg", exif=exif)
        mask = Image.new("L", size)
        mask.paste(255, (8, 8, 12, 12))
        mask.save(root / "masks/dog/0.png")
    assert MaskFolder(standing, size=16).with_class("dog").tolist() == [0]
    with pytest.raises(InputError, match="upright") as caught:
        MaskFolder(lying, size=16).with_class("dog")
    assert caught.value.code == "CL-INPUT-SHAPE"


def annotated(root, *, change=None, **options):
    """Two pictures, the first with a cat, as a file of annotations; `change` edits it."""
    box = [[0, 0, 16, 0, 16, 16, 0, 16]]
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 20, "width": 32} for i in (1, 2, 3)
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": box}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
    }
    if change is not None:
        change(content)
    (root / "cats.json").write_text(json.dumps(content))
    for i in (1, 2, 3):
        Image.new("RGB", (32, 20)).save(root / f"{i}.png")
    return CocoRemovals(root / "cats.json", root, size=16, **options)


# cvat-ai/cvat#2155, cocodataset/cocoapi#95, pedropro/TACO#46: the last of an id was kept
@pytest.mark.parametrize("table", ["images", "annotations", "categories"])
def test_an_id_twice_is_refused(tmp_path, table):
    def twice(content):
        content[table].append({**content[table][0], "name": "cow"})

    with pytest.raises(InputError, match=f"two {table} of the id") as caught:
        annotated(tmp_path, change=twice)
    assert caught.value.code == "CL-INPUT-FILE"


# own probe: the second one looked free of the class that the first one shows
def test_a_file_twice_and_sizes_that_are_none_are_refused(tmp_path):
    def twice(content):
        content["images"][1]["file_name"] = "1.png"

    with pytest.raises(InputError, match="two images of the file '1.png'") as caught:
        annotated(tmp_path, change=twice)
    assert caught.value.code == "CL-INPUT-FILE"
    data = annotated(tmp_path)
    assert data.masks("cat", []).shape == (0, 1, 16, 16)
    for size in (None, "16", 0, 2.5):
        for build in (
            lambda size: CocoRemovals(tmp_path / "cats.json", tmp_path, size=size),
            lambda size: MaskFolder(tmp_path, size=size),
        ):
            with pytest.raises(InputError, match="size"):
                build(size)


# tensorpack/tensorpack#1041 ("image_id": "1541715161404"): ids that are texts
def test_ids_may_be_texts_but_not_both(tmp_path):
    def texts(content):
        for table, field in (("images", "id"), ("annotations", "image_id"), ("annotations", "id")):
            for row in content[table]:
                row[field] = f"n{row[field]}"

    data = annotated(tmp_path, change=texts)
    plain = annotated(tmp_path)
    assert [data.label(i) for i in data.with_class("cat")] == ["1.png"]
    assert [data.label(i) for i in data.without_class("cat")] == ["2.png", "3.png"]
    assert np.array_equal(
        data.masks("cat", data.with_class("cat")), plain.masks("cat", plain.with_class("cat"))
    )

    def mixed(content):
        content["annotations"][0]["image_id"] = "1"

    with pytest.raises(InputError, match="1 is not '1'"):
        annotated(tmp_path, change=mixed)


# tensorflow/tensorflow#49834: sizes that are not the file's put masks elsewhere
def test_a_size_that_is_not_the_file_s_is_refused(tmp_path):
    def halved(content):
        for row in content["images"]:
            row["height"], row["width"] = 10, 16

    with pytest.raises(InputError, match="32 × 20.*16 × 10") as caught:
        annotated(tmp_path, change=halved).images([1])
    assert caught.value.code == "CL-INPUT-SHAPE"


# jsbroks/coco-annotator#526, tensorpack/tensorpack#1041: points, lines, boxes alone
@pytest.mark.parametrize(
    "shape", [None, [], [[5, 5]], [[0, 47, 1024, 706]], "drop", [[0, 0, 9, 0, "x", 9]]]
)
def test_annotations_without_a_mask_are_counted_on_request(tmp_path, shape):
    def spoilt(content):
        bad = {"id": 2, "image_id": 2, "category_id": 7, "bbox": [0, 0, 9, 9]}
        content["annotations"].append(bad if shape == "drop" else {**bad, "segmentation": shape})

    with pytest.raises(InputError, match="skip_invalid=True"):
        annotated(tmp_path, change=spoilt).with_class("cat")
    with pytest.warns(UserWarning, match=r"cat 1\)"):
        data = annotated(tmp_path, change=spoilt, skip_invalid=True)
    assert data.left_out == {"cat": 1}
    assert data.with_class("cat").tolist() == [1]
    assert data.without_class("cat").tolist() == [3], "the box says that it holds a cat"
    assert data.without_class("dog").tolist() == [1, 2, 3]


def hole(side=24):
    masks = torch.zeros(1, 1, side, side, dtype=torch.bool)
    masks[..., 8:16, 8:16] = True
    return masks


class Answer:
    def __init__(self, picture, flagged):
        self.images, self.nsfw_content_detected = [picture], flagged


# huggingface/diffusers#845, nousr/koi#8, OutofAi/OutofFocus#5: black pictures were scored
@pytest.mark.parametrize("flagged", [[True], None])
def test_a_picture_that_a_checker_blacked_out_is_no_removal(flagged):
    def pipeline(*, prompt, image, mask_image, generator):
        return Answer(Image.new("RGB", image.size), flagged)

    setup = RemoverSetup(PipelineRemover(pipeline, size=32))
    with pytest.raises(RemoverError, match="checker"):
        setup.run(torch.full((1, 3, 24, 24), 0.8), hole())
    if flagged is None:  # a black picture of the night is one
        assert setup.run(torch.zeros(1, 3, 24, 24), hole()).max() == 0


class Shade(Remover):
    name = "shade"

    def __init__(self, tone, net=None):
        self.tone, self.net = tone, net

    def remove(self, images, masks, seed):
        return torch.where(masks, torch.full_like(images, self.tone), images)


# own probe: a cache that looked at a name alone gave another remover's pictures
def test_a_cache_tells_settings_and_weights_apart(tmp_path):
    cache, images = RemovalCache(tmp_path), torch.full((1, 3, 24, 24), 0.8)
    tones = [
        float(RemoverSetup(Shade(tone)).run(images, hole(), cache=cache)[..., 9, 9].mean())
        for tone in (0.2, 0.6)
    ]
    assert tones == pytest.approx([0.2, 0.6], abs=1e-2)
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert RemoverSetup(Shade(0, one)).identity == RemoverSetup(Shade(0, other)).identity
    with torch.no_grad():
        other.weight[0, 0] += 1
    assert RemoverSetup(Shade(0, one)).identity != RemoverSetup(Shade(0, other)).identity

    class Pipe:
        def __init__(self, net):
            self.unet = net

        def __call__(self, **given):
            raise NotImplementedError

    versions = {PipelineRemover(Pipe(net)).version for net in (one, other)}
    assert len(versions) == 2
