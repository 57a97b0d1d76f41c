"""A generator whose truth is known, a guide and a judge for it, and a StyleGAN2-shaped module."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from conceptlab.encoders import CallableEncoder

SIDE = 8
FAMILIES = {"colour": ("red", "blue", "green"), "light": ("bright", "dark")}
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.1, 0.8, 0.1]])
SMALL = {
    "n_survey": 300,
    "mapper_steps": 15,
    "steps": 80,
    "n_held_out": 64,
    "augment": False,
    "fold_steps": 600,
    "lr": 3e-3,
    "batch_size": 32,
    "surrogate_weight": 1.0,
}
"""Settings of TextToUnlearn with which the toy forgets in seconds."""


def paint(codes):
    """Left half: the colour; right half: white or black, a little grey by the last number."""
    images = torch.full((len(codes), 3, SIDE, SIDE), 0.5)
    images[:, :, :, : SIDE // 2] = (codes[:, :3] @ COLOURS)[:, :, None, None]
    light = 0.15 + 0.7 * codes[:, 3] + 0.04 * codes[:, 5]
    images[:, :, :, SIDE // 2 :] = light.clamp(0, 1)[:, None, None, None]
    return images


class ToyGan(nn.Module):
    """Mapping and synthesis; what is asked of it is learned by regression."""

    output_range = (0.0, 1.0)
    z_dim = 6

    def __init__(self):
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(6, 32), nn.LeakyReLU(0.2), nn.Linear(32, 16))
        self.synthesis = nn.Sequential(
            nn.Linear(16, 64),
            nn.LeakyReLU(0.2),
            nn.Linear(64, 64),
            nn.LeakyReLU(0.2),
            nn.Linear(64, 3 * SIDE * SIDE),
            nn.Sigmoid(),
            nn.Unflatten(1, (3, SIDE, SIDE)),
        )

    def draw_latents(self, n, generator):
        colour = functional.one_hot(torch.randint(3, (n,), generator=generator), 3)
        light = functional.one_hot(torch.randint(2, (n,), generator=generator), 2)
        return torch.cat([colour, light, torch.randn(n, 1, generator=generator)], 1).float()

    def forward(self, z):
        return self.synthesis(self.mapping(z))


def toy_gan(steps=250):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ToyGan()
        optimiser = torch.optim.Adam(model.parameters(), lr=6e-3)
        draws = torch.Generator().manual_seed(0)
        for _ in range(steps):
            z = model.draw_latents(64, draws)
            loss = (model(z) - paint(z)).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


def read(images):
    """Left mean colour and right mean light."""
    return images[..., : SIDE // 2].mean((2, 3)), images[..., SIDE // 2 :].mean((1, 2, 3))


def toy_guide():
    """Images: nearness to each colour, and light; texts: by the words that they hold."""
    words = ["red", "blue", "green", "bright", "dark"]

    def images(x):
        left, light = read(x)
        near = torch.exp(-4 * torch.cdist(left, COLOURS))
        parts = [near, light[:, None], 1 - light[:, None], 0.3 * torch.ones(len(x), 1)]
        return torch.cat(parts, 1)

    def texts(items):
        rows = [[float(word in t.split()) for word in words] for t in items]
        return np.array([[*r, 0.1 if any(r) else 1.0] for r in rows], dtype=np.float32)

    return CallableEncoder(images, texts, dim=6, name="toy guide", fingerprint="toy guide")


class ToyJudge:
    """Reads the pixels; shares nothing with the guide."""

    families = FAMILIES

    def probabilities(self, images):
        left, light = read(images)
        colour = (-30 * torch.cdist(left, COLOURS)).softmax(1)
        bright = torch.sigmoid(20 * (light - 0.5))
        return {"colour": colour, "light": torch.stack([bright, 1 - bright], 1)}


class _Modulated(nn.Module):
    """A modulated, demodulated convolution with a noise input, as in StyleGAN2."""

    def __init__(self, inputs, outputs, w_dim, side):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.affine = nn.Linear(w_dim, inputs)
        self.noise_strength = nn.Parameter(torch.full([], 0.1))
        self.register_buffer("noise_const", torch.randn(side, side))

    def forward(self, x, w, noise_mode="random"):
        n, _, side, _ = x.shape
        kernels = self.weight[None] * self.affine(w)[:, None, :, None, None]
        kernels = kernels * kernels.square().sum((2, 3, 4), keepdim=True).add(1e-8).rsqrt()
        x = functional.conv2d(
            x.reshape(1, -1, side, side), kernels.flatten(0, 1), padding=1, groups=n
        )
        x = x.reshape(n, -1, side, side)
        if noise_mode == "random":
            x = x + torch.randn(n, 1, side, side) * self.noise_strength
        elif noise_mode == "const":
            x = x + self.noise_const * self.noise_strength
        return functional.leaky_relu(x, 0.2)


class _StyleSynthesis(nn.Module):
    def __init__(self, w_dim, side, channels):
        super().__init__()
        self.const = nn.Parameter(torch.randn(channels, 4, 4))
        self.convs = nn.ModuleList()
        at = 4
        while at <= side:
            self.convs.append(_Modulated(channels, channels, w_dim, at))
            at *= 2
        self.torgb = nn.Conv2d(channels, 3, 1)
        self.num_ws = len(self.convs)

    def forward(self, ws, **block_kwargs):
        x = self.const[None].expand(len(ws), -1, -1, -1)
        for index, conv in enumerate(self.convs):
            if index:
                x = functional.interpolate(x, scale_factor=2)
            x = conv(x, ws[:, index], **block_kwargs)
        return torch.tanh(self.torgb(x))


class _StyleMapping(nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, num_ws):
        super().__init__()
        self.num_ws = num_ws
        self.embed = nn.Linear(c_dim, z_dim) if c_dim else None
        self.fc0 = nn.Linear(z_dim * (2 if c_dim else 1), w_dim)
        self.fc1 = nn.Linear(w_dim, w_dim)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        x = z * z.square().mean(1, keepdim=True).add(1e-8).rsqrt()
        if self.embed is not None:
            x = torch.cat([x, self.embed(c)], 1)
        w = self.fc1(functional.leaky_relu(self.fc0(x), 0.2))[:, None].repeat(1, self.num_ws, 1)
        return self.w_avg.lerp(w, truncation_psi) if truncation_psi != 1 else w


class StyleGan2Shaped(nn.Module):
    """The published module's attributes and signatures, small."""

    def __init__(self, z_dim=8, c_dim=0, w_dim=8, img_resolution=16, channels=8):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, 3
        self.synthesis = _StyleSynthesis(w_dim, img_resolution, channels)
        self.num_ws = self.synthesis.num_ws
        self.mapping = _StyleMapping(z_dim, c_dim, w_dim, self.num_ws)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, **synthesis_kwargs):
        return self.synthesis(self.mapping(z, c, truncation_psi=truncation_psi), **synthesis_kwargs)


