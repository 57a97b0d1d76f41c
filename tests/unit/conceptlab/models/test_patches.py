"""Crops, whole-image rows, and where each row comes from."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from split_models import SmallCNN, small_bert, small_vit
from torch.nn import functional

from conceptlab.datasets.sources import ImageSource
from conceptlab.errors import CheckpointError, InputError
from conceptlab.models import ActivationStore, Patches, SplitModel, crop, pooled_activations


@pytest.fixture
def split():
    torch.manual_seed(0)
    return SplitModel(SmallCNN(), "last")


@pytest.fixture
def images():
    return torch.rand(5, 3, 40, 32, generator=torch.Generator().manual_seed(1))


def test_grid_as_released():
    """224 px, 64 px patches: stride 51, 4 x 4 crops, the rest dropped."""
    places = Patches("grid", 64).places(3, 224, 224)
    assert places.shape == (16, 4)
    assert (places[:, 0] == 3).all()
    assert sorted(set(places[:, 1].tolist())) == [0, 51, 102, 153]
    assert (places[:, 3] == 64).all()


def test_grid_rows_equal_the_released_recipe(split, images):
    """Unfold, resize all crops at once, average the maps."""
    found = pooled_activations(split, images, patch_size=16, batch_size=7)
    side, step = 16, 12
    crops = images.unfold(2, side, step).unfold(3, side, step)  # n, c, rows, columns, p, p
    crops = crops.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, side, side)
    crops = functional.interpolate(crops, size=(40, 32), mode="bilinear", align_corners=False)
    wanted = split.g(crops).mean((2, 3))
    np.testing.assert_allclose(found.rows, wanted.numpy(), atol=1e-6)
    assert found.rows.dtype == np.float32
    assert len(found.index) == len(found.rows) == 5 * 3 * 2


def test_index_finds_the_crop_again(split, images):
    found = pooled_activations(split, images, mode="random", patch_size=(8, 20), n_crops=6)
    assert found.index.shape == (30, 4)
    assert 8 <= found.index[:, 3].min() < found.index[:, 3].max() <= 20
    for row in (0, 13, 29):
        image, y, x, side = found.index[row]
        cut = crop(images, found.index[row])
        np.testing.assert_array_equal(cut, images[image, :, y : y + side, x : x + side].numpy())
        large = functional.interpolate(torch.as_tensor(cut)[None], size=(40, 32), mode="bilinear")
        np.testing.assert_allclose(found.rows[row], split.g(large).mean((2, 3))[0], atol=1e-6)
    again = pooled_activations(split, images, index=found.index[[4, 20, 3]])
    np.testing.assert_allclose(again.rows, found.rows[[4, 20, 3]], atol=1e-6)
    assert crop(images, found.index[0], context=2.0).shape[1] == 2 * found.index[0, 3]


def test_random_crops_depend_on_seed_and_image_only(split, images, global_state_untouched):
    options = {"mode": "random", "patch_size": 10, "n_crops": 4}
    a = pooled_activations(split, images, random_state=3, batch_size=2, **options)
    b = pooled_activations(split, images[:3], random_state=3, batch_size=50, **options)
    c = pooled_activations(split, images, random_state=4, **options)
    np.testing.assert_array_equal(a.index[:12], b.index)
    np.testing.assert_allclose(a.rows[:12], b.rows, atol=1e-6)
    assert not np.array_equal(a.index, c.index)
    assert not np.array_equal(a.index[:4, 1:], a.index[4:8, 1:])


def test_whole_images_give_every_position(split, images):
    found = pooled_activations(split, images, mode="none", batch_size=2)
    a = split.to_positions(split.g(images))
    np.testing.assert_allclose(found.rows, a.reshape(-1, 12).numpy(), atol=1e-6)
    assert a.shape[1:3] == (20, 16)
    row = 1 * 320 + 3 * 16 + 5  # image 1, row 3, column 5: a cell of 2 x 2 pixels
    assert found.index[row].tolist() == [1, 6, 10, 2]


def test_class_tokens_and_words_have_no_place():
    vit = SplitModel(small_vit(), "encoder.layers.encoder_layer_1")
    found = pooled_activations(vit, torch.rand(2, 3, 32, 32), mode="none")
    assert found.rows.shape == (34, 16)
    assert found.index[0].tolist() == [0, 0, 0, 0]
    assert found.index[17 + 1 + 4 + 2].tolist() == [1, 8, 16, 8]
    bert = SplitModel(small_bert(), "bert.encoder.layer.1", output="logits")
    texts = {"input_ids": torch.randint(5, 50, (3, 6))}
    words = pooled_activations(bert, texts, mode="none", batch_size=2)
    assert words.rows.shape == (18, 16)
    assert words.index[8].tolist() == [1, 2, 0, 0]


def test_images_of_mixed_sizes(split):
    images = [torch.rand(3, 30, 20), torch.rand(3, 16, 50)]
    found = pooled_activations(split, images, patch_size=16, size=(24, 24))
    assert set(found.index[:, 0].tolist()) == {0, 1}
    with pytest.raises(InputError, match="size=224"):
        pooled_activations(split, images, patch_size=16)
    assert len(pooled_activations(split, images, mode="none", size=16).rows) == 2 * 64


def test_max_pooling(split, images):
    found = pooled_activations(split, images, patch_size=16, pool="max")
    mean = pooled_activations(split, images, patch_size=16)
    assert (found.rows >= mean.rows).all()


def test_a_store_takes_the_rows_and_is_continued(split, images, tmp_path):
    wanted = pooled_activations(split, images, patch_size=16).rows
    calls = []
    real = split.g

    def dying(x):
        calls.append(len(x))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(x)

    for mode, rows in (("grid", wanted), ("none", None)):
        calls.clear()
        folder = tmp_path / mode
        options = {"mode": mode, "patch_size": 16, "batch_size": 5 if mode == "grid" else 1}
        if rows is None:
            rows = pooled_activations(split, images, mode="none").rows
        split.g = dying
        with pytest.raises(KeyboardInterrupt):
            pooled_activations(
                split, images, into=ActivationStore(folder, shard_size=12 * 4 * 7), **options
            )
        split.g = real
        store = ActivationStore(folder, shard_size=12 * 4 * 7)
        assert 0 < len(store) < len(rows)
        found = pooled_activations(split, images, into=store, **options)
        np.testing.assert_allclose(np.asarray(found.rows), rows, atol=1e-6)
        assert len(found.index) == len(rows)
        with pytest.raises(CheckpointError, match="another model"):
            pooled_activations(split, images + 1e-3, into=ActivationStore(folder), **options)


def _digests(start, stop):
    return [bytes([0])] * (stop - start)


def test_memory_does_not_grow_with_the_images(split):
    """Count the bytes of all live tensors at each pass."""
    real = split.g

    def peak(n):
        tops = []

        def watched(x):
            tops.append(
                sum(t.nbytes for t in gc.get_objects() if type(t) is torch.Tensor and t.ndim)
            )
            return real(x)

        split.g = watched
        try:
            source = ImageSource(n, lambda numbers: torch.zeros(len(numbers), 3, 64, 64), _digests)
            store = ActivationStore(memory_limit=1, shard_size=2**13)
            pooled_activations(split, source, patch_size=16, batch_size=32, into=store)
        finally:
            split.g = real
        assert len(store) == n * 25
        return max(tops)

    assert peak(40) < 1.1 * peak(8)


def test_bad_options_by_message(split, images):
    cases = [
        ({"mode": "gird"}, "Did you mean 'grid'"),
        ({"pool": "sum"}, "Unknown pool 'sum'"),
        ({"patch_size": 64}, r"patch_size=64 is larger than image 0, which is 40 x 32"),
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"patch_size": (8, 12)}, "mode='random'"),
        ({"patch_size": (12, 8), "mode": "random"}, r"\(least, largest\)"),
        ({"batch_size": 0}, "batch_size"),
        ({"stride": 0, "patch_size": 8}, "stride must be at least 1"),
        ({"size": 0, "patch_size": 8}, "size must be at least 1"),
        ({"index": np.zeros((3, 2))}, r"shape \(n_rows, 4\)"),
        ({"index": np.array([[9, 0, 0, 4]])}, "names images 9 to 9, but there are 5"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            pooled_activations(split, images, **options)
    with pytest.raises(InputError, match="CL-INPUT-EMPTY"):
        pooled_activations(split, images[:0], patch_size=8)
