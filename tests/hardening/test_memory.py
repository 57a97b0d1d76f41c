"""When the device's memory runs out, ``batch_size="auto"`` halves the batch and goes on."""

import numpy as np
import pytest
import torch
from answers import arrays
from torch import nn

from attribution.faithfulness import faithfulness
from conceptlab import CRAFT, NMFConcepts, SplitModel
from conceptlab.encoders import CallableEncoder, EncodeImages
from conceptlab.importance import SobolImportance, ablate, directional_derivatives
from conceptlab.maps import concept_maps
from conceptlab.models import pooled_activations

pytestmark = pytest.mark.filterwarnings("ignore")


class Tight(nn.Module):
    """A layer for which a batch of more than `most` is too much."""

    most = 10**9
    largest, refused = 0, 0

    def forward(self, x):
        if len(x) > Tight.most:
            Tight.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        Tight.largest = max(Tight.largest, len(x))
        return x


def split():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = (Tight(), nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), Tight())
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3), nn.Tanh())
        return SplitModel(nn.Sequential(*body, *head).eval(), at="2")


def images(n=9):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def coefficients():
    return torch.rand(6, 4, 4, 2, generator=torch.Generator().manual_seed(2))


def extractor():
    return NMFConcepts(2, random_state=0).fit(np.random.default_rng(0).random((40, 6)))


def head(U):
    """A function of coefficients that needs memory for each row."""
    return torch.tanh(Tight()(U).sum(dim=(1, 2)) ** 2)


def encoder():
    layer = Tight()
    return CallableEncoder(
        lambda x: layer(x).flatten(1)[:, :5], lambda t: layer(torch.ones(len(t), 5)), dim=5
    )


def craft(batch_size):
    found = CRAFT(split(), 2, patch_size=8, batch_size=batch_size, random_state=0)
    found.fit(images(), target=0)
    return found.components_, found.transform(images()), found.importances_


JOBS = {
    "encode_image": lambda size: encoder().encode_image(images(), batch_size=size),
    "EncodeImages": lambda size: EncodeImages(encoder(), batch_size=size).transform(images()),
    "crops": lambda size: (
        pooled_activations(split(), images(), patch_size=8, batch_size=size, progress=False).rows
    ),
    "positions": lambda size: (
        pooled_activations(split(), images(), mode="none", batch_size=size, progress=False).rows
    ),
    "CRAFT": craft,
    **{
        f"maps, {method}": lambda size, method=method, options=options: concept_maps(  # type: ignore[misc]
            split(),
            extractor(),
            images(),
            method=method,
            batch_size=size,
            random_state=0,
            progress=False,
            **options,
        )
        for method, options in {
            "implicit": {},
            "upsample": {},
            "occlusion": {},
            "rise": {"n_masks": 20},
        }.items()
    },
    "SobolImportance": lambda size: (
        SobolImportance(4, exact=False, batch_size=size, random_state=0)(
            head, coefficients(), target=0
        ).values
    ),
    "ablate": lambda size: ablate(
        head, coefficients(), target=0, n_bootstrap=0, batch_size=size, random_state=0
    ),
    "directional_derivatives": lambda size: directional_derivatives(
        head, coefficients(), np.eye(2), target=0, n_random=5, batch_size=size, random_state=0
    ),
    "faithfulness": lambda size: faithfulness(
        head,
        coefficients(),
        np.array([0.6, 0.4]),
        target=0,
        n_random=2,
        n_bootstrap=2,
        batch_size=size,
        random_state=0,
    ),
}


@pytest.fixture
def little_memory(monkeypatch):
    """Let the layer take two rows, after a first run that takes all."""

    def allow(most):
        monkeypatch.setattr(Tight, "most", most)
        Tight.largest, Tight.refused = 0, 0

    allow(10**9)
    return allow


def flat(answer):
    return [np.asarray(a, dtype=np.float64) for a in arrays(answer)]


@pytest.mark.parametrize("name", JOBS)
def test_the_batch_is_halved(name, little_memory):
    expected = flat(JOBS[name]("auto"))
    assert Tight.largest > 2, "nothing to halve"
    little_memory(2)
    found = flat(JOBS[name]("auto"))
    assert Tight.refused > 0
    assert 0 < Tight.largest <= 2
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("name", JOBS)
def test_a_size_that_was_asked_for_is_kept(name, little_memory):
    little_memory(2)
    with pytest.raises(torch.OutOfMemoryError):
        JOBS[name](8)
    JOBS[name](2)


def test_what_fitted_is_remembered(little_memory):
    """Sizes that do not fit are tried once, not in every batch."""
    little_memory(2)
    JOBS["positions"]("auto")
    assert Tight.refused <= 4


class Hungry(nn.Module):
    """A layer that takes 1 GiB of addresses for each row."""

    fed = 0

    def forward(self, x):
        room = torch.empty(len(x), 2**28)
        Hungry.fed = max(Hungry.fed, len(room))
        return x


def test_memory_that_really_runs_out(bounded_memory):
    """On the CPU, by the limit that all tests of this folder have."""
    body = (Hungry(), nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    found = pooled_activations(
        SplitModel(model, at="2"), images(33), mode="none", batch_size="auto", progress=False
    )
    assert 0 < Hungry.fed < 33
    again = pooled_activations(
        SplitModel(model, at="2"), images(33), mode="none", batch_size=1, progress=False
    )
    np.testing.assert_allclose(found.rows, again.rows, atol=1e-6)