class _FourierInput(nn.Module):
    """Fourier features of a plane that the style turns and moves, as in StyleGAN3."""

    def __init__(self, w_dim, channels, side):
        super().__init__()
        self.side = side
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = nn.Linear(w_dim, 4)
        self.register_buffer("transform", torch.eye(3, 3))
        self.register_buffer("freqs", 2 * torch.randn(channels, 2))
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w):
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        turned = torch.eye(3).repeat(len(w), 1, 1)
        turned[:, 0, 0] = turned[:, 1, 1] = t[:, 0]
        turned[:, 1, 0], turned[:, 0, 1] = t[:, 1], -t[:, 1]
        turned[:, :2, 2] = -t[:, 2:]
        turned = turned @ self.transform
        phases = self.phases + (self.freqs @ turned[:, :2, 2:]).squeeze(2)
        freqs = self.freqs @ turned[:, :2, :2]
        grid = functional.affine_grid(torch.eye(2, 3)[None], [1, 1, self.side, self.side])
        x = (grid.unsqueeze(3) @ freqs.transpose(1, 2)[:, None, None]).squeeze(3)
        x = torch.sin(2 * torch.pi * (x + phases[:, None, None]))
        return (x @ self.weight.T / len(self.weight) ** 0.5).permute(0, 3, 1, 2)


