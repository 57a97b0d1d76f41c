"""Removal judged right: one law has no distance, scales blind nobody, the blind do not judge."""

import warnings

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from conceptlab.encoders import CallableEncoder
from conceptlab.errors import InputError
from conceptlab.extractors import ConvexNMF, NMFConcepts, SemiNMF
from unlearning.commands.removal import removal
from unlearning.distances import (
    Features,
    FeatureStatistics,
    FewRowsWarning,
    cmmd,
    frechet,
    frechet_distance,
    kid,
    u_ids,
)
from unlearning.removal import (
    RemovalBenchmark,
    RemovalReport,
    RemoverSetup,
    SceneRemovals,
    effect_mask,
)
from unlearning.removal.datasets import RemovalDataset
from unlearning.removal.features import load_features
from unlearning.removal.removers import Remover


def colours(images):
    return images.mean(dim=(2, 3))


# own probe: FID of features × 1e200 was nan, with a message of LAPACK
@pytest.mark.parametrize("scale", [1e200, 1e-200])
@pytest.mark.parametrize("score", [frechet_distance, frechet, kid, cmmd, u_ids])
def test_scales_that_float64_cannot_square_are_named(score, scale):
    X = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(InputError, match="largest entry") as caught:
        score(X * scale, (X + 1) * scale)
    assert caught.value.code == "CL-INPUT-RANGE"
    assert frechet_distance(X * 1e30, (X + 1) * 1e30) == pytest.approx(3e60, rel=1e-9)


# own probe: NMF at 1e30 in single precision ended with 3 of 4 concepts unused
@pytest.mark.parametrize("kind", [NMFConcepts, SemiNMF, ConvexNMF])
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_factorisations_name_scales_that_float32_cannot_square(kind, scale):
    rng = np.random.default_rng(0)
    X = rng.random((40, 3)) @ rng.random((3, 8))
    with pytest.raises(InputError, match="float32") as caught:
        kind(3, random_state=0).fit((X * scale).astype(np.float32))
    assert caught.value.code == "CL-INPUT-RANGE"
    model = kind(3, random_state=0).fit(X * scale)
    rebuilt = model.transform(X * scale) @ model.components_
    assert np.linalg.norm(rebuilt / scale - X) < 0.1 * np.linalg.norm(X)


# own probe: one feature in other units hid all the others from the line
@pytest.mark.parametrize("method", ["loo", "cv"])
def test_one_feature_of_a_large_scale_does_not_blind_u_ids(method):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(150, 6)), rng.normal(size=(150, 6)) + 1
    X[:, 0], Y[:, 0] = rng.normal(size=(2, 150))
    expected = u_ids(X, Y, method=method)
    assert expected < 0.2
    for scale in (1e-6, 1e6):
        X[:, 0] *= scale
        Y[:, 0] *= scale
        assert u_ids(X, Y, method=method) == pytest.approx(expected, abs=0.02)


# own probe: KID of features x 1e-9 was rounding, and of features x 1e-50 it was 0
@pytest.mark.parametrize("scale", [1e-5, 1e-9, 1e-50])
def test_kid_of_small_features_is_three_times_the_distance_of_the_means(scale):
    X, Y = np.random.default_rng(0).normal(size=(2, 60, 4)) + np.array([[[0.5]], [[0.0]]])
    mean = [(part.sum(0) @ part.sum(0) - np.square(part).sum()) / (60 * 59) for part in (X, Y)]
    expected = 3 * (mean[0] + mean[1] - 2 * X.mean(0) @ Y.mean(0)) / 4  # (t + 1)³ - 1 = 3t + ...
    assert kid(scale * X, scale * Y) / scale**2 == pytest.approx(expected, rel=1e-3)


# own probe: 2 to 4 % of the bias were left on normal features, half of it on a network's
@pytest.mark.parametrize("law", ["normal", "squares"])
def test_debiased_distance_of_one_law_is_0(law):
    found = []
    for seed in range(16):
        X, Y = np.random.default_rng(seed).normal(size=(2, 200, 24))
        if law == "squares":  # as after a ReLU: heavy tails
            X, Y = (np.square(part.clip(0)) for part in (X, Y))
        found.append(frechet(X, Y))
    off = np.array([f.debiased for f in found])
    assert abs(off.mean()) < 3 * off.std(ddof=1) / 4
    assert off.std() < 0.2 * np.mean([f.distance for f in found]), "a test that sees nothing"


