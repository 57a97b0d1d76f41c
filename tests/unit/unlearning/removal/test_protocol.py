"""Data sets, the whole evaluation, its report and its command."""

import json

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from conceptlab.encoders import CallableEncoder
from conceptlab.errors import InputError, RemoverError
from unlearning.commands.removal import removal
from unlearning.distances.statistics import compare, tied_ranks
from unlearning.removal import (
    CocoRemovals,
    MaskFolder,
    MaskPolicy,
    RemovalBenchmark,
    RemovalReport,
    RemoverSetup,
    SceneRemovals,
    frechet,
    match_context,
)
from unlearning.removal.context import context_descriptor, context_self_check
from unlearning.removal.removers import CallableRemover


def colours(images):
    """Mean and spread of the channels, and a coarse picture: (n, 18)."""
    coarse = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
    return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3)), coarse], dim=1)


def encoder():
    def words(texts):
        return torch.tensor([[float(t.count("red")), 1.0] for t in texts])

    def redness(x):
        share = (x[:, 0] - torch.maximum(x[:, 1], x[:, 2]) > 0.2).float().mean(dim=(1, 2))
        return torch.stack([share, torch.full_like(share, 0.1)], dim=1)

    return CallableEncoder(redness, words, dim=2, fingerprint="colour")


def scenes(n=40, **options):
    return SceneRemovals(("red",), n=n, random_state=0, **options)


def run(data=None, removers=("blur",), **options):
    settings = {"n_min": 10, "n_bootstrap": 20, "random_state": 0, **options}
    bench = RemovalBenchmark(settings.pop("features", colours), **settings)
    return bench.run(data or scenes(), list(removers), progress=False)


# -- data sets ------------------------------------------------------------------------------


def test_scenes_know_masks_truth_and_others():
    data = scenes(30)
    ids = data.with_class("red", min_area=0.01)
    images, masks, truth = data.images(ids), data.masks("red", ids), data.truth("red", ids)
    assert images.shape == truth.shape == (30, 3, 64, 64)
    changed = (images != truth).any(dim=1, keepdim=True).numpy()
    assert (changed & masks).sum() > 0.95 * masks.sum()
    # Outside is an edge, and slivers of hidden objects that cover less than half a pixel.
    assert (changed & ~MaskPolicy(dilation=3)(masks)).sum() < 0.01 * masks.sum()
    others = data.without_class("red")
    assert set(others).isdisjoint(ids)
    places = data.places("red", others)
    assert places.any(axis=(1, 2, 3)).all()
    # No red object: nothing there has red as its strongest colour by far.
    pixels = data.images(others)
    reds = (pixels[:, 0] - pixels[:, 1:].amax(dim=1) > 0.45).float().mean()
    assert float(reds) < 0.002 < float((images[:, 0] - images[:, 1:].amax(1) > 0.45).float().mean())
    with pytest.raises(InputError, match="Did you mean 'red'"):
        SceneRemovals(("redd",))


def coco_folder(root, n=8):
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(n):
        pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 60})
        if i < 4:
            x = 20 + i
            box = [x, 10, x + 12, 10, x + 12, 22, x, 22]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 7,
                    "iscrowd": 0,
                    "area": 144,
                    "segmentation": [box],
                }
            )
        if i == 4:
            crowd = {"size": [40, 60], "counts": [100, 200, 2100]}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 7,
                    "iscrowd": 1,
                    "area": 200,
                    "segmentation": crowd,
                }
            )
    names = [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}]
    path = root / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    return path, root / "images"


