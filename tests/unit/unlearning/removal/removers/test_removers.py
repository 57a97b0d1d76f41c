"""Masks, removers, their wrapper and the cache: what goes in and what may come out."""

import numpy as np
import pytest
import torch

from conceptlab.errors import CheckpointError, InputError, RemoverError
from unlearning.removal import MaskPolicy, RemovalCache, RemoverSetup, make_remover, remove_score
from unlearning.removal.class_presence import presence, region_crops
from unlearning.removal.masks import as_masks, grow
from unlearning.removal.removers import (
    CallableRemover,
    MeanFill,
    NoisyOracle,
    Oracle,
    PipelineRemover,
    Swap,
    TorchScriptRemover,
    available_removers,
)


def pictures(n=3, side=24):
    """Smooth pictures on the 8-bit grid with a bright square, the square's mask, the truth."""
    at = np.linspace(0, 1, side)
    truth = np.stack(
        [0.3 + 0.2 * np.add.outer(at * np.cos(k), at * np.sin(k)) / 2 for k in range(n)]
    )[:, None].repeat(3, 1)
    truth = (np.round(truth * 255) / 255).astype(np.float32)
    masks = np.zeros((n, 1, side, side), dtype=bool)
    for k in range(n):
        masks[k, :, 6 + k : 13 + k, 8:15] = True
    images = np.where(masks, np.float32(1), truth)
    return torch.from_numpy(images), torch.from_numpy(masks), torch.from_numpy(truth)


def test_masks_grow_and_shrink_by_euclidean_distance():
    mask = np.zeros((1, 1, 21, 21), dtype=bool)
    mask[..., 10, 10] = True
    grown = grow(mask, 5)[0, 0]
    rows, columns = np.indices(grown.shape)
    np.testing.assert_array_equal(grown, np.hypot(rows - 10, columns - 10) <= 5)
    outside = np.argwhere(~grown)
    away = np.hypot(*(np.indices(grown.shape)[..., None] - outside.T[:, None, None])).min(-1)
    for pixels in (1, 3):
        np.testing.assert_array_equal(grow(grown[None, None], -pixels)[0, 0], away > pixels)
    assert grow(mask, -4).sum() == 1  # a mask that would vanish keeps its heart
    assert MaskPolicy(dilation=2)(mask).sum() == 13


