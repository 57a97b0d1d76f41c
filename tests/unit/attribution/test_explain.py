"""The one call that does everything: what it takes, and what it refuses before any work."""

import pytest
import torch
from planted import ColorNet, color_images
from torch import nn

from attribution.explain import explain
from conceptlab.errors import InputError
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