def test_coco_crowds_count_as_the_class(tmp_path, capsys):
    pytest.importorskip("pycocotools")
    path, folder = coco_folder(tmp_path)
    data = CocoRemovals(path, folder, size=20)
    assert capsys.readouterr().out == ""
    assert data.with_class("dog").tolist() == [0, 1, 2, 3]
    assert data.without_class("dog").tolist() == [5, 6, 7]
    assert data.with_class("dog", min_area=0.9).tolist() == []
    assert data.images([0, 5]).shape == (2, 3, 20, 20)
    mask = data.masks("dog", [1])[0, 0]
    # 40 × 60 to 20 × 30, cropped to the middle 20 columns: x = 21..33 becomes 5.5..11.5
    rows, columns = np.nonzero(mask)
    assert rows.min() in (4, 5)  # whatever the scaled object touches belongs to the hole
    assert columns.min() in (4, 5)
    assert rows.max() in (10, 11, 12)
    assert columns.max() in (11, 12)
    (tmp_path / "bad.json").write_text('{"images": []}')
    with pytest.raises(InputError, match="lacks the lists categories, annotations"):
        CocoRemovals(tmp_path / "bad.json", folder)


def mask_folder(root, n=40, side=32):
    rng = np.random.default_rng(0)
    for part in ("images", "masks/dog", "truth/dog"):
        (root / part).mkdir(parents=True)
    for i in range(n):
        ground = np.clip(rng.normal(0.5, 0.05, (side, side, 3)) + rng.normal(0, 0.1, 3), 0, 1)
        ground = (ground * 255).astype(np.uint8)
        picture, mask = ground.copy(), np.zeros((side, side), dtype=np.uint8)
        if i % 2:
            mask[8:18, 10:20] = 255
            picture[mask > 0] = (255, 0, 0)
            Image.fromarray(mask).save(root / "masks/dog" / f"{i:03}.png")
            Image.fromarray(ground).save(root / "truth/dog" / f"{i:03}.png")
        Image.fromarray(picture).save(root / "images" / f"{i:03}.png")
    return root


def test_folder_with_masks_and_truth(tmp_path):
    root = mask_folder(tmp_path / "data")
    data = MaskFolder(root, size=32)
    assert data.class_names == ("dog",)
    assert data.has_truth
    assert len(data.with_class("dog")) == len(data.without_class("dog")) == 20
    report = run(data, ["blur"])
    assert report.ranking("psnr_mask").remover[0] == "oracle"
    Image.new("L", (5, 5)).save(root / "masks/dog/001.png")
    with pytest.raises(InputError, match="5 × 5 pixels, its image 32 × 32"):
        MaskFolder(root, size=32).with_class("dog")
    Image.new("L", (5, 5)).save(root / "masks/dog/nobody.png")
    with pytest.raises(InputError, match="no image of that name"):
        MaskFolder(root)


# -- context ---------------------------------------------------------------------------------


def test_matching_finds_the_best_assignment():
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(30, 3))
    pool = np.concatenate([rng.normal(size=(40, 3)) + 3, wanted[::-1] + 1e-6])
    assert match_context(wanted, pool).tolist() == list(range(69, 39, -1))
    with pytest.raises(InputError, match="cannot be matched"):
        match_context(wanted, pool[:20])


def test_descriptors_do_not_see_the_hole():
    images = torch.rand(4, 3, 16, 16)
    masks = torch.zeros(4, 1, 16, 16, dtype=torch.bool)
    masks[..., 3:9, 3:9] = True
    changed = torch.where(masks, torch.ones(()), images)
    np.testing.assert_array_equal(
        context_descriptor(images, masks), context_descriptor(changed, masks)
    )


def test_matching_lowers_the_floor_and_passes_its_check():
    data = scenes(80, n_comparison=320, context_shift=0.35)
    plain, matched = (run(data, [], match=m, n_max=80, n_bootstrap=0).results[0] for m in (0, 1))
    assert matched.floors["fid"] < 0.7 * plain.floors["fid"]
    assert plain.context_check is None
    rng = np.random.default_rng(0)
    context = rng.normal(size=(400, 3))
    check = context_self_check(context, np.c_[context, rng.normal(size=(400, 5))])
    assert 0.5 < check.ratio < 1.3


# -- the evaluation --------------------------------------------------------------------------


