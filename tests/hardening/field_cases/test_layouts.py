"""Axes of activations: channels and positions are never taken for each other in silence."""

import pytest
import torch
from torch import nn

from conceptlab import SplitModel
from conceptlab.errors import SplitError
from conceptlab.models import SplitWarning


class Branches(nn.Module):
    """Two convolutions side by side, the narrower declared last."""

    def __init__(self, wide, narrow):
        super().__init__()
        self.a = nn.Conv2d(3, wide, 3, padding=1)
        self.b = nn.Conv2d(3, narrow, 1)

    def forward(self, x):
        return torch.relu(torch.cat([self.a(x), self.b(x)], 1))


class Adapter(nn.Module):
    def __init__(self, tokens):
        super().__init__()
        self.up, self.down = nn.Linear(tokens, 64), nn.Linear(64, tokens)

    def forward(self, x):
        return x + self.up(torch.relu(self.down(x)))


class Tokens(nn.Module):
    """Patches of 8 x 8, with `extra` tokens before or after them, and a block."""

    def __init__(self, block, width, extra=0, after=False, size=None):
        super().__init__()
        self.embed, self.block = nn.Conv2d(3, width, 8, 8), block
        self.more = nn.Parameter(torch.randn(1, extra, width))
        self.head, self.after, self.size = nn.Linear(width, 4), after, size

    def forward(self, x):
        if self.size is not None and x.shape[-1] != self.size:
            raise ValueError("another size")
        t = self.embed(x).flatten(2).transpose(1, 2)
        more = self.more.expand(len(x), -1, -1)
        t = torch.cat([t, more] if self.after else [more, t], 1)
        return self.head(self.block(t).mean(1))


class Squeeze(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x):
        weights = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return x * weights[:, :, None, None]


class TokenMixing(nn.Module):
    """A linear map over the positions, as in an MLP-Mixer; the channels are elsewhere."""

    def __init__(self, tokens):
        super().__init__()
        self.mix = nn.Linear(tokens, tokens)

    def forward(self, x):
        return self.mix(x.transpose(1, 2))


class Queries(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Conv2d(3, 16, 4, 4)
        self.queries = nn.Parameter(torch.randn(1, 64, 16))
        self.read, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        m = self.map(x).flatten(2).transpose(1, 2)
        return self.head(self.read(self.queries.expand(len(x), -1, -1), m, m)[0].mean(1))


class Sequence(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.read = nn.LSTM(12, 12, batch_first=batch_first)
        self.head, self.batch_first = nn.Linear(12, 4), batch_first

    def forward(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        return self.head(self.read(x)[0].mean(1 if self.batch_first else 0))


def pooled(layer, width, dims=2):
    pool = nn.AdaptiveAvgPool1d(1) if dims == 1 else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(layer, pool, nn.Flatten(), nn.Linear(width, 4))


def images(size, channels=3):
    return torch.rand(2, channels, size, size)


def mlp(width):
    return nn.Sequential(nn.Linear(width, width), nn.ReLU())


def cases():
    # branches that join, as in Inception and DenseNet
    yield (
        "as wide as the image",
        pooled(Branches(48, 16), 64),
        "0",
        images(16),
        "nchw",
        64,
        (16, 16),
    )
    yield "square", pooled(Branches(16, 16), 32), "0", images(32), "nchw", 32, (32, 32)
    # squeeze and excitation, whose maps look at the channels alone
    squeeze = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), Squeeze(24), nn.ReLU())
    yield "squeeze", pooled(squeeze, 24), "0.1", images(24), "nchw", 24, (24, 24)
    # tokens as many as an adapter is wide: jacobgil/pytorch-grad-cam#257, #344, #509
    yield "adapter", Tokens(Adapter(16), 64), "block", images(32), "ntc", 64, (4, 4)
    yield (
        "adapter, one size",
        Tokens(Adapter(16), 64, size=32),
        "block",
        images(32),
        "ntc",
        64,
        (4, 4),
    )
    yield "as many tokens as channels", Tokens(mlp(16), 16), "block", images(32), "ntc", 16, (4, 4)
    yield "registers first", Tokens(mlp(16), 16, 4), "block", images(32), "ntc", 16, (4, 4)
    # registers behind the patches: no grid, rather than one that is moved
    yield "registers last", Tokens(mlp(16), 16, 4, True), "block", images(32), "ntc", 16, None
    # 64 queries are no 8 x 8 grid
    yield "queries", Queries(), "read", images(32), "ntc", 16, None
    mixing = nn.Sequential(TokenMixing(16), nn.ReLU())
    yield "mixer", Mixer(mixing), "mixing", images(32), "nct", 16, (4, 4)
    for steps in (63, 64, 65):
        conv = nn.Sequential(nn.Conv1d(1, 64, 3, padding=1), nn.ReLU())
        yield f"{steps} steps", pooled(conv, 64, 1), "0", torch.rand(3, 1, steps), "nct", 64, None
    yield "lstm", Sequence(True), "read", torch.rand(2, 12, 12), "ntc", 12, None
    yield "lstm, time first", Sequence(False), "read", torch.rand(2, 12, 12), "tnc", 12, None


class Mixer(nn.Module):
    def __init__(self, mixing):
        super().__init__()
        self.embed, self.mixing, self.head = nn.Conv2d(3, 16, 8, 8), mixing, nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.mixing(self.embed(x).flatten(2).transpose(1, 2)).mean(2))


