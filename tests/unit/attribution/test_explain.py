"""The one call that does everything: what it takes, and what it refuses before any work."""

import numpy as np
import pytest
import torch
from planted import ColorNet, color_images
from torch import nn

from attribution.explain import explain
from attribution.naming import NamingWarning
from conceptlab.errors import InputError, SplitError
from conceptlab.models import SplitModel

QUICK = {"n_concepts": 2, "depth": 0, "random_state": 0, "maps": "upsample"}


@pytest.fixture(scope="module")
def images():
    return color_images(n=8)[0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"patch_size": 0}, r"patch_size.*\[CL-INPUT-RANGE\]$"),
        ({"maps": "implict"}, r"Did you mean 'implicit'.*\[CL-INPUT-OPTION\]$"),
        ({"patchs": "none"}, r"Did you mean 'patches'.*\[CL-INPUT-OPTION\]$"),
    ],
)
def test_wrong_settings(images, settings, text):
    with pytest.raises(InputError, match=text):
        explain(ColorNet(), images, **{**QUICK, "layer": "early", **settings})


def test_no_model(images):
    with pytest.raises(InputError, match=r"torch.nn.Module, got str.*\[CL-INPUT-TYPE\]$"):
        explain("resnet50", images)


def test_a_layer_beside_a_cut_model(images):
    split = SplitModel(ColorNet(), at="late")
    found = explain(split, images, layer="early", patch_size=8, **QUICK)
    assert found.settings["layer"] == "early"


def convolutional(channels):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU())
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_other_channels(channels):
    pixels = np.random.default_rng(0).random((12, channels, 16, 16), dtype=np.float32)
    found = explain(convolutional(channels), pixels, n_refits=0, **QUICK)
    assert found.images.shape[1] == channels
    page = found.to_html()
    assert page.count("<article") >= 2
    for kind in ("patches", "maps"):
        found.plot(kind)
    with pytest.warns(NamingWarning, match=f"3 channels, not {channels}"):
        explain(convolutional(channels), pixels, n_refits=0, names=["a", "b"], **QUICK)


class OverTheBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = convolutional(3)

    def forward(self, x):
        return self.inside(x).softmax(0)


@pytest.mark.filterwarnings("ignore::conceptlab.models.faults.SplitWarning")
def test_a_model_that_hangs_on_its_batch(images):
    with pytest.raises(SplitError, match=r"depends on the others in its batch.*SPLIT-BATCH\]$"):
        explain(OverTheBatch(), images, **QUICK)


@pytest.mark.parametrize("what", ["image_names", "labels"])
def test_names_of_images_must_be_one_each(images, what):
    with pytest.raises(InputError, match=rf"{what} has 1 entries for 8 images.*INPUT-SHAPE\]$"):
        explain(ColorNet(), images, layer="late", patch_size=8, **{what: ["a"]}, **QUICK)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.body = nn.Sequential(nn.Linear(8, 12), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, input_ids, attention_mask=None):
        return {"logits": self.head(self.body(self.embed(input_ids)).mean(1))}


def test_text(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words, tokens = Words(), {"input_ids": torch.randint(0, 20, (16, 6))}
    found = explain(words, tokens, layer="body", output="logits", **{**QUICK, "maps": None})
    assert found.coefficients.shape == (16, 2)
    assert found.faithfulness is not None
    assert found.settings["patches"] == "none"
    for page in (found.to_html(), found._repr_html_()):
        assert "images in which" not in page
        assert "best patches" not in page


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ({}, r"empty.*\[CL-INPUT-EMPTY\]$"),
        ({"input_ids": torch.zeros((0, 6), dtype=torch.long)}, r"empty.*\[CL-INPUT-EMPTY\]$"),
        (
            {
                "input_ids": torch.zeros((4, 6), dtype=torch.long),
                "attention_mask": torch.ones((3, 6), dtype=torch.long),
            },
            r"'attention_mask': 3.*\[CL-INPUT-SHAPE\]$",
        ),
    ],
)
def test_wrong_text(tokens, text):
    split = SplitModel(Words(), at="body", output="logits")
    with pytest.raises(InputError, match=text):
        explain(split, tokens, **{**QUICK, "maps": None})