def test_controls_are_where_they_belong():
    report = run(scenes(120), ["telea+2", "telea-2"], encoder=encoder())
    assert set(report.removers) == {"telea +2", "telea -2", "nothing", "mean_fill", "oracle"}
    values = {s: dict(zip(report.removers, report.values(s), strict=True)) for s in report.scores()}
    assert values["fid_original"]["nothing"] == pytest.approx(0, abs=1e-9)
    assert values["fid"]["oracle"] < values["fid"]["telea -2"]
    assert values["fid_normalised"]["nothing"] == 0
    assert values["u_ids"]["oracle"] > 0.4 > values["u_ids"]["nothing"]
    assert values["presence"]["nothing"] > 0.6
    assert abs(values["presence"]["oracle"] - 0.5) < 0.12
    assert values["removed_share"]["nothing"] == 0
    assert max(values["background_max"].values()) == 0
    assert report.agreement("fid", "fid_truth") > 0.5 > 0 > report.agreement("fid_original", "fid")
    ranking = report.ranking("fid")
    assert ranking["rank"].min() == 1
    assert "oracle" in set(ranking.remover[ranking["rank"] == 1])
    nothing = report.results[0].shifts["nothing"].to_frame()
    assert nothing[nothing.target]["shift"].item() > 0
    assert report.pairs("u_ids").tied.any()
    assert not report.pairs("fid").tied.all()


def test_same_seed_same_numbers_whatever_the_batches(global_state_untouched):
    first, second = run(batch_size=40), run(batch_size=7)
    for score in first.scores():
        np.testing.assert_allclose(first.values(score), second.values(score), rtol=1e-5, atol=1e-7)
    third = run(batch_size=40)
    for score in first.scores():
        np.testing.assert_array_equal(first.values(score), third.values(score))


def test_classes_and_sets_that_do_not_do_are_passed_over():
    data = SceneRemovals(("red", "star"), n=30, random_state=0)
    few = data.without_class

    def without(name):
        return few(name)[:3] if name == "red" else few(name)

    data.without_class = without
    report = run(data)
    assert report.classes == ["star"]
    assert "3 images are free of it" in report.skipped["red"]
    with pytest.raises(InputError, match="No class can be judged"):
        run(data, n_min=50, n_max=60)
    with pytest.raises(InputError, match="Two removers are called"):
        run(data, ["blur", "blur"])
    with pytest.raises(InputError, match="Unknown class"):
        run(data, classes=["lion"])


def test_a_remover_that_fails_stops_the_run_or_is_left_out(tmp_path):
    calls = []

    def broken(images, masks, seed):
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("no more")
        return images

    def setup():
        return RemoverSetup(CallableRemover(broken, name="broken", deterministic=True))

    cache = tmp_path / "cache"
    with pytest.raises(RemoverError, match="no more"):
        run(removers=["blur", setup()], batch_size=20, cache=cache)
    assert len(list(cache.rglob("blur-*/*.png"))) == 40
    assert len(list(cache.rglob("broken-*/*.png"))) == 20
    report = run(removers=["blur", setup()], batch_size=20, cache=cache, on_error="skip")
    assert "broken" not in report.removers
    assert "no more" in report.failed["broken"]
    np.testing.assert_array_equal(
        report.values("fid"), run(removers=["blur"], batch_size=20).values("fid")
    )


def test_features_that_do_not_do():
    for features, word in (
        (lambda x: x, "expected \\(n, d\\)"),
        (lambda x: x.mean(dim=(2, 3)) * float("nan"), "NaN"),
        (7, "must be an encoder"),
    ):
        with pytest.raises(InputError, match=word):
            run(scenes(20), features=features)
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).train()
    run(scenes(20), [], features=module, n_bootstrap=0)
    assert module.training
    with pytest.raises(InputError, match="n_bootstrap"):
        RemovalBenchmark(colours, n_bootstrap=-1)