# docs/results/removal-photos.md: with 93 images for 1280 features the truth was behind blurs
@pytest.mark.parametrize("kind", ["mean", "covariance"])
def test_debiased_distance_of_two_laws_is_told_or_warned_of(kind):
    d, scale, shift = 24, (1.0, 1.3)[kind == "covariance"], (3.0, 0.0)[kind == "covariance"]
    true = shift**2 + d * (scale - 1) ** 2

    def mean_error(n, seeds):
        found = []
        for seed in range(seeds):
            X, Y = np.random.default_rng(seed).normal(size=(2, n, d))
            X = scale * X
            X[:, 0] += shift
            found.append(frechet(X, Y))
        assert {f.told for f in found} == {n >= 10 * d}
        assert all(0.5 * min(n, d) < f.dimension <= d for f in found)
        return (np.mean([f.debiased for f in found]) - true) / true

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(mean_error(480, 8)) < 0.2
    with pytest.warns(FewRowsWarning, match="kid"):
        few = mean_error(20, 16)
    if kind == "covariance":
        assert few < -0.4  # what the warning is for: most of it is missed
    with pytest.warns(FewRowsWarning):  # and 0 for one law, as ever
        one = [frechet(*np.random.default_rng(s).normal(size=(2, 20, d))) for s in range(24)]
    off = np.array([f.debiased for f in one])
    assert abs(off.mean()) < 3 * off.std(ddof=1) / 24**0.5


# LTH14/JiT#54, GaParmar/clean-fid#10: statistics that others have stored
def test_stored_statistics_are_read(tmp_path):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(120, 5)), rng.normal(size=(90, 5)) + 0.3
    np.savez(tmp_path / "stats.npz", mu=Y.mean(axis=0), sigma=np.cov(Y.T))
    stored = FeatureStatistics.from_npz(tmp_path / "stats.npz")
    assert frechet_distance(X, stored) == pytest.approx(frechet_distance(X, Y), rel=1e-9)
    assert np.isnan(frechet(X, stored).null_bias), "how many rows there were nobody knows"
    counted = FeatureStatistics.from_npz(tmp_path / "stats.npz", n=90)
    assert frechet(X, counted).n == (120, 90)
    assert counted.merge(FeatureStatistics().update(X)).n == 210
    with pytest.raises(InputError, match="not known how many rows"):
        stored.update(X)
    again = FeatureStatistics.load(stored.save(tmp_path / "folder"))
    assert not again.counted
    assert frechet_distance(X, again) == frechet_distance(X, stored)
    np.savez(tmp_path / "other.npz", mean=Y.mean(axis=0))
    for name in ("other.npz", "absent.npz"):
        with pytest.raises(InputError, match="mu") as caught:
            FeatureStatistics.from_npz(tmp_path / name)
        assert caught.value.code == "CL-INPUT-FILE"
    with pytest.raises(InputError, match="no covariance|symmetric"):
        FeatureStatistics.from_moments(np.zeros(2), [[1.0, 5.0], [0.0, 1.0]])


def test_checked_features_give_the_same_figures():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=(30, 3))
    for score in (frechet_distance, kid, cmmd, u_ids):
        assert score(Features.of(X), Features.of(Y)) == score(X, Y)


def blind(images):
    return torch.stack([images.mean(dim=(1, 2, 3)), torch.ones(len(images))], dim=1)


# own probe: presence of .40 to .46 on photos with a car in full view, and nothing warned
def test_an_encoder_that_does_not_see_the_class_does_not_judge_presence(tmp_path):
    encoder = CallableEncoder(
        blind, lambda texts: torch.ones(len(texts), 2), dim=2, fingerprint="blind"
    )
    data = SceneRemovals(("star",), n=24, size=32)
    report = RemovalBenchmark(encoder, n_min=8, n_bootstrap=4).run(data, ["blur"])
    assert not {"presence", "removed_share", "p_gone"} & set(report.scores())
    assert any("Presence of star is not judged" in note for note in report.notes())
    assert "Presence of star is not judged" in report.to_html(tmp_path / "a.html").read_text()
    loaded = RemovalReport.load(report.save(tmp_path / "report"))
    assert loaded.notes() == report.notes()


class Photos(RemovalDataset):
    """A square that casts a shadow, on grey; the truth has neither."""

    name, class_names, size, has_truth = "squares", ("square",), (32, 32), True

    def with_class(self, name, *, min_area=0.0, max_area=1.0):
        return np.arange(12)

    def without_class(self, name):
        return np.arange(100, 112)

    def truth(self, name, ids):
        levels = torch.tensor([0.4 + 0.01 * (int(i) % 10) for i in ids])
        return levels[:, None, None, None].expand(-1, 3, 32, 32).clone()

    def images(self, ids):
        images = self.truth("square", ids)
        for image, number in zip(images, ids, strict=True):
            if number < 100:
                image[:, 4:12, 4:12] = 0.9
                image[:, 20:26, 4:14] -= 0.2
        return images

    def masks(self, name, ids):
        masks = np.zeros((len(ids), 1, 32, 32), bool)
        masks[:, :, 4:12, 4:12] = True
        return masks


