"""The contract of encoders: kinds, batches, threads, models left alone, names, errors."""

import copy
import functools
import pickle
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from conceptlab.datasets.resize import Fit
from conceptlab.encoders import (
    BaseEncoder,
    CallableEncoder,
    EncodeImages,
    Encoder,
    OpenClipEncoder,
    Preprocess,
    load_encoder,
    register_encoder,
)
from conceptlab.encoders.dependencies import import_package
from conceptlab.encoders.registry import _FACTORIES
from conceptlab.errors import CheckpointError, DependencyError, InputError


class Towers(nn.Module):
    """Small, with batch statistics and dropout, so that training mode would show."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 6),
        )
        self.words = nn.Embedding(128, 6)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.context_length = 10

    def encode_image(self, images):
        return self.net(images)

    def encode_text(self, tokens):
        return self.words(tokens).mean(dim=1)


class Letters:
    """A tokenizer: a letter is a token."""

    context_length = 10
    eot_token_id = 2

    def encode(self, text):
        return [min(ord(c), 127) for c in text]

    def __call__(self, texts):
        rows = [[1, *self.encode(t)[: self.context_length - 2], 2] for t in texts]
        return torch.tensor([row + [0] * (self.context_length - len(row)) for row in rows])


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Towers()


@pytest.fixture
def encoder(model):
    return OpenClipEncoder(model, Letters(), preprocess=Preprocess(Fit(16, 16)), name="small")


@pytest.fixture
def images():
    return np.random.default_rng(0).random((9, 3, 16, 16), dtype=np.float32)


def test_like_in_like_out(encoder, images):
    expected = encoder.encode_image(images)
    assert isinstance(encoder, Encoder)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-6)
    assert encoder.encode_image(images.astype(np.float64)).dtype == np.float64
    assert encoder.encode_image((images * 255).astype(np.uint8)).dtype == np.float32
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        found = encoder.encode_image(torch.from_numpy(images).to(dtype))
        assert found.dtype == dtype
        low = dtype in (torch.bfloat16, torch.float16)
        np.testing.assert_allclose(found.float(), expected, atol=0.02 if low else 1e-6)
    listed = encoder.encode_image(list(torch.from_numpy(images)))
    assert isinstance(listed, torch.Tensor)
    pictures = [Image.fromarray((i.transpose(1, 2, 0) * 255).astype(np.uint8)) for i in images]
    assert isinstance(encoder.encode_image(pictures), np.ndarray)
    assert isinstance(encoder.encode_text(["a"]), np.ndarray)
    assert isinstance(encoder.encode_text(["a"], as_tensor=True), torch.Tensor)


def test_batches_do_not_matter(encoder, images):
    expected = encoder.encode_image(images)
    for size in (1, 2, 4, 100, "auto"):
        np.testing.assert_allclose(
            encoder.encode_image(images, batch_size=size), expected, atol=1e-5
        )
    alone = np.concatenate([encoder.encode_image(images[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    texts = [f"text {i}" for i in range(9)]
    np.testing.assert_allclose(
        encoder.encode_text(texts, batch_size=2), encoder.encode_text(texts), atol=1e-6
    )


def test_the_model_stays_as_it_was(model, images, global_state_untouched):
    model.train()
    model.net[0].eval()
    hook = model.net[0].register_forward_hook(lambda *_: None)
    before = copy.deepcopy(model.state_dict())
    encoder = OpenClipEncoder(model, Letters(), preprocess=Preprocess(Fit(16, 16)))
    eval_features = encoder.encode_image(images)
    batch = torch.from_numpy(images).requires_grad_()
    encoder.embed_image(batch)[:, 0].sum().backward()
    with pytest.raises(InputError):
        encoder.encode_image(images * np.nan)
    assert model.training
    assert not model.net[0].training
    assert model.net[1].training
    assert len(model.net[0]._forward_hooks) == 1
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert batch.grad.abs().sum() > 0
    hook.remove()
    with torch.no_grad():
        expected = nn.functional.normalize(copy.deepcopy(model).eval().net(batch.detach()))
    np.testing.assert_allclose(eval_features, expected, atol=1e-6)


def test_embed_image_is_encode_image_with_gradients(encoder, images):
    batch = torch.from_numpy(np.repeat(np.repeat(images, 2, 2), 3, 3)).requires_grad_()
    found = encoder.embed_image(batch)
    np.testing.assert_allclose(found.detach(), encoder.encode_image(batch.detach()), atol=1e-6)
    with pytest.raises(InputError, match="takes a tensor"):
        encoder.embed_image(images)


def test_fingerprint_follows_weights_preprocessing_and_tokenizer(model, encoder):
    first = encoder.fingerprint
    assert len(first) == 64
    assert (
        OpenClipEncoder(
            model, Letters(), preprocess=Preprocess(Fit(16, 16)), name="x", precision="bfloat16"
        ).fingerprint
        == first
    )
    other = OpenClipEncoder(model, Letters(), preprocess=Preprocess(Fit(16, 16, "squash")))
    assert other.fingerprint != first
    with torch.no_grad():
        model.net[0].weight.add_(1e-6)
    assert encoder.fingerprint != first


def test_eight_threads_agree(encoder, images):
    expected = encoder.encode_image(images)
    results, errors = [None] * 8, []

    def work(index):
        try:
            for _ in range(5):
                results[index] = encoder.encode_image(images, batch_size=1 + index)
                encoder.encode_text(["a", "b"])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for result in results:
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_copies_and_clones(encoder, images):
    expected = encoder.encode_image(images)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert other.fingerprint == encoder.fingerprint
        np.testing.assert_array_equal(other.encode_image(images), expected)
    assert clone(encoder, safe=False) is encoder
    step = EncodeImages(encoder, batch_size=2)
    assert clone(step).encoder is encoder


def test_bfloat16_is_near(model, encoder, images):
    short = OpenClipEncoder(
        model, Letters(), preprocess=Preprocess(Fit(16, 16)), precision="bfloat16"
    )
    found = short.encode_image(images)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - encoder.encode_image(images)).max() < 0.03


def test_texts(encoder):
    assert encoder.encode_text("cat").shape == (1, 6)
    with pytest.raises(InputError, match="texts is empty"):
        encoder.encode_text([])
    with pytest.raises(InputError, match=r"texts\[1\] is a int"):
        encoder.encode_text(["a", 3])
    with pytest.raises(InputError, match=r"1 of these 2.*10 tokens.*'a longer text' has 15") as e:
        encoder.encode_text(["ok", "a longer text"])
    assert e.value.code == "CL-INPUT-TEXT"
    assert encoder.encode_text(["a longer text"], truncate=True).shape == (1, 6)
    assert encoder.encode_text(["{}", "{a}"], templates="x{}").shape == (2, 6)
    with pytest.raises(InputError, match="Did you mean 'photo' or 'photos'"):
        encoder.encode_text(["a"], templates="foto")
    with pytest.raises(InputError, match="exactly once"):
        encoder.encode_text(["a"], templates=["no place", "{}"])


def test_bad_arguments(encoder, images, model):
    for size in (0, -1, 2.5, "many", True):
        with pytest.raises(InputError, match="batch_size"):
            encoder.encode_image(images, batch_size=size)
    with pytest.raises(InputError, match="Did you mean 'bfloat16'"):
        OpenClipEncoder(model, Letters(), preprocess=Preprocess(None), precision="bf16")
    with pytest.raises(InputError, match="how images are prepared"):
        OpenClipEncoder(model, Letters())
    with pytest.raises(InputError, match="no model of open_clip"):
        OpenClipEncoder(nn.Linear(2, 2), Letters())


def test_memory_that_runs_out_halves_the_batch(model, images):
    sizes = []

    class Hungry(Towers):
        def encode_image(self, batch):
            sizes.append(len(batch))
            if len(batch) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return super().encode_image(batch)

    hungry = Hungry()
    hungry.load_state_dict(model.state_dict())
    encoder = OpenClipEncoder(hungry, Letters(), preprocess=Preprocess(Fit(16, 16)))
    small = OpenClipEncoder(model, Letters(), preprocess=Preprocess(Fit(16, 16)))
    found = encoder.encode_image(images)
    np.testing.assert_allclose(found, small.encode_image(images), atol=1e-5)
    # After the first that fitted, its ends alone: whether their vectors depend on the batch.
    assert sizes == [9, 4, 2, 1, 1, 2, 2, 2, 1]
    sizes.clear()
    encoder.encode_image(images)
    assert max(sizes) == 2
    with pytest.raises(torch.OutOfMemoryError):
        encoder.encode_image(images, batch_size=3)


def test_callables(model, images):
    model.train()
    ways = {
        "module": model.net,
        "method": model.encode_image,
        "closure": (lambda net: lambda x: net(x))(model.net),
        "numpy": lambda x: model.net(x).detach().numpy(),
    }
    expected = copy.deepcopy(model).eval().net(torch.from_numpy(images)).detach()
    prints = set()
    for name, fn in ways.items():
        encoder = CallableEncoder(fn, dim=6, name=name)
        np.testing.assert_allclose(
            encoder.encode_image(images, normalize=False), expected, atol=1e-6
        )
        assert model.training
        assert model.net[1].training
        prints.add(encoder.fingerprint == CallableEncoder(fn, dim=6).fingerprint)
    assert prints == {True}
    free = CallableEncoder(lambda x: x.mean((2, 3)))
    assert free.fingerprint == free.fingerprint != CallableEncoder(lambda x: x.mean((2, 3)))
    assert free.dim == 3
    named = [CallableEncoder(lambda x: x.mean((2, 3)), fingerprint="mean") for _ in range(2)]
    assert named[0].fingerprint == named[1].fingerprint


def test_functions_around_one_model_are_told_apart(model):
    def upto(layer):
        return lambda x: model.net[:layer](x).flatten(1)

    prints = [CallableEncoder(upto(layer)).fingerprint for layer in (1, 3, 3)]
    assert prints[0] != prints[1] == prints[2]
    both = [CallableEncoder(fn).fingerprint for fn in (model.encode_image, model.net)]
    assert both[0] != both[1]
    scaled = [
        CallableEncoder(functools.partial(lambda x, s: s * model.net(x), s=s)).fingerprint
        for s in (1.0, 2.0)
    ]
    assert scaled[0] != scaled[1]


def test_weights_get_the_activation_they_were_trained_with(monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    calls = []

    def create(name, **options):
        calls.append(options)
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "create_model", create)
    for name in ("ViT-B-32/openai", "ViT-B-32/laion2b_s34b_b79k"):
        with pytest.raises(CheckpointError, match=r"no network.*give a folder"):
            load_encoder(f"open_clip:{name}", device="cpu")
    assert [call.get("force_quick_gelu") for call in calls] == [True, None]


def test_a_name_does_not_make_the_encoder_work(images):
    class Costly:
        name = "costly"

        @property
        def fingerprint(self):
            raise AssertionError("hashed without need")

        dim = device = fingerprint

        def encode_image(self, images, **options):
            return np.asarray(images).mean((2, 3))

    step = EncodeImages(Costly())
    assert step.transform(images).shape == (9, 3)


def test_callable_preparation(images):
    double = CallableEncoder(
        lambda x: x.mean((2, 3)), preprocess=lambda x: 2 * x, fingerprint="double"
    )
    np.testing.assert_allclose(
        double.encode_image(images, normalize=False), 2 * images.mean((2, 3)), rtol=1e-5
    )
    fitted = CallableEncoder(lambda x: x.flatten(1), preprocess=Preprocess(Fit(2, 2)))
    assert fitted.encode_image([images[0], images[0][:, :8]]).shape == (2, 12)


def test_callables_that_do_not_fit(images):
    with pytest.raises(InputError, match="must be callable"):
        CallableEncoder("no function")
    with pytest.raises(InputError, match="without encode_text"):
        CallableEncoder(lambda x: x).encode_text(["a"])
    with pytest.raises(InputError, match="returned a dict"):
        CallableEncoder(lambda x: {"features": x}).encode_image(images)
    with pytest.raises(InputError, match=r"expected \(n, d\)"):
        CallableEncoder(lambda x: x).encode_image(images)
    with pytest.raises(InputError, match="1 vectors for 9 inputs"):
        CallableEncoder(lambda x: x[:1].mean((2, 3))).encode_image(images)
    with pytest.raises(InputError, match="length 3, but dim=4"):
        CallableEncoder(lambda x: x.mean((2, 3)), dim=4).encode_image(images)
    with pytest.raises(InputError, match=r"features of images\[0:9\] from holes contains NaN"):
        CallableEncoder(lambda x: x.mean((2, 3)) / 0 * 0, name="holes").encode_image(images)


def test_names(tmp_path, model):
    for name, words in {
        "embeded": "Did you mean 'embedded'",
        "openclip:ViT-B-32/openai": "Did you mean 'open_clip:NAME'",
        "open_clip:ViT-B32/openai": "Did you mean 'ViT-B-32'",
        "open_clip:ViT-B-32/opnai": "weights of ViT-B-32 'opnai'.*Did you mean 'openai'",
        "open_clip:ViT-B-32": "names no weights.*laion2b_s34b_b79k.*pretrained=None",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            load_encoder(name)
        assert caught.value.code == "CL-INPUT-OPTION"
    for name in ("open_clip:/nowhere/model", "hf:./nowhere"):
        with pytest.raises(CheckpointError, match="no folder"):
            load_encoder(name)
    with pytest.raises(CheckpointError, match="has no open_clip_config"):
        load_encoder(f"open_clip:{tmp_path}")
    with pytest.raises(InputError, match="must be a string"):
        load_encoder(3)
    with pytest.raises(InputError, match="needs its tokenizer"):
        load_encoder(model)
    built = load_encoder(model, tokenizer=Letters(), preprocess=Preprocess(Fit(16, 16)))
    assert isinstance(built, BaseEncoder)
    assert load_encoder(built) is built
    with pytest.raises(InputError, match=r"sees \d+ CUDA"):
        load_encoder(model, device="cuda:99", tokenizer=Letters(), preprocess=Preprocess(None))


def test_register(images):
    made = CallableEncoder(lambda x: x.mean((2, 3)))
    try:
        register_encoder("mine", lambda rest, device="auto": made)
        assert load_encoder("mine:anything") is made
        with pytest.raises(InputError, match="registered already"):
            register_encoder("mine", lambda rest: made)
        register_encoder("mine", lambda rest, device="auto": made, overwrite=True)
        with pytest.raises(InputError, match="plain word"):
            register_encoder("a:b", lambda rest: made)
    finally:
        _FACTORIES.pop("mine", None)


def test_broken_packages_are_explained(tmp_path, monkeypatch):
    (tmp_path / "brokenpackage.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DependencyError, match=r"nms.*torch \d.*pip install --upgrade torch") as e:
        import_package("brokenpackage", "brokenpackage")
    assert e.value.code == "CL-DEPENDENCY-BROKEN"
    with pytest.raises(DependencyError, match="pip install not-there") as e:
        import_package("notthere", "not-there")
    assert e.value.code == "CL-DEPENDENCY-MISSING"


def test_step_in_a_search(encoder, tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 12)
    images = rng.random((24, 3, 16, 16)).astype(np.float32) * np.where(y, 1.0, 0.3)[
        :, None, None, None
    ].astype(np.float32)
    pipe = make_pipeline(
        EncodeImages(encoder, cache=tmp_path / "cache"), LogisticRegression(max_iter=200)
    )
    search = GridSearchCV(pipe, {"logisticregression__C": [1.0, 100.0]}, cv=3).fit(images, y)
    assert search.best_estimator_[0].encoder is encoder
    assert search.score(images, y) > 0.9
    step = EncodeImages(encoder)
    assert step.get_feature_names_out().tolist() == [f"encodeimages{i}" for i in range(6)]
    frame = step.set_output(transform="pandas").fit_transform(images)
    assert frame.shape == (24, 6)
    tensors = make_pipeline(EncodeImages(encoder), LogisticRegression())
    tensors.fit(torch.from_numpy(images), y)
    with pytest.raises(InputError, match="NHWC"):
        step.transform(images.transpose(0, 2, 3, 1))
    assert "EncodeImages" in repr(step)