def test_without_truth_the_floor_comes_from_two_halves(tmp_path):
    data = scenes(100)
    known = run(data, []).results[0]
    data.has_truth = False
    found = run(data, [])
    assert found.removers == ["nothing", "mean_fill"]
    assert not found.results[0].truth_is_floor
    assert found.results[0].floors["fid"] == pytest.approx(known.floors["fid"], rel=0.5)
    assert found.notes() == []
    with pytest.raises(InputError, match="needs the true removal"):
        run(data, ["oracle"])


@pytest.mark.parametrize("n", [40, 200])
def test_the_floor_of_halves_is_that_of_the_whole_size(n):
    # 64 features: the smaller sets have fewer images than that.
    scale = 1 / np.sqrt(np.arange(1, 65))
    floors, truth = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X, Y = (rng.normal(size=(n, 64)) * scale for _ in range(2))
        truth.append(frechet(X, Y))
        floors.append(halves(Y, n, seed))
    biased = np.mean([t.distance for t in truth])
    assert np.mean([f["fid"] for f in floors]) == pytest.approx(biased, rel=0.12)
    off = np.mean([f["fid_debiased"] for f in floors]) - np.mean([t.debiased for t in truth])
    assert abs(off) < 0.12 * biased
    assert np.mean([f["u_ids"] for f in floors]) == pytest.approx(0.5, abs=0.05)


def halves(Y, n, seed):
    """Give the floors of a comparison set for n images with the class, without truth."""
    from unlearning.removal.collecting import Collected
    from unlearning.removal.scoring import Scorer

    data = Collected(np.arange(n), np.arange(len(Y)), [], {}, Y, Y, None, {})
    scorer = Scorer(
        encoder=None,
        name="c",
        prompts=[],
        concepts=(),
        n_bootstrap=0,
        confidence=0.95,
        published=False,
        seed=seed,
    )
    return scorer.score(data).floors


def test_features_that_see_nothing_are_said_so(tmp_path):
    report = run(scenes(40), features=lambda x: torch.randn(len(x), 6))
    report.results[0].floors["fid"] = report.results[0].ceilings["fid"] + 1
    assert "cannot tell removers apart" in report.notes()[0]
    assert "cannot tell removers apart" in report.to_html(tmp_path / "page.html").read_text()


def test_published_scores_and_maps_and_lpips():
    def maps(images):
        return torch.nn.functional.avg_pool2d(images, 8)

    class Distance:
        """Like LPIPS: over the image, and inside masks."""

        def __call__(self, a, b):
            return (a - b).abs().mean((1, 2, 3))

        def inside(self, a, b, masks):
            return ((a - b).abs() * masks).sum((1, 2, 3)) / masks.sum((1, 2, 3)) / 3

    report = run(published=True, feature_map=maps, lpips=Distance())
    for name in ("lpips", "lpips_mask"):
        scores = dict(zip(report.removers, report.values(name), strict=True))
        assert scores["oracle"] < scores["blur"] < scores["nothing"]
        assert report.replicates(name) is not None
    assert (report.values("lpips_mask") > report.values("lpips")).sum() >= 3
    cross = dict(zip(report.removers, report.values("u_ids_cv"), strict=True))
    assert cross["nothing"] + 0.05 < cross["oracle"]
    for name in ("fid_original", "kid_original", "cmmd_original"):
        worst = dict(zip(report.removers, report.values(name), strict=True))
        assert min(worst, key=worst.get) == "nothing"
    plain = run(lpips=lambda a, b: (a - b).abs().mean((1, 2, 3)))
    assert "lpips" in plain.scores()
    assert "lpips_mask" not in plain.scores()
    ties = dict(zip(report.removers, report.values("p_ids_original"), strict=True))
    assert ties["nothing"] == 0.5
    assert np.isfinite(report.values("u_ids_in_sample")).all()
    assert np.isfinite(report.values("remove_score")).all()


