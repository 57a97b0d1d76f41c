"""The cache never answers with what was not asked, and nothing is computed twice."""

import numpy as np
import pytest
import torch

from conceptlab.datasets.resize import Fit
from conceptlab.encoders import (
    CallableEncoder,
    EmbeddingCache,
    EmbeddingCacheWarning,
    Preprocess,
)
from conceptlab.errors import CheckpointError, InputError


class Counted:
    """Colour means, and how many images went through."""

    def __init__(self, fail_at=None):
        self.seen, self.fail_at = 0, fail_at

    def __call__(self, x):
        if self.fail_at is not None and self.seen >= self.fail_at:
            raise KeyboardInterrupt
        self.seen += len(x)
        return x.mean((2, 3))


def encoder_of(fn, *, print_="means", preprocess=None):
    encoder = CallableEncoder(
        fn, lambda texts: [[len(t), 1.0] for t in texts], fingerprint=print_, preprocess=preprocess
    )
    if isinstance(fn, Counted):  # the first batch ever is looked at twice; it is not counted
        seen, fail_at, fn.fail_at = fn.seen, fn.fail_at, None
        encoder.encode_image(np.zeros((2, 3, 4, 4), np.uint8))
        fn.seen, fn.fail_at = seen, fail_at
    return encoder


@pytest.fixture
def images():
    return np.random.default_rng(0).random((20, 3, 4, 4), dtype=np.float32)


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path / "cache", shard_size=6)


def test_second_time_nothing_is_computed(cache, images):
    assert not cache.folder.exists()
    fn = Counted()
    first = encoder_of(fn).encode_image(images, cache=cache)
    assert fn.seen == 20
    assert len(cache) == 4
    again = encoder_of(fn).encode_image(images, cache=str(cache.folder))
    assert fn.seen == 20
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, encoder_of(Counted()).encode_image(images))


def test_subsets_orders_repetitions_and_growth(cache, images):
    fn = Counted()
    encoder = encoder_of(fn)
    full = encoder.encode_image(images[:14], cache=cache)
    order = np.array([13, 2, 2, 7, 0])
    np.testing.assert_array_equal(encoder.encode_image(images[order], cache=cache), full[order])
    assert fn.seen == 14
    grown = encoder.encode_image(images[::-1].copy(), cache=cache)
    assert fn.seen == 20
    np.testing.assert_allclose(grown[::-1], encoder.encode_image(images), atol=1e-6)
    same = encoder.encode_image(np.repeat(images[:1] * 0.5, 9, axis=0), cache=cache)
    assert fn.seen == 20 + 20 + 1
    assert same.shape == (9, 3)


def test_all_that_changes_the_answer_is_in_the_key(cache, images):
    fn = Counted()
    encoder_of(fn).encode_image(images, cache=cache)
    count = fn.seen
    for other, options in [
        (encoder_of(fn, print_="other"), {}),
        (encoder_of(fn, preprocess=Preprocess(Fit(2, 2))), {}),
        (encoder_of(fn), {"normalize": False}),
    ]:
        expected = other.encode_image(images, **options)
        np.testing.assert_array_equal(other.encode_image(images, cache=cache, **options), expected)
        count += 2 * len(images)
        assert fn.seen == count
    changed = images.copy()
    changed[3] *= 0.5
    found = encoder_of(fn).encode_image(changed, cache=cache)
    assert fn.seen == count + 1
    np.testing.assert_allclose(found, encoder_of(Counted()).encode_image(changed), atol=1e-6)


def test_interrupted_run_goes_on(cache, images):
    fn = Counted(fail_at=12)
    with pytest.raises(KeyboardInterrupt):
        encoder_of(fn).encode_image(images, cache=cache, batch_size=2)
    assert len(cache) == 2
    fn.fail_at = None
    found = encoder_of(fn).encode_image(images, cache=cache, batch_size=2)
    assert fn.seen == 20
    np.testing.assert_array_equal(found, encoder_of(Counted()).encode_image(images, batch_size=2))
    assert not [path for path in cache.folder.rglob(".*") if path.is_file()]


@pytest.mark.parametrize("damage", ["flip a value", "flip a key", "cut", "empty", "junk"])
def test_damaged_shards_are_computed_again(cache, images, damage):
    fn = Counted()
    encoder = encoder_of(fn)
    expected = encoder.encode_image(images, cache=cache)
    path = sorted(cache.folder.rglob("*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    if damage == "flip a value":
        content[-200 if len(content) > 400 else -1] ^= 1
    elif damage == "flip a key":
        content[-1] ^= 1
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    else:
        content[:] = b"x" * len(content)
    path.write_bytes(content)
    with pytest.warns(EmbeddingCacheWarning, match="damaged"):
        found = encoder.encode_image(images, cache=cache)
    np.testing.assert_array_equal(found, expected)
    assert fn.seen in (22, 26)  # the last shard holds two rows
    np.testing.assert_array_equal(encoder.encode_image(images, cache=cache), expected)


def test_texts_too(cache):
    encoder = encoder_of(Counted())
    texts = ["a", "bb", "a"]
    first = encoder.encode_text(texts, cache=cache)
    np.testing.assert_array_equal(first, encoder.encode_text(texts, cache=cache))
    np.testing.assert_array_equal(first, encoder.encode_text(texts))
    other = encoder.encode_text(texts, cache=cache, templates="a photo of {}")
    assert not np.array_equal(first, other)


def test_like_in_like_out_from_the_cache(cache, images):
    encoder = encoder_of(Counted())
    for _ in range(2):
        found = encoder.encode_image(torch.from_numpy(images).double(), cache=cache)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == torch.float64


def test_encoders_of_others(cache, images):
    class Plain:
        fingerprint, dim, device, name = "plain", 3, torch.device("cpu"), "plain"
        calls = 0

        def encode_image(self, images, *, batch_size="auto", normalize=True, progress=None):
            Plain.calls += 1
            return np.asarray(images).mean((2, 3))

    for _ in range(2):
        found = cache.encode_image(Plain(), images)
    np.testing.assert_allclose(found, images.mean((2, 3)), rtol=1e-6)
    assert Plain.calls == 4


def test_housekeeping(cache, images, tmp_path):
    encoder_of(Counted()).encode_image(images, cache=cache)
    size = cache.nbytes
    assert size > 20 * 3 * 4
    assert cache.prune(size) == 0
    assert cache.prune(size // 2) == 2
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0
    with pytest.raises(InputError, match="shard_size"):
        EmbeddingCache(tmp_path, shard_size=0)
    with pytest.raises(InputError, match="must be a folder"):
        encoder_of(Counted()).encode_image(images, cache=3)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        encoder_of(Counted()).encode_image(images, cache=tmp_path / "file")


def test_progress_counts_shards(cache, images):
    steps = []
    encoder_of(Counted()).encode_image(
        images, cache=cache, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
