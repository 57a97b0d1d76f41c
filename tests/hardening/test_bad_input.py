"""Every bad input that the design and the plans of the stations name, and what is answered.

One line each: who is asked, with what, the words and the code of the answer. The edges of each
have tests of their own beside the code; here it is seen that none is without an answer.
"""

import inspect

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn
from toy_gan import FAMILIES, toy_gan, toy_guide
from unlearning_world import net, request, small, trained
from word_encoder import WordEncoder

from bottlenecks import PostHocCBM, SparseLinearHead
from conceptlab import CRAFT, ConceptBank, NMFConcepts, SplitModel
from conceptlab.datasets.folder import load_image_folder
from conceptlab.datasets.images import as_image_batch
from conceptlab.encoders.dependencies import import_package
from conceptlab.errors import ConceptlabError
from conceptlab.importance import SobolImportance
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.maps import concept_maps
from conceptlab.models.load import load_state_dict
from conceptlab.vocabulary import ClassConcepts, read_concepts, synthesize
from conceptlab.zeroshot import BayesianZeroShot, pool
from unlearning import audit, split_classes
from unlearning.gan import Generator, TextToUnlearn
from unlearning.removal import (
    MaskFolder,
    RemovalBenchmark,
    RemoverSetup,
    SceneRemovals,
    frechet_distance,
    psnr,
)
from unlearning.removal.removers import CallableRemover

pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(0)
X = RNG.random((12, 5))
MANY, Y = RNG.random((60, 5)), np.arange(60) % 3
IMAGES = RNG.random((4, 3, 16, 16)).astype(np.float32)
LETTERS = list("abcde")


def put(array, at, value):
    array = array.copy()
    array[at] = value
    return array


# ------------------------------------------------------------------------ find, explain
def split(at="0", **options):
    body = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return SplitModel(nn.Sequential(*body, nn.Flatten(), nn.Linear(6, 3)), at=at, **options)


class Other(nn.Module):
    """A layer that runs twice, one that never runs, one with a way round it."""

    def __init__(self):
        super().__init__()
        self.twice, self.never, self.round = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        x = self.twice(torch.relu(self.twice(x)))
        return self.out(self.round(x)) + float(x.detach().numpy().sum())


