"""Shards and extraction in one process: what is read, what goes on, what is refused."""

import io
import tarfile

import numpy as np
import pytest
import ranks
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from conceptlab.distributed import ActivationParts, Shards, World, extract, init
from conceptlab.errors import CheckpointError, InputError
from conceptlab.models import SplitModel


def tar_of(path, images, first=0):
    with tarfile.open(path, "w") as archive:
        for i, image in enumerate(images, first):
            packed = io.BytesIO()
            Image.fromarray(image).save(packed, "png")
            for name, content in ((f"{i:04d}.png", packed.getvalue()), (f"{i:04d}.cls", b"3")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def bytes_images():
    return np.random.default_rng(0).integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def shards(tmp_path, bytes_images):
    tar_of(tmp_path / "photos-000.tar", bytes_images[:4])
    tar_of(tmp_path / "photos-001.tar", bytes_images[4:], 4)
    return tmp_path


@pytest.mark.parametrize("pattern", ["photos-{000..001}.tar", "photos-*.tar"])
def test_tar_shards_hold_the_pictures_in_order(shards, bytes_images, pattern):
    batches = list(Shards(str(shards / pattern), batch_size=3))
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    expected = bytes_images.transpose(0, 3, 1, 2) / np.float32(255)
    assert np.array_equal(torch.cat(batches).numpy(), expected)


class Ranked(World):
    """A rank whose others see the same set."""

    def agree(self, what, value):
        return value


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_blocks_are_whole_batches_and_cover_all(size):
    images = ranks.pictures()
    parts = [Shards(images, batch_size=8, world=Ranked(rank, size)) for rank in range(size)]
    numbers = [i for part in parts for i in part.block]
    assert numbers == list(range(len(images)))
    starts = [part.block.start for part in parts if len(part)]
    assert all(start % 8 == 0 for start in starts)
    assert torch.equal(torch.cat([batch for part in parts for batch in part]), images)


def test_a_loader_stands_for_its_data_set():
    images = ranks.pictures()
    loader = DataLoader(TensorDataset(images, torch.arange(len(images))), batch_size=5)
    assert torch.equal(torch.cat(list(Shards(loader, batch_size=8))), images)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(ranks.pictures())


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (lambda: DataLoader(ranks.pictures(), shuffle=True), "sampler"),
        (lambda: DataLoader(Stream()), "DataLoader over an IterableDataset"),
        (lambda: Stream(), "an IterableDataset"),
        (lambda: (image for image in ranks.pictures()), "a generator"),
    ],
)
def test_what_cannot_be_read_twice_is_refused(images, words):
    with pytest.raises(InputError, match=words) as caught:
        Shards(images())
    assert caught.value.code == "CL-INPUT-TYPE"


def test_truncated_and_missing_shards(shards):
    path = shards / "photos-001.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"(Cannot read the|The) shard .*photos-001\.tar"):
        Shards(str(shards / "photos-{000..001}.tar"))
    with pytest.raises(InputError, match="photos-002") as caught:
        Shards(str(shards / "photos-002.tar"))
    assert caught.value.code == "CL-INPUT-FILE"


def cut():
    return SplitModel(ranks.network(), at="0", device="cpu")


def test_an_extraction_goes_on_where_it_stopped(tmp_path):
    whole = extract(cut(), Shards(ranks.pictures(), batch_size=4), tmp_path / "a", patch_size=12)

    def stop(done, total):
        if done >= 20:
            raise KeyboardInterrupt

    shards = Shards(ranks.pictures(), batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        extract(cut(), shards, tmp_path / "b", patch_size=12, progress=stop)
    with pytest.raises(CheckpointError, match="goes on from what is there"):
        ActivationParts(tmp_path / "b")
    again = extract(cut(), shards, tmp_path / "b", patch_size=12)
    assert np.array_equal(np.asarray(again), np.asarray(whole))
    assert np.array_equal(again.index, whole.index)


def test_other_settings_and_other_runs_are_refused(tmp_path):
    shards = Shards(ranks.pictures()[:8], batch_size=4)
    extract(cut(), shards, tmp_path / "a", patch_size=12)
    with pytest.raises(CheckpointError, match="patch_size = 12, and this one has 16") as caught:
        extract(cut(), shards, tmp_path / "a", patch_size=16)
    assert caught.value.code == "CL-CHECKPOINT-KIND"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("")
    with pytest.raises(CheckpointError, match="holds no extraction"):
        extract(cut(), shards, tmp_path / "b", patch_size=12)
    fcntl = pytest.importorskip("fcntl")
    with open(tmp_path / "a" / ".running", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="Another run"):
            extract(cut(), shards, tmp_path / "a", patch_size=12)


def test_a_process_alone_is_a_world_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = init()
    assert (world.rank, world.size, world.is_main) == (0, 1, True)
    value = torch.arange(3.0)
    assert world.sum(value) is value
    assert world.largest(2.0) == 0


def test_the_first_number_moves_random_crops():
    from conceptlab.models.patches import pooled_activations

    images = ranks.pictures()[:6]
    settings = {"mode": "random", "patch_size": 12, "n_crops": 2, "batch_size": 4}
    rows, index = pooled_activations(cut(), images, **settings)
    part, places = pooled_activations(cut(), images[4:], first=4, **settings)
    assert np.array_equal(places, index[8:])
    assert np.array_equal(part, rows[8:])