class Clean(Remover):
    """Knows the level of the corner, and paints all with it: object and shadow are gone."""

    name, deterministic = "clean", True

    def remove(self, images, masks, seed):
        return images[..., -1:, -1:].expand_as(images)


# own probe: putting the original around the hole puts the shadow back
def test_effects_outside_the_mask_have_a_score_of_their_own(tmp_path):
    data = Photos()
    ids = np.arange(3)
    effects = effect_mask(data.images(ids), data.truth("square", ids), data.masks("square", ids))
    assert effects.sum(dim=(1, 2, 3)).tolist() == [60] * 3
    assert bool(effects[..., 20:26, 4:14].all())
    benchmark = RemovalBenchmark(colours, n_min=8, n_bootstrap=2)
    whole = RemoverSetup(Clean(), composite=False, label="whole")
    report = benchmark.run(data, [Clean(), whole])
    scores = dict(zip(report.removers, report.values("psnr_effect"), strict=True))
    assert scores["whole"] > 40 > scores["clean"] == pytest.approx(scores["nothing"], abs=1e-6)
    assert not any("composite=False" in note for note in report.notes())
    plain = benchmark.run(data, [Clean()])
    assert any("12 of 12 images show effects" in note for note in plain.notes())
    assert "psnr_effect" not in benchmark.run(SceneRemovals(("red",), n=12, size=32), []).scores()


# own probe: masks a pixel too small, and how removers take masks that are not exact
def test_masks_that_are_not_exact_have_a_curve_and_a_note(tmp_path):
    data = SceneRemovals(("red",), n=12, size=32)
    benchmark = RemovalBenchmark(colours, n_min=8, n_bootstrap=4)
    report = benchmark.run(data, ["telea-1", "telea", "telea+2", "biharmonic"])
    ax = report.plot("dilation")
    (line,) = (line for line in ax.get_lines() if line.get_label() == "telea")
    assert line.get_xdata().tolist() == [-1, 0, 2]
    assert "Masks that are not exact" in report.to_html(tmp_path / "a.html").read_text()
    assert any("biharmonic+2" in note for note in report.notes())
    other = benchmark.run(data, ["biharmonic+2"])
    assert not any("biharmonic" in note for note in other.notes())
    with pytest.raises(InputError, match="two dilations"):
        other.plot("dilation")


def photos_with_masks(folder, side=32):
    for name in ("images", "masks/dog"):
        (folder / name).mkdir(parents=True)
    for i in range(12):
        Image.new("RGB", (side, side), (i * 9, 90, 90)).save(folder / f"images/{i}.png")
    mask = Image.new("L", (side, side))
    mask.paste(255, (8, 8, 16, 16))
    for i in range(5):
        mask.save(folder / f"masks/dog/{i}.png")


def command(folder, *options):
    app = typer.Typer()
    app.command()(removal)
    quick = ("--size", "32", "--n-min", "4", "--bootstrap", "2", "--removers", "blur")
    out = ("--out", str(folder / "a.html"))
    return CliRunner().invoke(app, [str(folder), *quick, *out, *options])


# own probe: photos judged by the encoder of rendered scenes, without a word
def test_the_command_warns_of_the_embedded_encoder_on_photos(tmp_path):
    photos_with_masks(tmp_path)
    found = command(tmp_path)
    assert found.exit_code == 0, found.output
    assert "knows rendered scenes only" in " ".join(found.output.split())


# docs/howto/real-features.md: real features could be had in Python only
def test_the_command_takes_modules_and_classifiers_as_features(tmp_path):
    photos_with_masks(tmp_path)
    code = tmp_path / "mine.py"
    code.write_text(
        "import torch\n"
        "def colours():\n    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2),"
        " torch.nn.Flatten())\n"
        "def plain():\n    return lambda images: images.mean(dim=(2, 3))\n"
        "def wrong():\n    return 3\n"
    )
    for name in ("colours", "plain"):
        found = command(tmp_path, "--features", f"{code}:{name}", "--json")
        assert found.exit_code == 0, found.output
        assert '"originals_presence": null' in found.output  # nothing reads texts
    with_texts = command(tmp_path, "--features", f"{code}:colours", "--encoder", "embedded")
    assert "knows rendered scenes only" in " ".join(with_texts.output.split())
    for name, error in (("wrong", "returned int"), ("other", "colours")):
        found = command(tmp_path, "--features", f"{code}:{name}")
        assert found.exit_code
        assert error in f"{found.output}{found.exception}"
    pytest.importorskip("timm")
    found = command(tmp_path, "--features", "timm:test_resnet@random", "--json")
    assert found.exit_code == 0, found.output
    assert '"coherence"' in found.output  # its maps are used too
    features, images = load_features("timm:test_resnet@random"), torch.rand(2, 3, 160, 160)
    net = features.net
    expected = net.forward_head(net.forward_features(features.prepare(images)), pre_logits=True)
    torch.testing.assert_close(features(images), expected)