class _FilteredLayer(nn.Module):
    """A modulated convolution between a norm that is tracked and a filtered nonlinearity."""

    def __init__(self, w_dim, inputs, outputs, *, is_torgb=False):
        super().__init__()
        self.is_torgb = is_torgb
        size = 1 if is_torgb else 3
        self.affine = nn.Linear(w_dim, inputs)
        nn.init.ones_(self.affine.bias)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.register_buffer("down_filter", torch.tensor([1.0, 3, 3, 1]) / 8)

    def forward(self, x, w, noise_mode="random", force_fp32=False, update_emas=False):
        assert noise_mode in {"random", "const", "none"}  # taken and not used, as published
        if update_emas:
            self.magnitude_ema.copy_(x.detach().square().mean().lerp(self.magnitude_ema, 0.999))
        styles = self.affine(w)
        kernels = self.weight[None]
        if not self.is_torgb:
            kernels = kernels * kernels.square().mean((2, 3, 4), keepdim=True).rsqrt()
            styles = styles * styles.square().mean().rsqrt()
        else:
            styles = styles / self.weight[0].numel() ** 0.5
        kernels = kernels * styles[:, None, :, None, None]
        if not self.is_torgb:
            kernels = kernels * kernels.square().sum((2, 3, 4), keepdim=True).add(1e-8).rsqrt()
        n, side = len(x), x.shape[-1]
        x = functional.conv2d(
            x.reshape(1, -1, side, side) * self.magnitude_ema.rsqrt(),
            kernels.flatten(0, 1),
            padding=kernels.shape[-1] // 2,
            groups=n,
        )
        x = x.reshape(n, -1, side, side) + self.bias[:, None, None]
        if self.is_torgb:
            return x
        x = functional.leaky_relu(functional.interpolate(x, scale_factor=2, mode="bilinear"), 0.2)
        kernel = (self.down_filter[:, None] * self.down_filter).expand(x.shape[1], 1, 4, 4)
        x = functional.conv2d(functional.pad(x, (1, 2, 1, 2)), kernel, groups=x.shape[1])
        return 2**0.5 * x[:, :, ::2, ::2]


class _AliasFreeSynthesis(nn.Module):
    def __init__(self, w_dim, img_resolution, channels=8, layers=3, output_scale=0.25):
        super().__init__()
        self.num_ws, self.output_scale = layers + 2, output_scale
        self.input = _FourierInput(w_dim, channels, img_resolution)
        self.layer_names = []
        for index in range(layers + 1):
            last = index == layers
            layer = _FilteredLayer(w_dim, channels, 3 if last else channels, is_torgb=last)
            name = f"L{index}_{img_resolution}_{3 if last else channels}"
            setattr(self, name, layer)
            self.layer_names.append(name)

    def forward(self, ws, **layer_kwargs):
        ws = ws.to(torch.float32).unbind(dim=1)
        x = self.input(ws[0])
        for name, w in zip(self.layer_names, ws[1:], strict=True):
            x = getattr(self, name)(x, w, **layer_kwargs)
        return x * self.output_scale


class StyleGan3Shaped(StyleGan2Shaped):
    """The published alias-free module's attributes and signatures, small."""

    def __init__(self, z_dim=8, c_dim=0, w_dim=8, img_resolution=16):
        nn.Module.__init__(self)
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, 3
        self.synthesis = _AliasFreeSynthesis(w_dim, img_resolution)
        self.num_ws = self.synthesis.num_ws
        self.mapping = _StyleMapping(z_dim, c_dim, w_dim, self.num_ws)

    def forward(
        self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False, **synthesis_kwargs
    ):
        ws = self.mapping(z, c, truncation_psi=truncation_psi, update_emas=update_emas)
        return self.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)
