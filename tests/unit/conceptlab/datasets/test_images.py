"""Every kind of image comes in as the same batch, and every mistake is named."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from conceptlab.datasets.folder import FolderDataset, load_image_folder
from conceptlab.datasets.images import as_image_batch, image_source
from conceptlab.datasets.pictures import ImageFile
from conceptlab.errors import InputError


@pytest.fixture
def bytes_batch():
    return np.random.default_rng(0).integers(0, 256, (4, 3, 6, 5), dtype=np.uint8)


def pil_of(chw):
    return Image.fromarray(np.ascontiguousarray(chw.transpose(1, 2, 0)))


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path, bytes_batch):
    for index, name in enumerate(["b/2.png", "b/1.PNG", "a/x.png", "a/deep/y.png"]):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pil_of(bytes_batch[index])))
    (tmp_path / "data/b/notes.txt").write_text("no picture")
    (tmp_path / "data/b/.hidden.png").write_bytes(b"junk")
    (tmp_path / "data/.git").mkdir()
    (tmp_path / "data/.git/z.png").write_bytes(b"junk")
    return tmp_path / "data"


class Labelled:
    """A torch data set of (image, label) pairs."""

    def __init__(self, images):
        self.pictures = images

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index], 7


def test_every_kind_of_input_gives_the_same_batch(bytes_batch, tmp_path):
    expected = torch.from_numpy(bytes_batch).float() / 255
    pictures = [pil_of(image) for image in bytes_batch]
    paths = []
    for index, picture in enumerate(pictures):
        picture.save(tmp_path / f"{index}.png")
        paths.append(tmp_path / f"{index}.png")
    scenes = type("Scenes", (), {"images": bytes_batch})()
    forms = {
        "uint8 array": bytes_batch,
        "uint8 tensor": torch.from_numpy(bytes_batch),
        "float64 array": bytes_batch / 255.0,
        "float32 tensor": expected,
        "big-endian array": (bytes_batch / 255.0).astype(">f8"),
        "reversed view": bytes_batch[::-1][::-1],
        "PIL": pictures,
        "tuple of PIL": tuple(pictures),
        "paths": paths,
        "strings": [str(path) for path in paths],
        "array of paths": np.array([str(path) for path in paths]),
        "object array": np.array([*pictures, None], dtype=object)[:4],
        "arrays": list(bytes_batch),
        "tensors": list(expected),
        "mixed": [pictures[0], expected[1], bytes_batch[2], paths[3]],
        "data set": Labelled(pictures),
        "rows": [{"image": picture, "label": 1} for picture in pictures],
        "scenes": scenes,
        "folder": str(tmp_path),
        "generator": (picture for picture in pictures),
    }
    for name, form in forms.items():
        batch = as_image_batch(form)
        assert batch.dtype == torch.float32, name
        torch.testing.assert_close(batch, expected, msg=name, atol=1e-7, rtol=0)
    hwc = bytes_batch.transpose(0, 2, 3, 1)
    torch.testing.assert_close(as_image_batch(hwc, channels_last=True), expected)


def test_single_images_become_a_batch_of_one(bytes_batch):
    for one in (bytes_batch[0], torch.from_numpy(bytes_batch[0]), pil_of(bytes_batch[0])):
        assert as_image_batch(one).shape == (1, 3, 6, 5)


def test_gradients_pass_and_the_input_is_not_changed(bytes_batch):
    images = (torch.from_numpy(bytes_batch) / 255).requires_grad_()
    before = images.detach().clone()
    as_image_batch(images, size=4).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert torch.equal(images.detach(), before)


@pytest.mark.parametrize(
    ("images", "code", "words"),
    [
        (np.zeros((2, 8, 9, 3)), "LAYOUT", r"\(2, 8, 9, 3\).*NHWC.*transpose\(0, 3, 1, 2\)"),
        (torch.zeros(2, 8, 9, 3), "LAYOUT", r"NHWC.*permute\(0, 3, 1, 2\)"),
        (np.zeros((8, 9, 3)), "LAYOUT", r"HWC.*transpose\(2, 0, 1\)"),
        (np.zeros((2, 4, 8, 8)), "LAYOUT", r"alpha channel.*images\[:, :3\]"),
        (np.zeros((2, 8, 8, 4)), "LAYOUT", r"alpha channel.*transpose\(0, 3, 1, 2\)\[:, :3\]"),
        (np.zeros((2, 1, 8, 8)), "LAYOUT", r"grey.*np\.repeat"),
        (torch.zeros(2, 1, 8, 8), "LAYOUT", r"grey.*expand\(-1, 3, -1, -1\)"),
        (np.zeros((2, 8, 8, 1)), "LAYOUT", "grey with channels last"),
        (np.zeros((2, 5, 8, 8)), "LAYOUT", "5 entries on the channel axis"),
        (np.full((2, 3, 8, 8), 200.0), "RANGE", "200.*divide by 255"),
        (np.full((2, 3, 8, 8), 1e4), "RANGE", r"Scale them to \[0, 1\]"),
        (np.full((2, 3, 8, 8), -1.0), "RANGE", "normalised already"),
        (np.full((2, 3, 8, 8), np.nan), "NONFINITE", "NaN"),
        ([], "EMPTY", "images is empty"),
        (np.zeros((0, 3, 8, 8)), "EMPTY", r"\(0, 3, 8, 8\)"),
        (np.zeros((2, 3, 0, 8)), "EMPTY", "at least one pixel"),
        (np.zeros((8, 8)), "RANK", r"\(8, 8\).*grey"),
        (np.zeros((2, 2, 3, 8, 8)), "RANK", "merge the first two axes"),
        ([np.zeros((1, 3, 8, 8))], "RANK", r"images\[0\]"),
        ([np.zeros((8, 8, 3), np.uint8)], "LAYOUT", r"images\[0\].*transpose\(2, 0, 1\)"),
        ([np.zeros((3, 8, 8)), np.zeros((3, 9, 8))], "SHAPE", "8×8.*9×8.*size=224"),
        (np.zeros((1, 3, 4, 4), int), "TYPE", "int64.*astype"),
        (np.zeros((1, 3, 4, 4), np.uint16), "TYPE", "uint16: expected uint8.*65535"),
        (np.zeros((1, 3, 4, 4), complex), "TYPE", "complex128"),
        (np.zeros((1, 3, 4, 4), bool), "TYPE", "bool"),
        (None, "TYPE", "NoneType"),
        (3, "TYPE", "int"),
        (b"bytes", "TYPE", "bytes"),
        ({"a": 1}, "TYPE", "dict"),
        (["nowhere.png"], "FILE", "nowhere.png.*No such file"),
        ([3], "TYPE", r"images\[0\] is a int"),
        ("/nowhere/at/all.zip", "FILE", "not there"),
    ],
)
def test_mistakes_are_named(images, code, words):
    with pytest.raises(InputError, match=words) as caught:
        as_image_batch(images)
    assert caught.value.code == f"CL-INPUT-{code}"


def test_a_loader_is_pointed_to_its_data_set(bytes_batch):
    loader = torch.utils.data.DataLoader(Labelled(bytes_batch))
    with pytest.raises(InputError, match=r"loader\.dataset"):
        as_image_batch(loader)


def test_range_any_takes_normalised_images_and_does_not_clip():
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 3
    assert torch.equal(as_image_batch(images, value_range="any"), images)
    assert as_image_batch(images, value_range="any", size=8).abs().max() > 1
    assert as_image_batch(torch.ones(1, 3, 4, 4) * (1 + 1e-5)).max() > 1  # rounding is no mistake


def test_pictures_of_any_mode_become_rgb():
    opaque = {"LA": (0, 255), "RGBA": (0, 0, 0, 255)}
    for mode in ("L", "RGBA", "P", "1", "CMYK", "LA", "HSV", "YCbCr"):
        picture = Image.new(mode, (5, 4), opaque.get(mode, 0))
        assert as_image_batch([picture]).shape == (1, 3, 4, 5)
    with pytest.raises(InputError, match="more than 8 bits"):
        as_image_batch([Image.new("I;16", (5, 4))])


def test_damaged_files_are_named(tmp_path, bytes_batch):
    content = png(pil_of(bytes_batch[0].repeat(20, 1).repeat(20, 2)))
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "junk.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"cut\.png.*(damaged|truncated)") as caught:
        as_image_batch([tmp_path / "cut.png"])
    assert caught.value.code == "CL-INPUT-FILE"
    with pytest.raises(InputError, match=r"junk\.png is not a picture.*13 bytes"):
        as_image_batch([tmp_path / "junk.png"])
    with pytest.raises(InputError, match="Cannot read"):
        as_image_batch([tmp_path])


def test_folder_has_sorted_classes_and_skips_the_rest(folder, bytes_batch):
    data = load_image_folder(folder)
    assert data.class_names == ("a", "b")
    assert [path.split("data/")[1] for path in data.paths] == [
        "a/deep/y.png",
        "a/x.png",
        "b/1.PNG",
        "b/2.png",
    ]
    assert data.y.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(data[3] * 255, bytes_batch[0], atol=1e-4)
    assert data.images.shape == (4, 3, 6, 5)
    assert "4 images, 2 classes" in repr(data)
    part = data[[3, 0]]
    assert isinstance(part, FolderDataset)
    assert part.y.tolist() == [1, 0]
    assert data[data.y == 1].paths == data.paths[2:]
    flat = load_image_folder(folder / "b")
    assert flat.y is None
    assert flat.class_names == ()
    assert load_image_folder(folder, classes=False).y is None
    assert load_image_folder(folder, size=(4, 7))[0].shape == (3, 4, 7)
    assert len(load_image_folder(folder, subfolder="b")) == 2


def test_folder_mistakes(folder, tmp_path):
    (folder / "loose.png").write_bytes((folder / "a/x.png").read_bytes())
    with pytest.raises(InputError, match=r"beside class folders, such as loose\.png"):
        load_image_folder(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images") as caught:
        load_image_folder(tmp_path / "empty")
    assert caught.value.code == "CL-INPUT-EMPTY"
    with pytest.raises(InputError, match="not there"):
        load_image_folder(tmp_path / "gone")
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        load_image_folder(folder / "a/x.png")


def test_zip_is_read_in_place(folder, tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"train/{file.relative_to(folder)}")
        archive.writestr("__MACOSX/train/a/x.png", b"junk")
    before = sorted(tmp_path.rglob("*"))
    data = load_image_folder(path, subfolder="train")
    assert data.class_names == ("a", "b")
    assert torch.equal(data.images, load_image_folder(folder).images)
    assert sorted(tmp_path.rglob("*")) == before
    assert torch.equal(as_image_batch(path), data.images)
    import pickle

    assert torch.equal(pickle.loads(pickle.dumps(data)).images, data.images)


def test_zip_that_points_outside_is_refused(tmp_path):
    for name in ("../evil.png", "/etc/evil.png", "a\\..\\..\\evil.png"):
        path = tmp_path / "evil.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"junk")
        with pytest.raises(InputError, match="points outside"):
            load_image_folder(path)


def test_damaged_zip_is_named(tmp_path, bytes_batch):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/1.png", png(pil_of(bytes_batch[0])))
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"Cannot read 'a/1\.png'"):
        load_image_folder(path).images  # noqa: B018


def test_huge_member_is_refused(tmp_path, monkeypatch, bytes_batch):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"\0" * 5000)
    monkeypatch.setattr("conceptlab.datasets.folder.PICTURE_LIMIT", 1000)
    with pytest.raises(InputError, match="unpacks to more"):
        load_image_folder(path)[0]


def test_digest_follows_the_content_alone(bytes_batch, tmp_path):
    source = image_source(bytes_batch)
    again = image_source(bytes_batch.copy())
    assert source.digests(0, 4) == again.digests(0, 4)
    assert source.digests(1, 3) == source.digests(0, 4)[1:3]
    changed = bytes_batch.copy()
    changed[2, 0, 0, 0] ^= 1
    other = image_source(changed).digests(0, 4)
    assert [a == b for a, b in zip(source.digests(0, 4), other, strict=True)] == [1, 1, 0, 1]
    assert source.digest(0, 4) != image_source(changed).digest(0, 4)
    pictures = [pil_of(image) for image in bytes_batch]
    assert image_source(pictures).digests(0, 4) == image_source(list(pictures)).digests(0, 4)
    content = png(pictures[0])
    files = [ImageFile("a", lambda: content), ImageFile("b", lambda: content)]
    assert len(set(image_source(files).digests(0, 2))) == 1
