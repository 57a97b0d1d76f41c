"""The benchmark of unlearning in generators."""

import pytest
import torch

from unlearning.bench._stylegan import StyleShaped
from unlearning.bench.gan import run
from unlearning.gan import Generator


def test_the_module_has_the_published_shape():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = StyleShaped(32, 16).eval()
    assert module.synthesis.num_ws == 8  # StyleGAN2 at 32x32; 14 at 256x256
    generator = Generator(module)
    generator.check()
    z = generator.draw(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert generator.styles(z).shape == (3, 8, 16)
        images = generator.images(z)
    assert images.shape == (3, 3, 32, 32)
    assert float((images[0] - images[1]).abs().mean()) > 1e-3


@pytest.mark.slow
def test_the_benchmark_runs_small():
    found = {row.name: row for row in run(quick=True).rows}
    assert set(found) == {
        "unlearn one concept",
        "unlearn one concept, budget",
        "sample",
        "steps by default, 32x32",
        "steps of the paper, 32x32",
    }
    assert all(row.met is None for row in found.values())  # too small to count
