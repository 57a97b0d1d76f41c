"""Models as people have them: a right answer, or an error with a code, and nothing left behind."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from conceptlab import CRAFT, SplitModel
from conceptlab.errors import InputError, SplitError
from conceptlab.models import SplitWarning


def network(channels=3):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def images(n=4, channels=3, size=16):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


class Half(nn.Module):
    """In half precision, norms in float32 as open_clip and transformers keep them."""

    def __init__(self, look, dtype, mixed):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))  # the first parameter, of another precision
        self.layer = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.head, self.look = nn.Linear(8, 4), look
        self.to(dtype)
        if mixed:
            self.scale.data = self.scale.data.float()

    def forward(self, x):
        y = self.layer(x)
        if self.look and bool(x.sum() > 1e9):
            y = y * 2
        return self.head((y.mean((2, 3)) * self.scale).to(y.dtype))


# open-edge-platform/anomalib#2066
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("look", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, look, mixed):
    torch.manual_seed(0)
    split = SplitModel(Half(look, dtype, mixed).eval(), "layer")
    assert split.check(images()) == 0
    assert split.closed is not look
    found = CRAFT(split, 2, patch_size=8, random_state=0).fit(images(6), target=0)
    assert found.importances_.shape == (2,)


def compiled_model():
    model = network()
    model.compile(backend="eager")
    return model, "0"


def compiled_wrapper():
    return torch.compile(network(), backend="eager"), "0"


def compiled_layer():
    model = network()
    model[0] = torch.compile(model[0], backend="eager")
    return model, "0.1"


def compiled_forward():
    model = network()
    model.forward = torch.compile(model.forward, backend="eager")
    return model, "0"


# pytorch/pytorch#117758, #96722: in a compiled model no hook is called
@pytest.mark.parametrize(
    "make", [compiled_model, compiled_wrapper, compiled_layer, compiled_forward]
)
def test_compiled_models_are_seen_into_and_stay_compiled(make):
    model, at = make()
    split = SplitModel(model, at)
    assert split.layer == at
    assert split.check(images()) == 0
    torch.testing.assert_close(split.f(images()), network()(images()))
    table = SplitModel.suggest(model, images())
    assert table.loc[table["recommended"], "name"].tolist() == ["0"]
    assert not torch._dynamo.config.disable
    torch.testing.assert_close(model(images()), network()(images()))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_named_as_the_cause():
    # jacobgil/pytorch-grad-cam#258, #531, pytorch/pytorch#29037
    for program in (torch.jit.script(network()), torch.jit.trace(network(), images())):
        for job in (
            lambda p=program: SplitModel(p, "0"),
            lambda p=program: SplitModel.suggest(p, images()),
        ):
            with pytest.raises(InputError, match="TorchScript program"):
                job()
    model = nn.Sequential(network()[0], torch.jit.script(nn.Conv2d(8, 8, 1)), *network()[1:])
    assert SplitModel(model, "0").check(images()) == 0
    assert "0" in SplitModel.suggest(model, images())["name"].tolist()
    with pytest.raises(SplitError, match="TorchScript program"):
        SplitModel(model, "1").g(images())
    x = images().requires_grad_()
    SplitModel(model, "0").f(x).sum().backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.reentrant = nn.Conv2d(3, 16, 8, 8), reentrant
        self.a = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.b, self.head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16)), nn.Linear(16, 4)

    def forward(self, x):
        t = self.embed(x).flatten(2).transpose(1, 2)
        for block in (self.a, self.b):
            plain = self.reentrant is None
            t = t + (block(t) if plain else checkpoint(block, t, use_reentrant=self.reentrant))
        return self.head(t.mean(1))


# huggingface/diffusers#9878, huggingface/pytorch-image-models#2394, pytorch/pytorch#7617
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpoints(reentrant):
    x, found = images(size=32), {}
    for key in (None, reentrant):
        model = Checkpointed(key).eval()
        split = SplitModel(model, "a")
        a = split.g(x).detach()
        for name, start in (("g", x), ("f", x), ("h", a)):
            z = start.clone().requires_grad_()
            getattr(split, name)(z).square().sum().backward()
            found[key, name] = z.grad
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for name in "gfh":
        torch.testing.assert_close(found[reentrant, name], found[None, name])
    # Outside our passes a checkpoint is what it was.
    z = x.clone().requires_grad_()
    model(z).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


class Recurrent(nn.Module):
    """Weights that are kept beside the registered ones as well, and one that is not registered."""

    def __init__(self):
        super().__init__()
        self.read, self.head = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3)
        self.loose = torch.randn(6, 6, requires_grad=True)

    def forward(self, x):
        return self.head(self.read(x)[0].mean(1) @ self.loose)


def test_no_gradient_reaches_any_weight():
    model = Recurrent().eval()
    x = torch.rand(2, 7, 5, requires_grad=True)
    SplitModel(model, "read").f(x).sum().backward()
    assert x.grad.abs().max() > 0
    assert model.loose.grad is None
    assert model.loose.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_weights_that_were_never_loaded():
    # hiyouga/LlamaFactory#3062
    with torch.device("meta"):
        model = network()
    for job in (lambda: SplitModel(model, "0"), lambda: SplitModel.suggest(model, images())):
        with pytest.raises(InputError, match="not loaded") as caught:
            job()
        assert caught.value.code == "CL-INPUT-DEVICE"


class Batchy(nn.Module):
    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)
        self.act, self.head, self.how = nn.ReLU(), nn.Linear(8, 4), how

    def forward(self, x):
        y = self.conv(x)
        y = self.act(self.norm(y) if self.how == "norm" else y)
        y = self.head(y.mean((2, 3)))
        if self.how == "softmax":
            return y.softmax(0)
        return y + torch.randn_like(y) if self.how == "noise" else y


# keras-team/keras#3078, yaodongyu/TRADES#3, FutureComputing4AI/MalConv2#6
@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("norm", "CL-SPLIT-BATCH", "depends on the others in its batch"),
        ("softmax", "CL-SPLIT-BATCH", "depends on the others in its batch"),
        ("noise", "CL-SPLIT-MISMATCH", "two passes of the same input differ"),
    ],
)
@pytest.mark.parametrize("n", [1, 4])
def test_answers_that_hang_on_the_batch_or_on_chance(how, code, words, n):
    split = SplitModel(Batchy(how).eval(), "act")
    with pytest.warns(SplitWarning, match=words), pytest.raises(SplitError) as caught:
        split.check(images(n))
    assert caught.value.code == code
    assert split.closed is (how == "norm")  # its norm stands before the layer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SplitModel(Batchy("plain").eval(), "act").check(images(n)) == 0


@pytest.mark.parametrize("again", [copy.deepcopy, lambda split: pickle.loads(pickle.dumps(split))])
def test_copies_know_what_the_first_had_seen(again):
    split = SplitModel(network(), "0", class_names=list("abcd"))
    a = split.g(images())
    split.g(images(size=24))
    twin = again(split)
    assert twin.model is not split.model
    assert (twin.layout, twin.grid, twin.class_names) == (split.layout, (16, 16), list("abcd"))
    assert twin.fingerprint == split.fingerprint
    torch.testing.assert_close(twin.h(a), split.h(a))
    larger = split.g(images(size=24))
    torch.testing.assert_close(twin.h(larger), split.h(larger))


def test_a_pipeline_with_craft_in_other_processes():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    x, y = images(24).numpy(), torch.arange(24).numpy() % 2
    craft = CRAFT(SplitModel(network(), "0"), 2, patches="none", random_state=0)
    pipeline = make_pipeline(craft, LogisticRegression())
    one, two = (cross_val_score(pipeline, x, y, cv=2, n_jobs=n) for n in (1, 2))
    assert one.tolist() == two.tolist()
    craft.fit(x, target=0)
    assert (pickle.loads(pickle.dumps(craft)).transform(x) == craft.transform(x)).all()


class Answer(nn.Module):
    """Answers as libraries give them; it carries the names of its classes."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.head, self.how = network()[0], nn.Linear(8, 2), how
        self.class_names = ["cat", "dog"]

    def forward(self, x):
        y = self.head(self.layer(x).mean((2, 3)))
        return {"dict": {"logits": y, "hidden": x}, "one": {"scores": y}, "two": {"a": y, "b": y}}[
            self.how
        ]


