"""Find, explain, classify, forget and audit, with one bank of concepts all the way."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bottlenecks import PostHocCBM
from conceptlab import CRAFT, SplitModel, load_encoder
from conceptlab.datasets import Species, load_scenes
from conceptlab.extractors.naming import name_concepts
from conceptlab.maps import pointing_game
from conceptlab.models.load import Normalize
from conceptlab.seeds import quiet_randomness
from unlearning import ConceptPoisoning, as_samples, split_classes
from unlearning.audit import audit, trace_concepts

DOCS = Path(__file__).resolve().parents[2] / "docs"
SPECIES = [
    Species("red circle", "red", "circle", "plain"),
    Species("red star", "red", "star", "plain"),
    Species("blue circle", "blue", "circle", "plain"),
    Species("blue star", "blue", "star", "plain"),
    Species("yellow circle", "yellow", "circle", "plain"),
]
YELLOW = 4


def draw(split, n):
    scenes = load_scenes(split, 2 * n, seed=0, species=SPECIES, n_objects=1, size=32)
    return scenes[scenes.objects["size"][:, 0] == 1][:n]


def layer(a, b, stride):
    convolution = nn.Conv2d(a, b, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(b), nn.ReLU())


def trained(samples, epochs=8):
    with quiet_randomness(0):
        model = nn.Sequential(
            Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
            nn.Sequential(layer(3, 16, 2), layer(16, 32, 2), layer(32, 64, 1)),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(64, len(SPECIES)),
        )
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for x, y in samples.batches(64, order):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def right(model, samples):
    with torch.no_grad():
        return float((model(samples.inputs).argmax(1) == samples.y).float().mean())


def test_scenes():
    train, test = draw("train", 600), draw("test", 200)
    data, held_out = (as_samples((scenes.images, scenes.y)) for scenes in (train, test))
    own, rest = split_classes(held_out, YELLOW)
    model = trained(data)
    assert right(model, held_out) >= 0.97

    # Find: one of the concepts is the colour that only the last class has, by name and place.
    split = SplitModel(model, at="1", class_names=test.class_names)
    craft = CRAFT(split, 8, patches="none", random_state=0).fit(train.images, target="predicted")
    words = ["red", "blue", "yellow", "green", "black", "white"]
    craft.rename(name_concepts(craft, train.images, load_encoder("embedded"), words).names)
    U = craft.transform(test.images)
    yellow = test.attributes[:, list(test.attribute_names).index("yellow")]
    correlation = np.array([np.corrcoef(u, yellow)[0, 1] for u in U.T])
    concept = int(correlation.argmax())
    name = craft.concept_names_[concept]
    assert correlation[concept] >= 0.9
    assert name.startswith("yellow")

    # Explain: the class hangs on it, and its map points at the object.
    importance = craft.estimate_importance(train.images[train.y == YELLOW], target=YELLOW)
    assert int(np.argmax(importance.mean)) == concept
    assert importance.mean[concept] >= 0.8
    shown = test.images[test.y == YELLOW][:20]
    maps = craft.maps(shown)[:, concept]
    masks = test.attribute_masks("yellow")[test.y == YELLOW][:20]
    assert pointing_game(maps, masks).mean() >= 0.8

    # Classify: the bottleneck's weight for the class is on the same name.
    bank = craft.to_bank()
    with torch.no_grad():
        features = [split.g(x).mean((2, 3)) for x in (data.inputs, held_out.inputs)]
    bottleneck = PostHocCBM(bank, nec=3).fit(features[0], train.y)
    assert bottleneck.score(features[1], test.y) >= 0.95
    assert bank.names[int(bottleneck.coef_[YELLOW].argmax())] == name

    # Forget: unlearning finds by the same bank what the class is known by.
    forget, retain = split_classes(data, YELLOW)
    unlearner = ConceptPoisoning(bank, scope="all", random_state=0)
    result = unlearner.unlearn(model, forget=forget, retain=retain)
    claimed = result.details["concepts"].to_frame().query("selected")["concept"]
    assert list(claimed) == [name]
    assert right(result.model, own) == 0
    assert right(result.model, rest) >= right(model, rest) - 0.01

    # Audit: the accuracies, and the maps from which it all began.
    report = audit(
        model, result, forget=forget, retain=retain, test=held_out, concepts=bank, relearn=False
    )
    frame = report.concept_frame().set_index(["concept", "model"])
    before, after = (frame.loc[(name, m), "attribution"] for m in ("before", "after"))
    assert before > 1
    assert after < before
    trace = trace_concepts(craft, result, test.images, test.y, [YELLOW])
    kept = trace.to_frame().set_index("concept").loc[name, "kept"]
    assert kept <= 0.1
    assert trace.maps["after"][:, concept].max() <= 0.25 * trace.maps["before"][:, concept].max()


@pytest.mark.slow
def test_photos(monkeypatch):
    if "CONCEPTLAB_DATA" not in os.environ:
        pytest.skip("set CONCEPTLAB_DATA to the folder with cifar10_jpeg.zip and models/")
    monkeypatch.syspath_prepend(str(DOCS / "results"))
    monkeypatch.syspath_prepend(str(DOCS / "howto"))
    from story_photos import drawn, published, walk  # type: ignore[import-not-found]

    weights = {k: v.clone() for k, v in published()[0].state_dict().items()}
    network, at = published()
    train, test = drawn(0, 100, centred=False)
    story = walk(
        network, at, train, test.select(torch.arange(0, len(test), 4)), "horse", attack=False
    )
    assert story.importance >= 0.5
    assert story.claimed == [story.concept]
    assert story.bottleneck >= story.network - 0.05
    assert story.on_class <= 0.02
    assert story.accuracy[1] >= story.accuracy[0] - 0.03
    assert story.kept <= 0.5 * story.others
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())
    assert "story_photos" in sys.modules
