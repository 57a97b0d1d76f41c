"""Folded batch norms: the same activations, only where nothing else looks at them."""

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from conceptlab.models import SplitModel


def settled(model, size=64):
    """Give every batch norm statistics and weights that matter."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in (
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
                (module.bias.data, -0.5),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return model.eval()


def images(n=3, size=64):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("build", "layer", "pairs"),
    [(resnet18, "layer4", 20), (resnet18, "layer2", 20), (mobilenet_v2, "features", 52)],
)
def test_torchvision_models_give_the_same_activations(build, layer, pairs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = settled(build())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = images()
    plain = SplitModel(model, layer)
    fast = SplitModel(model, layer, fold_batch_norm=True, channels_last=True)
    found, expected = fast.g(x), plain.g(x)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert len(fast._folded.pairs) == pairs
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(type(m) is not nn.Identity for m in model.modules())
    assert fast.check(x) < 1e-4
    torch.testing.assert_close(fast.h(found), plain.h(expected), rtol=1e-3, atol=1e-3)


class Net(nn.Module):
    """A convolution, a batch norm, and someone who may look in between."""

    def __init__(self, look=None):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.last, self.head = nn.ReLU(), nn.Linear(4, 2)
        self.look = look

    def forward(self, x):
        a = self.conv(x)
        assert a.shape[1] == 4  # a look at the shape is no use of values
        b = self.last(self.norm(a))
        if self.look == "skip":
            b = b + a
        if self.look == "twice":
            b = b + self.norm(b)
        return self.head(b.mean((2, 3)))


@pytest.mark.parametrize(
    ("look", "layer", "pairs"),
    [
        (None, "last", 1),
        ("skip", "last", 0),
        ("twice", "last", 0),
        (None, "conv", 0),
        (None, "norm", 0),
    ],
)
def test_what_is_looked_at_is_left_alone(look, layer, pairs):
    model = settled(Net(look))
    x = images(size=8)
    fast = SplitModel(model, layer, fold_batch_norm=True)
    torch.testing.assert_close(fast.g(x), SplitModel(model, layer).g(x))
    assert len(fast._folded.pairs) == pairs


def test_hooks_of_the_user_see_what_they_always_saw():
    model = settled(Net())
    seen = []
    model.conv.register_forward_hook(lambda m, a, out: seen.append(out.detach().clone()))
    x = images(size=8)
    fast = SplitModel(model, "last", fold_batch_norm=True)
    fast.g(x)
    assert fast._folded.pairs == []
    torch.testing.assert_close(
        seen[-1], nn.functional.conv2d(x, model.conv.weight, model.conv.bias)
    )


def test_edited_weights_are_noticed_and_gradients_flow():
    model = settled(Net())
    x = images(size=8).requires_grad_()
    fast, plain = SplitModel(model, "last", fold_batch_norm=True), SplitModel(model, "last")
    fast.g(x)
    with torch.no_grad():
        model.norm.running_mean += 0.3
        model.conv.weight *= 1.5
    torch.testing.assert_close(fast.g(x), plain.g(x))
    grads = [torch.autograd.grad(s.g(x).square().sum(), x)[0] for s in (fast, plain)]
    torch.testing.assert_close(*grads)
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_cannot_be_copied_runs_as_it_is():
    model = settled(Net())
    model.conv.note = (i for i in "ab")  # a generator cannot be copied
    fast = SplitModel(model, "last", fold_batch_norm=True)
    x = images(size=8)
    torch.testing.assert_close(fast.g(x), SplitModel(model, "last").g(x))
    assert fast._folded.pairs == []