def test_logits_and_names_are_taken_from_the_model():
    for how in ("dict", "one"):
        split = SplitModel(Answer(how).eval(), "layer")
        assert split.check(images()) == 0
        assert split.class_names == ["cat", "dog"]
    with pytest.raises(SplitError, match="CL-SPLIT-OUTPUT"):
        SplitModel(Answer("two").eval(), "layer").f(images())
    wrong = Answer("one").eval()
    wrong.class_names = ["cat"]  # not of these outputs
    split = SplitModel(wrong, "layer")
    split.f(images())
    assert split.class_names is None


def test_a_sticker_anywhere_makes_other_images():
    x = images(4, size=64).numpy()
    craft = CRAFT(SplitModel(network(), "0"), 2, patches="none", random_state=0)
    before = craft.fit(x, target=0).images_fingerprint_
    x[3, :, 62, 61] = 1
    assert craft.fit(x, target=0).images_fingerprint_ != before


def test_a_bare_module_asks_for_the_size_that_images_do_not_share(tmp_path):
    import numpy as np
    from PIL import Image

    from attribution.commands.explain import explain

    photos, code = tmp_path / "photos", tmp_path / "mine.py"
    photos.mkdir()
    for side in (16, 24):
        pixels = np.zeros((side, side, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{side}.png")
    code.write_text("from torch import nn\ndef build():\n    return nn.Conv2d(3, 2, 3)\n")
    with pytest.raises(InputError, match="--size") as caught:
        explain(photos, model=f"{code}:build", out=tmp_path / "report.html")
    assert caught.value.code == "CL-INPUT-SHAPE"


class Both(nn.Module):
    """An image and two numbers about it, such as age and sex."""

    def __init__(self):
        super().__init__()
        self.body, self.about = network()[0], nn.Linear(2, 4)
        self.mix, self.head = nn.Sequential(nn.Linear(12, 8), nn.ReLU()), nn.Linear(8, 3)

    def forward(self, image, meta):
        if meta.shape[1] != 2:
            raise TypeError("two numbers, please")
        seen = self.body(image).mean((2, 3))
        return self.head(self.mix(torch.cat([seen, self.about(meta)], 1)))


def test_an_image_beside_metadata():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, meta = Both().eval(), torch.rand(8, 2)
    x, split = images(8), SplitModel(model, "mix")
    craft = CRAFT(split, 2, patches="none", random_state=0)
    both = {"image": x, "meta": meta}
    assert craft.fit(both, target=0).importances_.shape == (2,)
    np.testing.assert_allclose(craft.activations(both), split.g(both).numpy(), atol=1e-6)
    for wrong in (x, {"image": x}, {**both, "age": meta}):
        with pytest.raises(InputError, match=r"Both takes \(image, meta\).*'image': ..., 'meta'"):
            craft.fit(wrong, target=0)
    with pytest.raises(SplitError, match="features joined later"):
        CRAFT(SplitModel(model, "body"), 2, patches="none").fit(both, target=0)
    with pytest.raises(TypeError, match="two numbers, please"):  # the model's own stays
        split.f({"image": x, "meta": meta[:, :1]})
