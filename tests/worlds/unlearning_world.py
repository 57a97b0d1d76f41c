"""A tiny classifier with four classes, and every method with small settings."""

import inspect
from collections import OrderedDict
from functools import cache

import torch
from torch import nn

import unlearning
from unlearning import Unlearner, split_classes

CLASS = 1
SMALL = {
    "BadTeacher": {"batch_size": 32},
    "ConceptPoisoning": {"min_steps": 0},
    "SSD": {},
    "UNSIR": {"noise_steps": 2, "n_noise": 8, "repeats": 1, "n_per_class": 16, "batch_size": 32},
}
"""Settings that make a method quick, beside those for all."""


def methods():
    """Names of all methods that are public."""
    found = {n: getattr(unlearning, n) for n in unlearning.__all__}
    return sorted(
        name
        for name, value in found.items()
        if inspect.isclass(value) and issubclass(value, Unlearner) and value is not Unlearner
    )


def small(name, **changes):
    """Make a method that takes a fraction of a second."""
    method = getattr(unlearning, name)
    known = method().get_params()
    settings = {"epochs": 2, "batch_size": 32, "random_state": 0, **SMALL.get(name, {}), **changes}
    return method(**{k: v for k, v in settings.items() if k in known})


def trains(name):
    """Whether a method has a training loop with budgets."""
    return "max_steps" in getattr(unlearning, name)().get_params()


class Net(nn.Sequential):
    """Convolution, batch norm, dropout, head."""

    def __init__(self, classes=4):
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(3, 6, 3, padding=1),
                norm=nn.BatchNorm2d(6),
                relu=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(2),
                flat=nn.Flatten(),
                drop=nn.Dropout(0.1),
                head=nn.Linear(24, classes),
            )
        )


def net(classes=4, seed=0):
    """Make an untrained net without touching the global state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(classes)


@cache
def data(n=96, seed=0):
    """Images (n, 3, 8, 8) in [0, 1] of four classes: where the light is, and its colour."""
    generator = torch.Generator().manual_seed(seed)
    X = 0.3 * torch.rand(n, 3, 8, 8, generator=generator)
    y = torch.arange(n) % 4
    for i, c in enumerate(y.tolist()):
        row, column = 4 * (c // 2), 4 * (c % 2)
        X[i, c % 3, row : row + 4, column : column + 4] += 0.6
    return X, y


@cache
def _state():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    X, y = data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for _ in range(40):
            loss = nn.functional.cross_entropy(model(X), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {key: value.clone() for key, value in model.state_dict().items()}


def trained():
    """Make a net that knows its classes, in evaluation mode."""
    model = net()
    model.load_state_dict(_state())
    return model.eval()


def request():
    """Give what to forget, what to keep and held-out data."""
    forget, retain = split_classes(data(), CLASS)
    return {
        "forget": (forget.inputs, forget.y),
        "retain": (retain.inputs, retain.y),
        "valid": data(48, 1),
    }


def same(first, second):
    """Whether two modules have equal states, bit by bit."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
