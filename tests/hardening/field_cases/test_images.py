"""Pictures as people have them: what is shown is what is read, and nothing is left out unsaid."""

import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import Dataset, Subset

from conceptlab import CRAFT, SplitModel
from conceptlab.datasets import as_image_batch, load_image_folder
from conceptlab.datasets.folder import PassedOverWarning
from conceptlab.datasets.images import image_source
from conceptlab.datasets.pictures import picture_size
from conceptlab.errors import InputError

ORIENTATION = 0x0112


def photo(height=6, width=10, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def lying(path, orientation, **options):
    """Save a photo as a camera does: pixels as they lie, and a tag that says how to turn them."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo().save(path, exif=exif, **options)
    return path


def shown(picture):
    return torch.from_numpy(np.array(ImageOps.exif_transpose(picture))).permute(2, 0, 1) / 255


# facebookresearch/detectron2#262, kohya-ss/sd-scripts#1316, open-edge-platform/datumaro#1756
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_photo_is_upright_by_every_way(tmp_path, orientation, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = lying(tmp_path / f"a.{suffix}", orientation, **options)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, f"a.{suffix}")
    expected = shown(Image.open(path))
    ways = {
        "path": str(path),
        "list": [path],
        "picture": Image.open(path),
        "folder": load_image_folder(path.parent),
        "zip": tmp_path / "a.zip",
        "column": pd.DataFrame({"path": [str(path)]}, index=[7]).path,
    }
    for way, given in ways.items():
        assert torch.equal(as_image_batch(given)[0], expected), way
    assert picture_size(path.read_bytes(), "a") == expected.shape[:0:-1]
    turned = ImageOps.exif_transpose(Image.open(path))
    assert torch.equal(as_image_batch(turned)[0], expected), "turned twice"


def test_digests_tell_the_orientation(tmp_path):
    one, other = (lying(tmp_path / f"{n}.png", n) for n in (1, 3))
    pictures = [Image.open(one), Image.open(other)]
    first, second = image_source(pictures).digests(0, 2)
    assert first != second


def see_through_pictures():
    red = np.zeros((8, 8, 4), np.uint8)
    red[..., 0], red[2:6, 2:6, 3] = 255, 255
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.info["transparency"] = 0
    grey = np.full((8, 8, 2), 200, np.uint8)
    grey[0, 0, 1] = 254
    rgba, la = Image.fromarray(red, "RGBA"), Image.fromarray(grey, "LA")
    key = Image.new("RGB", (8, 8), (1, 2, 3))
    key.info["transparency"] = (1, 2, 3)
    found = {"RGBA": rgba, "P": palette, "LA": la, "RGBa": rgba.convert("RGBa"), "RGB": key}
    return found | {"La": la.convert("La")}


# pytorch/vision#5510, kohya-ss/sd-scripts#1269: hidden colours under alpha reach the model
@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "RGBa", "RGB", "La"])
def test_hidden_colours_are_refused_and_full_alpha_is_taken(tmp_path, mode):
    picture = see_through_pictures()[mode]
    with pytest.raises(InputError, match="transparent in places") as caught:
        as_image_batch(picture)
    assert caught.value.code == "CL-INPUT-LAYOUT"
    if mode in ("RGBA", "LA", "P", "RGB"):
        picture.save(tmp_path / "a.png")
        with pytest.raises(InputError, match="transparent in places"):
            as_image_batch(tmp_path / "a.png")
    if mode in ("RGBA", "LA"):
        full = picture.copy()
        full.putalpha(255)
        assert torch.equal(as_image_batch(full), as_image_batch(full.convert("RGB")))


# pytorch/vision#2218, python-pillow/Pillow#5991: 16 bits cut to 8, all white
@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("I;16", "CL-INPUT-RANGE"),
        ("I", "CL-INPUT-RANGE"),
        ("F", "CL-INPUT-RANGE"),
    ],
)
def test_modes_without_a_range_are_refused(mode, code):
    with pytest.raises(InputError, match=mode) as caught:
        as_image_batch([Image.new(mode, (5, 4))])
    assert caught.value.code == code


def test_cmyk_and_grey_are_converted():
    red = as_image_batch(Image.new("RGB", (2, 2), (255, 0, 0)).convert("CMYK"))
    assert torch.equal(red[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    assert (
        as_image_batch(Image.new("L", (2, 2), 51))[0, :, 0, 0].tolist() == [pytest.approx(0.2)] * 3
    )


# thumbsup/thumbsup#368, lstein/PhotoMapAI#364: pictures dropped by their suffix
def test_folders_read_every_suffix_and_tell_what_they_leave(tmp_path):
    for name, kind in {
        "a.jpg": "JPEG",
        "b.jfif": "JPEG",
        "c.AVIF": "AVIF",
        "d.jp2": "JPEG2000",
        "e.tga": "TGA",
        "f.pbm": "PPM",
    }.items():
        photo().convert("1" if kind == "PPM" else "RGB").save(tmp_path / name, format=kind)
    (tmp_path / "labels.csv").write_text("a,b")
    assert len(load_image_folder(tmp_path)) == 6
    (tmp_path / "g.cr2").write_bytes(b"raw")
    (tmp_path / "h").write_bytes(b"no suffix")
    with pytest.warns(PassedOverWarning, match=r"2 file\(s\).*g\.cr2, h"):
        assert len(load_image_folder(tmp_path)) == 6
    (tmp_path / "i.heic").write_bytes(b"no plugin")
    with pytest.warns(PassedOverWarning), pytest.raises(InputError, match=r"i\.heic"):
        load_image_folder(tmp_path, size=8).images  # noqa: B018


class Brightened(Dataset):
    """A data set in the way of torchvision: paths in ``.images``, and a transform."""

    def __init__(self):
        self.images = ["nowhere.png"] * 3

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.full((3, 4, 4), index / 4), index


class Loose:
    """The same without torch's base class."""

    def __init__(self):
        self.images, self.transform = torch.zeros(3, 3, 4, 4), lambda x: x + 0.5

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.transform(self.images[index])


# own probe: a data set's own transform is passed over for its `.images`
def test_a_data_set_gives_its_items_and_not_its_files(tmp_path):
    assert as_image_batch(Brightened()).mean(dim=(1, 2, 3)).tolist() == [0, 0.25, 0.5]
    assert as_image_batch(Subset(Brightened(), [2])).mean() == 0.5
    assert as_image_batch(Loose()).mean() == 0.5
    for n, side in enumerate((8, 12)):
        photo(side, side).save(tmp_path / f"{n}.png")
    small = load_image_folder(tmp_path, size=4)
    assert as_image_batch(small).shape == small.images.shape == (2, 3, 4, 4)
    assert torch.equal(as_image_batch(small), small.images)
    whole = load_image_folder(tmp_path)
    assert image_source(small).digests(0, 2) != image_source(whole).digests(0, 2)


# own probe: a table of paths, and rows whose image has another name
def test_tables_and_rows_are_read_or_named(tmp_path):
    photo().save(tmp_path / "a.png")
    frame = pd.DataFrame({"path": [str(tmp_path / "a.png")] * 2, "label": [0, 1]}, index=[5, 7])
    assert as_image_batch(frame.path).shape == (2, 3, 6, 10)
    with pytest.raises(InputError, match="'path', 'label'") as caught:
        as_image_batch(frame)
    assert caught.value.code == "CL-INPUT-TYPE"
    rows = [{"image": photo(), "label": 0}]
    assert as_image_batch(rows).shape == (1, 3, 6, 10)
    with pytest.raises(InputError, match="'picture', 'label'"):
        as_image_batch([{"picture": photo(), "label": 0}])


def net(channels, axes=2):
    conv = nn.Conv3d if axes == 3 else nn.Conv2d
    pool = nn.AdaptiveAvgPool3d if axes == 3 else nn.AdaptiveAvgPool2d
    torch.manual_seed(0)
    body = nn.Sequential(conv(channels, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(body, pool(1), nn.Flatten(), nn.Linear(8, 4)).eval()


# own probe: models of one channel, of five (satellites), of video
@pytest.mark.parametrize("channels", [1, 5])
def test_models_take_as_many_channels_as_they_have(channels):
    images = torch.rand(6, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    split = SplitModel(net(channels), "0")
    craft = CRAFT(split, 2, patch_size=8, random_state=0).fit(images, target=0)
    assert craft.maps({"input": images}).shape == (6, 2, 16, 16)
    np.testing.assert_array_equal(craft.maps({"input": images}), np.asarray(craft.maps(images)))
    with pytest.raises(InputError, match="first layer") as caught:
        craft.fit(images.permute(0, 2, 3, 1), target=0)
    assert caught.value.code == "CL-INPUT-LAYOUT"
    for other in (2, 3):  # colours that no conversion is known for, here and at a bare pass
        given = torch.rand(4, other, 16, 16)
        with pytest.raises(InputError) as caught:
            craft.fit(given, target=0)
        assert caught.value.code == "CL-INPUT-LAYOUT"
        with pytest.raises(InputError, match=f"takes {channels} channel.*have {other}"):
            SplitModel(net(channels), "0").g(given)
    if channels == 1:  # as grey photos come
        grey = CRAFT(split, 2, patch_size=8, random_state=0)
        grey.fit(images.expand(-1, 3, -1, -1), target=0)
        np.testing.assert_array_equal(grey.importances_, craft.importances_)


def test_video_is_read_as_a_tensor_and_by_name():
    video = torch.rand(4, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    split = SplitModel(net(3, axes=3), "0")
    first, second = (
        CRAFT(split, 2, patches="none", random_state=0).fit(given, target=0).importances_
        for given in (video, {"input": video})
    )
    np.testing.assert_array_equal(first, second)