@pytest.mark.parametrize(
    ("masks", "code"),
    [
        (np.zeros((2, 1, 9, 9)), "CL-INPUT-SHAPE"),
        (np.zeros((3, 1, 8, 9)), "CL-INPUT-SHAPE"),
        (np.zeros((3, 2, 9, 9)), "CL-INPUT-RANK"),
        (np.linspace(0, 1, 243).reshape(3, 1, 9, 9), "CL-INPUT-RANGE"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, code):
    with pytest.raises(InputError) as caught:
        as_masks(masks, like=torch.zeros(3, 3, 9, 9))
    assert caught.value.code == code


@pytest.mark.parametrize(("fill", "word"), [(False, "is empty"), (True, "covers the whole")])
def test_empty_and_full_masks_are_named(fill, word):
    images, masks, _ = pictures()
    masks[1] = fill
    with pytest.raises(InputError, match=f"image b {word}"):
        make_remover("mean_fill").run(images, masks, names=["a", "b", "c"])


def every_remover():
    found, _ = available_removers(
        ("mean_fill", "blur", "telea", "navier_stokes", "biharmonic", "patchmatch")
    )
    images, masks, _ = pictures(4)
    return [
        *found,
        RemoverSetup(Swap(images, masks)),
        RemoverSetup(NoisyOracle(0.1)),
        RemoverSetup(Oracle()),
    ]


@pytest.mark.parametrize("setup", every_remover(), ids=lambda s: s.label)
def test_remover_fills_holes_and_nothing_else(setup, global_state_untouched):
    images, masks, truth = pictures()
    kept = images.clone()
    out = setup.run(images, masks, seed=1, truth=truth)
    assert torch.equal(images, kept)
    assert out.dtype == torch.float32
    assert torch.equal(out[~masks.expand_as(out)], images[~masks.expand_as(out)])
    if setup.label != "another object":
        assert not torch.equal(out, images)
    # One by one gives the same bits as together.
    single = [
        setup.run(images[i : i + 1], masks[i : i + 1], seed=1, truth=truth[i : i + 1])
        for i in range(3)
    ]
    assert torch.equal(torch.cat(single), out)
    if setup.label == "oracle":
        assert torch.equal(out, truth)


@pytest.mark.parametrize("name", ["telea+1", "navier_stokes+1", "biharmonic+1", "patchmatch+1"])
def test_real_fills_are_near_the_truth_on_smooth_ground(name):
    found, missing = available_removers((name,))
    if missing:
        pytest.skip(missing[name])
    images, masks, truth = pictures()
    out = found[0].run(images, masks)
    assert float((out - truth).abs().mean()) < 0.2 * float((images - truth).abs().mean())


def test_what_a_remover_must_not_give():
    images, masks, truth = pictures()

    def run(answer, **options):
        fn = CallableRemover(lambda x, m, seed: answer(x), name="mine")
        return RemoverSetup(fn, **options).run(images, masks)

    for answer, word in (
        (lambda x: x[:, :, ::2], "gave shape"),
        (lambda x: x.permute(0, 2, 3, 1), "channels first"),
        (lambda x: x * 255, "Divide by 255"),
        (lambda x: x - 0.5, r"expected \[0, 1\]"),
        (lambda x: x * float("nan"), "NaN"),
        (lambda x: "picture", "expected an array"),
        (lambda x: 1 / 0, "raised ZeroDivisionError"),
    ):
        with pytest.raises(RemoverError, match=word) as caught:
            run(answer)
        assert "mine" in str(caught.value)
        assert caught.value.code == "CL-REMOVER-FAILED"
    with pytest.raises(InputError, match="needs the true removal"):
        make_remover("oracle").run(images, masks)
    assert torch.equal(make_remover("oracle").run(images, masks, truth=truth), truth)
    with pytest.raises(InputError, match="Did you mean 'telea'"):
        make_remover("telae")


def test_images_are_checked_before_a_remover_is_blamed():
    images, masks = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    masks[..., 4:8, 4:8] = True
    setup = RemoverSetup(MeanFill())
    for bad, words in (
        (images * 255, "bytes stored as floats"),
        (images * torch.nan, "contains NaN"),
        (images.permute(0, 2, 3, 1), "channels last"),
    ):
        with pytest.raises(InputError, match=words):
            setup.run(bad, masks)
    expected = setup.run(images, masks)
    found = setup.run(images.numpy(), masks.numpy())
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected.numpy())


def test_functions_of_one_name_do_not_share_a_cache(tmp_path):
    images, masks = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    masks[..., 2:4, 2:4] = True
    fills = [
        RemoverSetup(CallableRemover(fn, name="fill"))
        for fn in (lambda x, m, s: 0 * x + 0.2, lambda x, m, s: 0 * x + 1)
    ]
    found = [s.run(images, masks, cache=RemovalCache(tmp_path))[0, 0, 2, 2] for s in fills]
    assert [float(v) for v in found] == pytest.approx([0.2, 1.0])


def test_without_compositing_damage_outside_shows():
    images, masks, _ = pictures()
    fade = CallableRemover(lambda x, m, seed: x * 0.5, name="fade")
    out = RemoverSetup(fade, composite=False).run(images, masks)
    outside = ~masks.expand_as(out)
    assert not torch.equal(out[outside], images[outside])


def test_padding_is_cut_off_again():
    seen = []
    fn = CallableRemover(lambda x, m, seed: seen.append(x.shape) or x, name="p", pad_multiple=16)
    images, masks, _ = pictures()
    out = RemoverSetup(fn).run(images, masks)
    assert seen[0][-2:] == (32, 32)
    assert torch.equal(out, images)


def test_cache_goes_on_after_a_failure_and_mends_damage(tmp_path):
    images, masks, _ = pictures(6)
    calls = []

    def fragile(x, m, seed):
        calls.append(len(x))
        if len(calls) == 4:
            raise RuntimeError("out of luck")
        return x * 0.5

    setup = RemoverSetup(CallableRemover(fragile, name="fragile", deterministic=False))
    cache = RemovalCache(tmp_path / "cache")
    with pytest.raises(RemoverError, match="out of luck"):
        setup.run(images, masks, cache=cache)
    assert len(cache) == 3
    out = setup.run(images, masks, cache=cache)
    assert len(calls) == 4 + 3  # three were there already
    again = setup.run(images, masks, cache=cache)
    assert len(calls) == 7
    assert torch.equal(out, again)
    assert torch.equal(out, setup.run(images, masks))  # fresh and cached are the same bits
    victim = sorted((tmp_path / "cache").rglob("*.png"))[0]
    victim.write_bytes(victim.read_bytes()[:40])
    before = len(calls)
    assert torch.equal(setup.run(images, masks, cache=cache), out)
    assert len(calls) == before + 1
    before = len(calls)
    setup.run(images, masks, seed=5, cache=cache)  # another seed is another removal
    assert len(calls) == before + 6


def test_torchscript_file_and_pipeline(tmp_path):
    class Fill(torch.nn.Module):
        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return image * (1 - mask) + 0.25 * mask

    path = tmp_path / "fill.pt"
    torch.jit.script(Fill()).save(str(path))
    images, masks, _ = pictures(2, side=21)
    out = make_remover(f"torchscript:{path}").run(images, masks)
    assert float((out[masks.expand_as(out)] - 0.25).abs().max()) < 0.003
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="no TorchScript"):
        TorchScriptRemover(tmp_path / "junk.pt")

    class Answer:
        def __init__(self, image):
            self.images = [image]

    seen = {}

    def pipeline(prompt, image, mask_image, generator, **options):
        seen.update(prompt=prompt, size=image.size, hole=np.asarray(mask_image).max(), **options)
        return Answer(image.point(lambda v: v // 2))

    remover = PipelineRemover(pipeline, prompt="background", size=64, steps=3)
    out = RemoverSetup(remover).run(images, masks)
    assert seen == {"prompt": "background", "size": (64, 64), "hole": 255, "steps": 3}
    assert out.shape == images.shape


def test_crops_hold_the_hole_and_presence_knows_what_it_sees():
    images, masks, _ = pictures()
    crops = region_crops(images, masks, scale=1.0, least=0.1, size=7)
    assert crops.shape == (3, 3, 7, 7)
    assert float(crops.min()) > 0.99  # the square alone
    rng = np.random.default_rng(0)
    free, there = rng.normal(size=800), rng.normal(3, 1, 800)
    gone = presence(rng.normal(size=800), free, there)
    assert gone.gone
    assert gone.removed_share > 0.9
    left = presence(there, free, there)
    assert left.auc > 0.95
    assert not left.gone
    assert left.removed_share == 0
    few = presence(free[:20], free, there)  # too few to prove anything
    assert not few.gone


def test_remove_score_compares_inside_and_outside():
    masks = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    masks[..., 4:12, 4:12] = True
    maps = torch.zeros(2, 2, 8, 8)
    maps[:, 0] = 1
    maps[1, :, 2:6, 2:6] = torch.tensor([0.0, 1.0])[:, None, None]
    np.testing.assert_allclose(remove_score(maps, masks), [1.0, 0.0], atol=1e-12)
    assert np.isnan(remove_score(maps, torch.ones_like(masks))).all()