class Answers(nn.Module):
    """A classifier that gives its scores in something else than a tensor."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = net(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


def bank(**options):
    return ConceptBank(np.eye(5) + 0.1, LETTERS, **{"space": None, **options})


FIND = {
    "NaN: its first position": (
        lambda: NMFConcepts(2).fit(put(X, (3, 2), np.nan)),
        r"contains NaN.*first at index \(3, 2\).*Remove those rows", "CL-INPUT-NONFINITE"),
    "infinity in images": (
        lambda: as_image_batch(put(IMAGES, (1, 2, 3, 4), np.inf)),
        r"contains infinity.*first at index \(1, 2, 3, 4\)", "CL-INPUT-NONFINITE"),
    "negative activations to NMF": (
        lambda: NMFConcepts(2).fit(put(X, (3, 2), -1)), "smallest is -1.*or SemiNMF",
        "CL-INPUT-NEGATIVE"),
    "wrong rank": (
        lambda: NMFConcepts(2).fit(X[0]), "Expected 2D array, got 1D.*Give a matrix",
        "CL-INPUT-RANK"),
    "wrong rank of a tensor": (
        lambda: NMFConcepts(2).fit(torch.ones(3)), "shape .3.*X.reshape", "CL-INPUT-RANK"),
    "wrong rank of images": (
        lambda: as_image_batch(IMAGES[0, 0]), r"got shape \(16, 16\).*grey", "CL-INPUT-RANK"),
    "NHWC for NCHW": (
        lambda: as_image_batch(IMAGES.transpose(0, 2, 3, 1)),
        r"NHWC.*images.transpose\(0, 3, 1, 2\)", "CL-INPUT-LAYOUT"),
    "4 channels": (
        lambda: as_image_batch(np.concatenate([IMAGES, IMAGES[:, :1]], 1)),
        r"alpha channel: drop it with images\[:, :3\]", "CL-INPUT-LAYOUT"),
    "float images in 0-255": (
        lambda: as_image_batch(IMAGES * 255), "bytes stored as floats: divide by 255",
        "CL-INPUT-RANGE"),
    "empty list": (lambda: as_image_batch([]), "images is empty", "CL-INPUT-EMPTY"),
    "empty folder": (
        lambda tmp_path: load_image_folder(tmp_path), "holds no images. Looked for",
        "CL-INPUT-EMPTY"),
    "one sample": (lambda: NMFConcepts(2).fit(X[:1]), "1 sample.*Give more rows", "CL-INPUT-FEW"),
    "n_concepts too large": (
        lambda: NMFConcepts(9).fit(X), "cannot find 9 concepts.*Set n_concepts=5",
        "CL-INPUT-MANY"),
    "wrong feature count": (
        lambda: NMFConcepts(2, random_state=0).fit(X).transform(X[:, :3]),
        "3 features.*expecting 5.*same layer or encoder", "CL-INPUT-FEATURES"),
    "a bank from another encoder": (
        lambda: bank(space="x").merge(ConceptBank(np.eye(5), list("fghij"), space="y")),
        "vectors of two encoders", "CL-SPACE-MISMATCH"),
    "duplicate names": (
        lambda: ConceptBank(np.eye(3), ["a", "b", "a"], space=None), r"more than once: \['a'\]",
        "CL-INPUT-NAMES"),
    "empty names": (
        lambda: ConceptBank(np.eye(3), ["a", " ", "c"], space=None),
        r"not be empty; those at \[1\]", "CL-INPUT-NAMES"),
    "zero vectors": (
        lambda: ConceptBank(np.diag([1.0, 0, 1]), ["a", "b", "c"], space=None),
        r"length zero: \['b'\]", "CL-INPUT-ZERO"),
    "text over the context length": (
        lambda: WordEncoder(context=4).encode_text(["one two three four five"]),
        "longer than the 4 tokens.*truncate=True", "CL-INPUT-TEXT"),
    "unknown layer: the nearest": (
        lambda: SplitModel(trained(), at="poool"), "no layer 'poool'. Did you mean 'pool'",
        "CL-SPLIT-LAYER"),
    "layer that runs twice": (
        lambda: SplitModel(Other(), at="twice").check(torch.ones(2, 4)), "runs 2 times in one pass",
        "CL-SPLIT-RUNS"),
    "layer that never runs": (
        lambda: SplitModel(Other(), at="never").g(torch.ones(2, 4)), "does not run in a pass",
        "CL-SPLIT-RUNS"),
    "h(g(x)) is not f(x)": (
        lambda: SplitModel(Other(), at="out").check(torch.rand(2, 4)), r"h\(g\(x\)\) differs",
        "CL-SPLIT-MISMATCH"),
    "model returning a tuple": (
        lambda: SplitModel(Answers(lambda y: (y, y)), at="net.conv").f(request()["forget"][0]),
        "tuple.*output=", "CL-SPLIT-OUTPUT"),
    "model returning a dict": (
        lambda: SplitModel(Answers(lambda y: {"a": y, "b": y}), at="net.conv").f(
            request()["forget"][0]), "output=", "CL-SPLIT-OUTPUT"),
    "target out of range": (
        lambda: CRAFT(split(), 2, patch_size=8).fit(IMAGES, target=7),
        "target 7 is out of range.*0 to 2", "CL-INPUT-TARGET"),
    "device absent": (
        lambda: split(device="cuda:99"), "cuda:99.*Use device='auto'", "CL-INPUT-DEVICE"),
    "truncated or edited files": (
        lambda tmp_path: _edited(tmp_path), "was changed or truncated", "CL-CHECKPOINT-DAMAGED"),
    "newer files": (
        lambda tmp_path: _newer(tmp_path), "format version 99.*pip install -U",
        "CL-CHECKPOINT-NEWER"),
    "pickled files": (
        lambda tmp_path: _pickled(tmp_path), "cannot be read as weights", "CL-CHECKPOINT-UNSAFE"),
    "missing optional package": (
        lambda: import_package("nothing_of_the_kind", "nothing-of-the-kind"),
        "pip install nothing-of-the-kind", "CL-DEPENDENCY-MISSING"),
    "broken optional package": (
        lambda tmp_path, monkeypatch: _broken(tmp_path, monkeypatch),
        "installed but cannot be imported: RuntimeError: built for another torch",
        "CL-DEPENDENCY-BROKEN"),
    "unknown method name: the nearest": (
        lambda: pool(np.ones((2, 3)), rule="trimm"), "Did you mean 'trim'", "CL-INPUT-OPTION"),
    "unknown option": (
        lambda: SobolImportance(estimator="jansenn")(lambda U: U, np.ones((2, 3)), target=0),
        "Did you mean 'jansen'", "CL-INPUT-OPTION"),
    "unknown method of maps": (
        lambda: concept_maps(split(), NMFConcepts(2, random_state=0).fit(MANY), IMAGES,
                             method="upsampel"), "Did you mean 'upsample'", "CL-INPUT-OPTION"),
}  # fmt: skip


def _edited(folder):
    bank().save(folder / "bank")
    path = folder / "bank" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    ConceptBank.load(folder / "bank")


def _newer(folder):
    write_bundle(folder / "x", Bundle("A", {}, {}))
    path = folder / "x" / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    read_bundle(folder / "x", "A")


def _pickled(folder):
    torch.save({"weight": nn.Linear(2, 2)}, folder / "x.pt")
    load_state_dict(folder / "x.pt")


def _broken(folder, monkeypatch):
    (folder / "broken_package.py").write_text("raise RuntimeError('built for another torch')")
    monkeypatch.syspath_prepend(str(folder))
    import_package("broken_package", "broken-package")


# ------------------------------------------------------------------------------ classify
def bottleneck():
    return PostHocCBM(bank(), nec=2).fit(MANY, Y)


def zero_shot(texts, encoder=None, **options):
    return BayesianZeroShot(texts, encoder=encoder or WordEncoder(), **options).fit()


def made(generate, **options):
    return synthesize(
        ["frog", "newt"], generate, WordEncoder(), n_concepts=1, max_rounds=1, retry_wait=0,
        progress=False, **options,
    )  # fmt: skip


def malformed(folder):
    (folder / "x.json").write_text('{"frog": ["a",}')
    read_concepts(folder / "x.json")


def half_written(folder):
    """A generator that raises leaves the checkpoint of the rounds before, whole."""
    answers = iter([["green skin", "wet skin"]])
    try:
        synthesize(
            ["frog", "newt"], lambda prompts: next(answers), WordEncoder(), n_concepts=3,
            max_rounds=3, retry_wait=0, checkpoint=folder / "x.json", random_state=0,
            progress=False,
        )  # fmt: skip
    finally:
        import json

        assert json.loads((folder / "x.json").read_text())["state"]["rounds"] == 1
        assert len(list(folder.iterdir())) == 1


TWO = {"frog": ["green"], "newt": ["tail"]}
CLASSIFY = {
    "concept missing from the bank": (
        lambda: bottleneck().intervene(MANY[:2], {"z": 1.0}), "Unknown concept 'z'",
        "CL-INPUT-OPTION"),
    "labels with one class": (
        lambda: SparseLinearHead(nec=1).fit(X, np.zeros(12)), "got 1 class", "CL-INPUT-FEW"),
    "labels misfit": (
        lambda: SparseLinearHead(nec=1).fit(X, np.arange(11) % 2),
        r"\[12, 11\]. Give one label", "CL-INPUT-LABELS"),
    "constant concept column": (
        lambda: SparseLinearHead(nec=1).fit(put(MANY, (slice(None), 1), 1.0), Y),
        "Column 1 of X is constant.*constant='ignore'", "CL-INPUT-ZERO"),
    "NaN to a bottleneck": (
        lambda: bottleneck().predict(put(MANY, (0, 0), np.nan)), r"NaN.*index \(0, 0\)",
        "CL-INPUT-NONFINITE"),
    "bank of another encoder": (
        lambda: PostHocCBM(bank(space="x"), nec=1).fit(MANY, Y, space="y"), "of space x.*y",
        "CL-SPACE-MISMATCH"),
    "lam below 0": (
        lambda: SparseLinearHead(lam=-1).fit(MANY, Y), "lam must be.*got -1", "CL-INPUT-RANGE"),
    "nec above the number of concepts": (
        lambda: SparseLinearHead(nec=9).fit(MANY, Y), "nec=9.*at most 5", "CL-INPUT-MANY"),
    "class with no concepts": (
        lambda: zero_shot({**TWO, "toad": []}), "1 of 3 classes have no concepts: 'toad'",
        "CL-INPUT-EMPTY"),
    "one class": (lambda: zero_shot({"frog": ["a"]}), "at least two classes", "CL-INPUT-FEW"),
    "NaN rows": (
        lambda: zero_shot(TWO).predict(np.full((1, 64), np.nan)), r"NaN.*index \(0, 0\)",
        "CL-INPUT-NONFINITE"),
    "concept over the context length": (
        lambda: zero_shot({**TWO, "toad": ["warts " * 9]}, WordEncoder(context=12)),
        "longer than the 12 tokens", "CL-INPUT-TEXT"),
    "generator that returns rubbish": (
        lambda: made(lambda prompts: ["!!!"] * 2), "rejected: answer without concepts 2",
        "CL-GENERATOR-FAILED"),
    "generator that returns no texts": (
        lambda: made(lambda prompts: 7), "a list of 2 texts.*got int", "CL-GENERATOR-FAILED"),
    "generator that raises": (
        lambda: made(lambda prompts: 1 / 0), "3 times running: ZeroDivisionError",
        "CL-GENERATOR-FAILED"),
    "nothing half-written": (
        half_written, "raised in round 2.*rounds before are kept", "CL-GENERATOR-FAILED"),
    "malformed JSON": (malformed, "no JSON.*line 1, column 15", "CL-INPUT-FILE"),
    "encoder mismatch": (
        lambda: zero_shot(ClassConcepts(TWO).embed(WordEncoder(fingerprint="other"))),
        "made by another encoder.*concepts.embed", "CL-SPACE-MISMATCH"),
}  # fmt: skip


# -------------------------------------------------------------------------------- forget
def forget(model=None, **data):
    return small("FineTune").unlearn(model or trained(), **{**request(), **data})


def kept(rows):
    images, labels = request()["retain"]
    return images[rows(labels)], labels[rows(labels)]


def audited(**options):
    return audit.audit(
        trained(), trained(), forget=request()["forget"], retain=request()["retain"],
        test=request()["valid"], relearn=False, bits=(), **options,
    )  # fmt: skip


FORGET = {
    "forget and retain overlap": (
        lambda: forget(retain=request()["forget"]), "24 samples are in both", "CL-INPUT-LABELS"),
    "empty forget set": (
        lambda: forget(forget=tuple(part[:0] for part in request()["forget"])),
        "`forget` is empty", "CL-INPUT-EMPTY"),
    "forget class absent": (
        lambda: split_classes(request()["retain"], 1), "Class 1 is not in `data`",
        "CL-INPUT-LABELS"),
    "one retained class": (
        lambda: forget(retain=kept(lambda y: y == 0)), "holds one class", "CL-INPUT-FEW"),
    "model that returns no logits: dict": (
        lambda: forget(Answers(lambda y: {"score": y})), "must return logits.*returned dict",
        "CL-SPLIT-OUTPUT"),
    "model that returns no logits: maps": (
        lambda: forget(nn.Sequential(net().conv)), r"a tensor of shape \(2, 6, 8, 8\)",
        "CL-SPLIT-OUTPUT"),
    "model without parameters": (
        lambda: forget(nn.Flatten()), "Flatten has no parameters", "CL-INPUT-TYPE"),
    "labels out of range": (
        lambda: forget(retain=(request()["retain"][0], request()["retain"][1] + 9)),
        "0 to 3, got 9 to 12", "CL-INPUT-LABELS"),
    "retrained with another number of classes": (
        lambda: audited(retrained=[net(classes=7)]), "`retrained` has 7 classes, the original 4",
        "CL-INPUT-SHAPE"),
}  # fmt: skip


# ------------------------------------------------------------------- removal, generators
PHOTOS = torch.from_numpy(IMAGES[:2, :, :8, :8])
HOLES = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
HOLES[:, :, 2:4, 2:4] = True


def remove(function=lambda images, masks, seed: images, images=PHOTOS, masks=HOLES):
    return RemoverSetup(CallableRemover(function, name="r")).run(images, masks)


def judged(features=lambda x: x.mean(dim=(2, 3)), data=None, **options):
    settings = {"n_min": 8, "n_bootstrap": 0, "random_state": 0, **options}
    data = data or SceneRemovals(("star",), n=12, size=32, random_state=0)
    grey = CallableRemover(lambda images, masks, seed: images * 0 + 0.5, name="grey")
    return RemovalBenchmark(features, **settings).run(data, [grey], progress=False)


def every_image_shows_it(folder):
    from PIL import Image

    (folder / "images").mkdir()
    (folder / "masks" / "dog").mkdir(parents=True)
    for i in range(12):
        Image.fromarray(RNG.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
            folder / "images" / f"{i}.png"
        )
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[8:20, 8:20] = 255
        Image.fromarray(mask).save(folder / "masks" / "dog" / f"{i}.png")
    return judged(data=MaskFolder(folder, size=32))


def in_a_generator(target="red", module=None, **options):
    settings = {"retain": FAMILIES, "random_state": 0, "steps": 2, "mapper_steps": 1,
                "n_survey": 60, "fold_steps": 5, "batch_size": 8, **options}  # fmt: skip
    return TextToUnlearn(toy_guide(), target, **settings).unlearn(module or toy_gan(200))


GENERATE = {
    "masks of another size": (
        lambda: remove(masks=HOLES[:, :, :4]), r"of \(4, 8\) pixels, the images 2 of \(8, 8\)",
        "CL-INPUT-SHAPE"),
    "empty mask": (lambda: remove(masks=HOLES & False), "number 0 is empty", "CL-INPUT-EMPTY"),
    "mask covering everything": (
        lambda: remove(masks=HOLES | True), "covers the whole picture", "CL-INPUT-EMPTY"),
    "images without the class": (
        lambda: judged(n_min=500, n_max=600), "12 images hold it.*and 500 are needed",
        "CL-INPUT-FEW"),
    "class without class-free images": (
        every_image_shows_it, "No class can be judged. dog", "CL-INPUT-FEW"),
    "one image": (
        lambda: frechet_distance(RNG.normal(size=(1, 9)), RNG.normal(size=(4, 9))),
        r"1 row\(s\); a covariance needs at least 2", "CL-INPUT-FEW"),
    "NaN features": (
        lambda: frechet_distance(np.full((4, 2), np.nan), np.eye(2)), "NaN", "CL-INPUT-NONFINITE"),
    "bytes given as floats": (
        lambda: psnr(PHOTOS * 255, PHOTOS), "divide by 255", "CL-INPUT-RANGE"),
    "remover with another shape": (
        lambda: remove(lambda images, masks, seed: images[:, :, :4]),
        r"gave shape \(1, 3, 4, 8\).*expected \(1, 3, 8, 8\)", "CL-REMOVER-FAILED"),
    "remover with another range": (
        lambda: remove(lambda images, masks, seed: images * 255), "Divide by 255",
        "CL-REMOVER-FAILED"),
    "remover that raises": (
        lambda: remove(lambda images, masks, seed: 1 / 0), "raised ZeroDivisionError",
        "CL-REMOVER-FAILED"),
    "outputs out of the declared range": (
        lambda: in_a_generator(module=Generator(toy_gan(2), output_range=(0, 0.1))),
        r"output_range is \(0.0, 0.1\), but the pixels lie", "CL-INPUT-RANGE"),
    "target that the encoder cannot tell": (
        lambda: in_a_generator("crimson"), "cannot tell 'crimson' from the anchor",
        "CL-INPUT-TARGET"),
    "target that the generator never makes": (
        lambda: in_a_generator("green dark", min_share=0.9), "there is nothing to forget",
        "CL-INPUT-TARGET"),
    "unknown layer of a generator": (
        lambda: in_a_generator(layers="nolayer"), "Unknown choice of layers 'nolayer'",
        "CL-INPUT-OPTION"),
    "latent shape mismatch": (
        lambda: in_a_generator(module=Generator(toy_gan(2), latent=9)),
        r"cannot take latents of shape \(8, 9\)", "CL-INPUT-SHAPE"),
}  # fmt: skip

CASES = {**FIND, **CLASSIFY, **FORGET, **GENERATE}


@pytest.mark.parametrize("what", CASES)
def test_answer(what, tmp_path, monkeypatch):
    call, words, code = CASES[what]
    known = {"tmp_path": tmp_path, "folder": tmp_path, "monkeypatch": monkeypatch}
    given = {name: known[name] for name in inspect.signature(call).parameters}
    with pytest.raises(ConceptlabError, match=f"(?s){words}") as caught:
        call(**given)
    assert caught.value.code == code
    assert str(caught.value).endswith(f"[{code}]")


@pytest.mark.parametrize("estimator", [
    NMFConcepts(2), CRAFT(split(), 2), PostHocCBM(bank()), SparseLinearHead(nec=1),
    BayesianZeroShot(TWO),
], ids=lambda estimator: type(estimator).__name__)  # fmt: skip
def test_unfitted(estimator):
    """The exception of scikit-learn, as its contract asks; it says what to call."""
    ask = getattr(estimator, "predict", None) or estimator.transform
    with pytest.raises(NotFittedError, match="is not fitted yet. Call 'fit'"):
        ask(IMAGES if isinstance(estimator, CRAFT) else X)


# ----------------------------------------------------- answered, but not by an error
def test_an_intervention_outside_the_observed_range_is_flagged():
    with pytest.warns(UserWarning, match="outside of the activations seen in the fit, for .'a'"):
        found = bottleneck().intervene(MANY[:2], {"a": 1e6})
    assert found.outside["a"] == 2 if isinstance(found.outside, dict) else np.any(found.outside)


def test_one_concept_a_class_and_equal_concepts_classify():
    assert zero_shot(TWO).predict_proba(np.eye(64)[:2]).shape == (2, 2)
    with np.errstate(all="raise"):
        equal = BayesianZeroShot(np.ones((2, 3, 64))).fit()
        np.testing.assert_allclose(equal.predict_proba(np.eye(64)[:2]), 0.5)


def test_a_loss_that_becomes_nan_is_rewound():
    model = trained()
    found = small("FineTune", lr=1e30).unlearn(model, **request())
    assert found.stopped == "nan: rewound"
    for name, value in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)


def test_constant_features_are_told_of():
    notes = judged(features=lambda x: torch.ones(len(x), 3)).notes()
    assert any("cannot tell removers apart" in note for note in notes)


def test_fewer_images_than_features_and_half_precision():
    a, b = RNG.normal(size=(2, 40, 3))
    assert frechet_distance(a[:4].repeat(3, 1), b[:4].repeat(3, 1)) >= 0
    half = frechet_distance(a.astype(np.float16), b.astype(np.float16))
    assert half == pytest.approx(frechet_distance(a, b), rel=0.05)