@pytest.mark.parametrize(
    ("model", "at", "x", "layout", "channels", "grid"),
    [pytest.param(*rest, id=name) for name, *rest in cases()],
)
def test_channels_are_told_from_positions(model, at, x, layout, channels, grid):
    split = SplitModel(model.eval(), at)
    split.check(x)
    assert (split.layout, split.n_channels, split.grid) == (layout, channels, grid)


class Hidden(nn.Module):
    """A layer whose operation cannot be followed, and which may take one size only."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        if self.size not in (None, x.shape[-1]):
            raise ValueError("another size")
        return torch.tensor(x.tolist())


def test_what_hides_its_axes_is_run_at_another_size_or_asked_for():
    conv = nn.Conv2d(3, 16, 3, padding=1)
    free = SplitModel(pooled(nn.Sequential(conv, Hidden(None)), 16), "0.1")
    free.g(images(16))
    assert free.layout == "nchw"
    fixed = pooled(nn.Sequential(conv, Hidden(16)), 16)
    with pytest.raises(SplitError, match="CL-SPLIT-LAYOUT") as caught:
        SplitModel(fixed, "0.1").g(images(16))
    assert "layout='nchw'" in str(caught.value)
    told = SplitModel(fixed, "0.1", layout="nchw")
    told.check(images(16))
    assert told.grid == (16, 16)


def test_check_looks_at_the_layout():
    conv = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
    wrong = SplitModel(pooled(conv, 16), "0", layout="nhwc")
    with pytest.raises(SplitError, match="holds positions") as caught:
        wrong.check(images(16))
    assert caught.value.code == "CL-SPLIT-LAYOUT"


class OneSize(nn.Module):
    """Takes 16 x 16 pixels; or breaks at its nth pass, for another reason."""

    def __init__(self, breaks=0):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5, 2)
        self.breaks, self.passes = breaks, 0

    def forward(self, x):
        self.passes += 1
        if self.breaks and self.passes >= self.breaks:
            raise RuntimeError("the disk is full")
        if x.shape[-1] != 16 and not self.breaks:
            raise ValueError("16 x 16, please")
        return self.head(self.body(x).mean((2, 3)))


# tests/contract had an exemption: errors of the pass at another size went unseen
def test_check_tells_a_model_of_one_size_from_one_that_breaks():
    x = torch.rand(2, 3, 16, 16)
    with pytest.warns(SplitWarning, match=r"one size only \(ValueError: 16 x 16, please\)"):
        assert SplitModel(OneSize(), "body").check(x) < 1e-5
    counted = OneSize(breaks=10**6)
    SplitModel(counted, "body").check(x)
    # Whichever pass it breaks at: the last one is that at another size.
    for breaks in (1, counted.passes // 2, counted.passes):
        with pytest.raises(RuntimeError, match="the disk is full"):
            SplitModel(OneSize(breaks), "body").check(x)


class Windows(nn.Module):
    """Cuts the map in four and counts the parts as samples."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Conv2d(3, 8, 4, 4), mlp(8), nn.Linear(8, 4)

    def forward(self, x):
        t = self.embed(x).flatten(2).transpose(1, 2)
        parts = self.inner(t.reshape(-1, t.shape[1] // 4, 8))
        return self.head(parts.reshape(t.shape).mean(1))


def test_positions_folded_into_samples_are_refused():
    # as inside timm's MobileViT and TNT, and in window attention
    with pytest.raises(SplitError, match="folded into it"):
        SplitModel(Windows(), "inner").g(images(16))


def architecture(name, **options):
    import timm

    return timm.create_model(name, pretrained=False, num_classes=3, **options)


# jacobgil/pytorch-grad-cam#355, #474
@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "window_size": 4, "depths": (1, 1, 1, 1)},
            {"layers.0": ("nhwc", 96, (8, 8)), "layers.1.blocks.0.mlp": ("ntc", 192, (4, 4))},
        ),
        (
            "deit_tiny_distilled_patch16_224",
            {"img_size": 64},
            {"blocks.3": ("ntc", 192, (4, 4)), "blocks.3.mlp.fc1": ("ntc", 768, (4, 4))},
        ),
        ("gmlp_ti16_224", {"img_size": 64}, {"blocks.1.mlp_channels.gate": ("ntc", 384, (4, 4))}),
        (
            "pvt_v2_b0",
            {},
            {"stages.1": ("nchw", 64, (8, 8)), "stages.1.blocks.0": ("ntc", 64, (8, 8))},
        ),
        # masked units: the tokens are not in the order of the image
        ("hiera_tiny_224", {"img_size": 64}, {"blocks.0": ("ntc", 96, None)}),
        ("densenet121", {}, {"features.denseblock1.denselayer1": ("nchw", 32, (16, 16))}),
    ],
)
def test_architectures_of_timm(name, options, layers):
    model = architecture(name, **options).eval()
    x = images(32 if options.get("img_size") == 32 else 64)
    for at, (layout, channels, grid) in layers.items():
        split = SplitModel(model, at)
        split.g(x)
        assert (split.layout, split.n_channels, split.grid) == (layout, channels, grid), at
