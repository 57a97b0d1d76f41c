"""Models that take numbers beside an image: `inputs=`, one entry for each image."""

import numpy as np
import pytest
import torch
from torch import nn

from conceptlab.errors import InputError, SplitError
from conceptlab.extractors import CRAFT
from conceptlab.importance import SobolImportance
from conceptlab.maps import concept_maps
from conceptlab.models import SplitModel
from conceptlab.models.patches import Patches


class Both(nn.Module):
    """An image, and numbers about it that join behind the convolutions."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU())
        self.about = nn.Linear(2, 4)
        self.mix, self.head = nn.Sequential(nn.Linear(12, 8), nn.ReLU()), nn.Linear(8, 3)

    def forward(self, image, meta):
        seen = self.body(image).mean((2, 3))
        return self.head(self.mix(torch.cat([seen, self.about(meta)], 1)))


class Turned(Both):
    """The numbers first, and a class of the camera as well."""

    def __init__(self):
        super().__init__()
        self.camera = nn.Embedding(5, 2)

    def forward(self, meta, camera, image):
        return super().forward(image, meta + self.camera(camera))


class Skip(Both):
    """Something of the image goes round the layer too."""

    def forward(self, image, meta):
        return super().forward(image, meta) + image.mean((1, 3))[:, :3]


def made(kind=Both):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind().eval()
        return model, torch.rand(6, 3, 32, 32), 3 * torch.randn(6, 2)


def test_importance_before_the_join_is_that_of_each_image_with_its_own_numbers():
    model, x, meta = made()
    few = SobolImportance(16, n_bootstrap=20)
    craft = CRAFT(SplitModel(model, "body"), 3, patches="none", random_state=0, importance=few)
    craft.fit(x, target=1, inputs={"meta": meta})
    U, W = craft.transform(x, pooled=False, inputs={"meta": meta}), craft.components_
    for i in (0, 3):  # the same from the model's own parts, without a cut

        def by_hand(u, i=i):
            seen = (u.float() @ torch.from_numpy(W).float()).flatten(1, -2).mean(1)
            about = model.about(meta[i : i + 1]).expand(len(u), -1)
            return model.head(model.mix(torch.cat([seen, about], 1)))

        alone = SobolImportance(16, exact=False, n_bootstrap=20, random_state=craft.seed_)
        expected = alone(by_hand, U[i : i + 1], target=1).values
        np.testing.assert_allclose(craft.importance_.values[i : i + 1], expected, atol=2e-3)
    turned = craft.estimate_importance(x, target=1, inputs=meta.flip(0)).values
    assert np.abs(turned - craft.importance_.values).max() > 0.01
    some = craft.estimate_importance(x[2:4], target=1, inputs=(meta[2:4],)).values
    np.testing.assert_allclose(some, craft.importance_.values[2:4], atol=1e-3)


def test_crops_take_the_numbers_of_their_image_along():
    model, x, meta = made()
    craft = CRAFT(SplitModel(model, "mix"), 2, patch_size=16, random_state=0)
    craft.fit(x, target="predicted", inputs={"meta": meta.numpy().astype(np.float64)})
    places = np.concatenate([Patches("grid", 16).places(i, 32, 32) for i in range(6)])
    np.testing.assert_array_equal(craft.patches_, places)
    image, y, left, side = places[-1]
    cut = x[image : image + 1, :, y : y + side, left : left + side]
    cut = nn.functional.interpolate(cut, size=(32, 32), mode="bilinear", align_corners=False)
    seen = torch.cat([model.body(cut).mean((2, 3)), model.about(meta[image : image + 1])], 1)
    row = model.mix(seen).detach().numpy()
    coded = craft.extractor_.transform(row)
    np.testing.assert_allclose(coded[0], craft.patch_coefficients_[-1], atol=1e-4)


def test_every_answer_takes_them():
    model, x, meta = made()
    given = {"inputs": {"meta": meta}}
    craft = CRAFT(SplitModel(model, "body"), 2, patches="none", random_state=0, n_refits=2)
    explanation = craft.fit(x, target=1, **given).explain(x, target=1, **given)
    assert explanation.images.shape == x.shape
    assert explanation.maps.shape == (6, 2, 32, 32)
    np.testing.assert_allclose(explanation.logits, model(x, meta).detach(), atol=1e-5)
    outputs = explanation.logits[explanation.shown, 1]
    np.testing.assert_allclose(explanation.effects.outputs, outputs, atol=1e-4)
    late = SplitModel(model, "mix")
    far = CRAFT(late, 2, patches="none", random_state=0).fit(x, target=1, **given)
    for method in ("occlusion", "rise"):
        options = {"method": method, "random_state": 0}
        maps = concept_maps(late, far.extractor_, x, **given, **options)
        alone = concept_maps(late, far.extractor_, x[2:3], inputs=meta[2:3], **options)
        np.testing.assert_allclose(maps[2:3], alone, atol=1e-4)
    found = concept_maps(late, far.extractor_, x, **given, level="input")
    wrong = concept_maps(late, far.extractor_, x, inputs=meta.flip(0), level="input")
    assert np.abs(found - wrong).max() > 1e-4
    split = craft.fit_classes(x, [0, 0, 0, 1, 1, 1], **given)
    assert {len(part.importance_.values) for part in split.values()} == {3}


def test_arguments_find_their_place_by_name():
    model, x, meta = made(Turned)
    given = {"camera": [0, 4, 2, 1, 0, 3], "meta": meta}
    craft = CRAFT(SplitModel(model, "body"), 2, patches="none", random_state=0)
    logits = craft.fit(x, inputs=given).explain(x, inputs=given, maps=None).logits
    expected = model(meta, torch.tensor(given["camera"]), x)
    np.testing.assert_allclose(logits, expected.detach(), atol=1e-5)


def test_what_does_not_fit_is_told():
    model, x, meta = made()
    craft = CRAFT(SplitModel(model, "body"), 2, patches="none", random_state=0)
    wrong = [
        ({"inputs": meta[:5]}, "CL-INPUT-SHAPE"),
        ({"inputs": {"meta": [["f", "m"]] * 6}}, "CL-INPUT-TYPE"),
        ({"inputs": {"meta": meta * float("nan")}}, "CL-INPUT-NONFINITE"),
        ({"inputs": {}}, "CL-INPUT-EMPTY"),
        ({"inputs": {"age": meta}}, "CL-INPUT-TYPE"),
        ({}, "CL-INPUT-TYPE"),  # images alone, as from a loader that leaves out the rest
    ]
    for given, code in wrong:
        with pytest.raises(InputError) as caught:
            craft.fit(x, **given)
        assert caught.value.code == code, given
    assert "inputs={'meta': ...}" in str(caught.value)
    with pytest.raises(InputError, match="images alone, or the dict alone"):
        craft.fit({"image": x, "meta": meta}, inputs=meta)
    craft.fit(x, inputs=meta)
    first = craft.images_fingerprint_
    assert craft.fit(x, inputs=meta.flip(0)).images_fingerprint_ != first


def test_an_image_that_goes_round_the_layer_is_seen_beside_inputs_too():
    model, x, meta = made(Skip)
    with pytest.raises(SplitError) as caught:
        CRAFT(SplitModel(model, "body"), 2, patches="none").fit(x, inputs=meta)
    assert caught.value.code == "CL-SPLIT-MISMATCH"
    split = SplitModel(Mean().eval(), "body")
    with pytest.raises(SplitError, match="go round the layer"):
        split.check(x[:1])


class Mean(nn.Module):
    """The mean of an image, which mirroring leaves as it is, goes round the layer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 5), nn.ReLU())

    def forward(self, image):
        return self.body(image).mean((2, 3)) + image.mean((2, 3))
