"""A world of glyphs with every concept known, and networks trained on it in a second.

Class c of four shows glyph c, which no other class has, and a glyph that it shares with one
other class. A fifth of the images show a third glyph that means nothing.
"""

from functools import cache

import numpy as np
import torch
from torch import nn

from unlearning.data import Samples, as_samples, quiet_randomness, split_classes

CONCEPTS = ("bar", "cross", "ring", "corner", "dot", "stripe", "mark")
"""The first four are of one class each, the next two of two classes, the last of none."""
FORGOTTEN = 0
SIDE = 12


def _glyphs():
    g = np.zeros((7, 5, 5), dtype=np.float32)
    g[0, :, 2] = 1
    g[1, 2, :] = g[1, :, 2] = 1
    g[2, [0, 4], :] = g[2, :, [0, 4]] = 1
    g[3, 0, :] = g[3, :, 0] = 1
    g[4, 1:4, 1:4] = 1
    g[5, [0, 2, 4], :] = 1
    g[6, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]] = 1
    return g


def draw(n, seed):
    """Give images (n, 1, 12, 12), classes (n,) and concepts (n, 7)."""
    rng = np.random.default_rng(seed)
    glyphs, y = _glyphs(), np.arange(n) % 4
    shown = np.zeros((n, 7), dtype=bool)
    shown[np.arange(n), y] = True
    shown[np.arange(n), 4 + y // 2] = True
    shown[:, 6] = rng.random(n) < 0.2
    images = 0.25 * rng.random((n, 1, SIDE, SIDE)).astype(np.float32)
    places = np.array([(0, 0), (0, 6), (6, 0), (6, 6)])
    for i in range(n):
        spots = places[rng.permutation(4)] + rng.integers(0, 2, (4, 2))
        for spot, k in zip(spots, np.flatnonzero(shown[i]), strict=False):
            r, c = spot
            images[i, 0, r : r + 5, c : c + 5] += 0.7 * glyphs[k]
    return torch.tensor(images), torch.tensor(y), shown


def build():
    """Make the network: 3 convolutions, 24 features, 4 classes."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


def train(samples: Samples, seed: int, epochs: int = 6):
    """Train a network."""
    with quiet_randomness(seed):
        model = build()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.08, momentum=0.9, weight_decay=5e-4)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for x, y in samples.batches(32, generator):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    return model.eval()


@cache
def data():
    """Give forget, retain, test samples and the concepts of the latter."""
    images, y, _ = draw(360, 0)
    forget, retain = split_classes((images, y), FORGOTTEN)
    held, labels, shown = draw(240, 1)
    return forget, retain, as_samples((held, labels), name="test"), shown


@cache
def models():
    """Give an original and three models that never saw the class."""
    images, y, _ = draw(360, 0)
    retain = data()[1]
    return (train(as_samples((images, y)), 0), *(train(retain, seed) for seed in (1, 2, 3)))