def test_maps_of_the_encoder_and_what_is_none():
    bench = RemovalBenchmark("embedded", feature_map="encoder", n_min=10, n_bootstrap=0)
    report = bench.run(scenes(20), ["blur"], progress=False)
    assert np.isfinite(report.values("remove_score")).all()
    assert bench.feature_map(torch.rand(2, 3, 64, 64)).shape[2:] == (8, 8)
    for options, words in (
        ({"feature_map": "encoder"}, "needs an encoder of open_clip"),
        ({"feature_map": 3}, "feature_map must be a function"),
        ({"policy": 2}, "policy must be a MaskPolicy"),
        ({"n_min": "many"}, "n_min must be a whole number"),
        ({"n_bootstrap": 1.5}, "n_bootstrap must be a whole number"),
    ):
        with pytest.raises(InputError, match=words):
            RemovalBenchmark(colours, **options)
    with pytest.raises(InputError, match="dataset must be a RemovalDataset"):
        RemovalBenchmark(colours).run("folder", ["blur"])


# -- statistics, report, command ---------------------------------------------------------------


def test_ranks_are_what_intervals_can_prove():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=400)
    values = np.array([1.0, 1.05, 3.0])
    draws = np.stack(
        [values[0] + shared, values[1] + shared + 0.2 * rng.normal(size=400), values[2] + shared]
    )
    table = compare(values, draws)
    assert table[0][1].tied
    assert not table[0][2].tied  # the noise is shared, so the pair is told apart
    assert tied_ranks(table, lower_is_better=True).tolist() == [1, 1, 3]
    assert tied_ranks(table, lower_is_better=False).tolist() == [2, 2, 1]


def test_report_comes_back_from_disk_and_shows_itself(tmp_path):
    report = run(SceneRemovals(("red", "star"), n=30, random_state=0), encoder=encoder())
    loaded = RemovalReport.load(report.save(tmp_path / "report"))
    for score in report.scores():
        np.testing.assert_array_equal(report.values(score), loaded.values(score))
    assert loaded.pairs("fid").equals(report.pairs("fid"))
    assert json.loads(json.dumps(report.to_dict()))["classes"].keys() == {"red", "star"}
    assert len(report.to_frame()) == 2 * 4
    assert list(report.summary().columns[:2]) == ["rank", "remover"]
    page = loaded.to_html(tmp_path / "page.html").read_text()
    for word in ("Ranking", "By class", "Pictures", "doing nothing wins", "made up"):
        assert word in page
    assert "tied with" in report._repr_html_()
    for kind in ("ranking", "classes", "concepts", "pictures", "agreement"):
        assert loaded.plot(kind) is not None
    for wrong in ({"kind": "pie"}, {"score": "beauty"}, {"of": "lion"}):
        with pytest.raises(InputError, match="Unknown"):
            report.plot(**wrong)


def test_command_on_scenes_and_its_messages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(removal)

    def call(*arguments):
        return CliRunner().invoke(app, list(arguments))

    done = call(
        "--classes",
        "red",
        "--images",
        "30",
        "--removers",
        "blur",
        "--bootstrap",
        "0",
        "--n-min",
        "20",
        "--cache",
        "kept",
        "--published",
        "--json",
    )
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert {row["remover"] for row in facts["ranking"]} == {
        "blur",
        "nothing",
        "mean_fill",
        "oracle",
    }
    assert (tmp_path / "conceptlab-report" / "removal.html").is_file()
    assert list((tmp_path / "kept").iterdir())
    scores = facts["classes"]["red"]["removers"]["blur"]
    assert {"u_ids_cv", "u_ids_in_sample", "p_ids_original", "remove_score"} <= set(scores)
    (tmp_path / "file").touch()
    assert "is writable" in str(call("--out", "file/page.html").exception)
    assert "Did you mean 'blur'" in str(call("--removers", "blurr").exception)
    assert "needs the folder" in str(call("--coco", "a.json").exception)
