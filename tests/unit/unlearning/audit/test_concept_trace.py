"""Concepts of a model, looked for in the model that forgot."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from conceptlab import CRAFT, SplitModel
from conceptlab.errors import InputError, SplitError
from conceptlab.seeds import quiet_randomness
from unlearning.audit import trace_concepts


def painted():
    """Images of two classes: the second has a blue square on grey, the first a red one."""
    images = torch.full((24, 3, 16, 16), 0.4)
    y = np.arange(24) % 2
    for row, label in enumerate(y):
        at = row % 5
        images[row, :, at : at + 6, 4:10] = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[label][
            :, None, None
        ]
    return images, y


def colours():
    """A network whose first layer has a channel for red, one for blue, one for brightness."""
    with quiet_randomness(0):
        first = nn.Conv2d(3, 3, 1)
        model = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model.append(nn.Linear(3, 2))
    with torch.no_grad():
        first.weight.copy_(
            torch.tensor([[1.0, -1, -1], [-1, -1, 1.0], [1 / 3, 1 / 3, 1 / 3]])[:, :, None, None]
        )
        first.bias.zero_()
    return model.eval()


@pytest.fixture(scope="module")
def world():
    images, y = painted()
    model = colours()
    craft = CRAFT(SplitModel(model, at="1"), 3, patches="none", random_state=0)
    craft.fit(images, target="predicted")
    U = craft.transform(images)
    blue = int(np.argmax(U[y == 1].mean(axis=0) - U[y == 0].mean(axis=0)))
    return model, craft, images, y, blue


def test_what_was_switched_off_is_gone_and_the_rest_is_not(world):
    model, craft, images, y, blue = world
    after = copy.deepcopy(model)
    with torch.no_grad():
        after[0].weight[1] = 0  # no channel for blue any more
    trace = trace_concepts(craft, after, images, y, [1], n_maps=3)
    frame = trace.to_frame().set_index("concept")
    name = craft.concept_names_[blue]
    assert trace.to_frame()["concept"][0] == name
    assert frame.loc[name, "kept"] < 0.02
    assert (frame.drop(name)["kept_elsewhere"] - 1).abs().max() < 0.02
    assert trace.maps["after"].shape == (3, 3, 16, 16)
    # Where the square is, the map was, and it is not there any more.
    square = np.asarray(images[y == 1][:3, 2] == 1)
    before, gone = (trace.maps[m][:, blue] for m in ("before", "after"))
    assert before[square].mean() > 10 * max(abs(before[~square]).mean(), 1e-9)
    assert abs(gone).max() < 0.05 * before.max()
    assert trace.activation_norm["after"] < trace.activation_norm["before"]


def test_the_same_model_keeps_everything(world):
    model, craft, images, y, _ = world
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    trace = trace_concepts(craft, model, images, y, [1])
    np.testing.assert_array_equal(trace.coefficients["before"], trace.coefficients["after"])
    np.testing.assert_array_equal(trace.maps["before"], trace.maps["after"])
    assert trace.relative_error["before"] == trace.relative_error["after"] < 0.2
    np.testing.assert_allclose(trace.coefficients["before"], craft.transform(images), rtol=1e-3)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_pictures_and_pages(world):
    model, craft, images, y, blue = world
    trace = trace_concepts(craft, model, images, y, [1], n_maps=2)
    figure = trace.plot([craft.concept_names_[blue]])
    assert len([ax for ax in figure.axes if ax.images]) == 2 * 3
    assert "class='drawn'" in trace._repr_html_()
    with pytest.raises(InputError, match="Unknown concept 'sky'"):
        trace.plot(["sky"])


def test_questions_that_have_no_answer(world):
    model, craft, images, y, _ = world
    with pytest.raises(InputError, match="a class for each of the 24 images, got 23"):
        trace_concepts(craft, model, images, y[1:], [1])
    with pytest.raises(InputError, match=r"got 0 of them among 24.*all classes"):
        trace_concepts(craft, model, images, y, [7])
    with pytest.raises(InputError, match="got 24 of them among 24"):
        trace_concepts(craft, model, images, y, [0, 1])
    with pytest.raises(SplitError, match="'1'"):
        trace_concepts(craft, nn.Sequential(nn.Flatten()), images, y, [1])
    with pytest.raises(InputError, match="n_maps"):
        trace_concepts(craft, model, images, y, [1], n_maps=0)
