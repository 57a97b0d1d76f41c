"""One concept bank from CRAFT to the audit, on CIFAR-10 photos and a published ResNet-20.

``CONCEPTLAB_DATA=folder python docs/results/story_photos.py`` writes ``story-photos.md`` beside
this file; see ``unlearning_cifar10.py`` for the folder.
``tests/unit/test_packages_together.py`` walks the same way with fewer photos.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from unlearning_cifar10 import CLASSES, drawn, folder

from bottlenecks import PostHocCBM
from conceptlab import CRAFT, SplitModel
from conceptlab.provenance import provenance
from unlearning import ConceptPoisoning, split_classes
from unlearning.audit import audit, trace_concepts

HERE = Path(__file__).resolve().parent
FORGOTTEN = ("horse", "automobile", "ship")


@dataclass
class Story:
    """What was found on the way."""

    name: str
    concept: str
    importance: float
    network: float
    bottleneck: float
    claimed: list[str]
    fidelity: float
    kept: float
    others: float
    accuracy: tuple[float, float]
    on_class: float
    report: Any
    seconds: float


def published():
    """Give the network as one module of images in [0, 1], with its layer."""
    os.environ.setdefault("CONCEPTLAB_RESNET20", str(folder() / "models" / "resnet20_cifar10.th"))
    sys.path.insert(0, str(HERE.parent / "howto"))
    from resnet20_cifar import build

    loaded = build()
    network = nn.Sequential(loaded.preprocess, loaded.model).eval().requires_grad_(True)
    return network, f"1.{loaded.layer}"


def share_right(model, samples):
    """Give the accuracy of a model."""
    with torch.no_grad():
        found = torch.cat([model(x).argmax(1) for x in samples.inputs.split(250)])
    return float((found == samples.y).float().mean())


def walk(network, layer, train, test, name, *, n_concepts=20, attack=True):
    """Find, explain, classify, forget, audit, with one bank."""
    start = time.process_time()
    forgotten = CLASSES.index(name)
    split = SplitModel(network, at=layer, class_names=CLASSES)
    craft = CRAFT(split, n_concepts, patches="none", random_state=0)
    craft.fit(train.inputs, target="predicted")
    found = craft.estimate_importance(train.inputs[train.y == forgotten], target=forgotten)
    best = int(np.argmax(found.mean))

    bank = craft.to_bank()

    def features(samples):
        with torch.no_grad():
            return split.g(samples.inputs).mean((2, 3))

    cbm = PostHocCBM(bank, nec=5).fit(features(train), train.y)
    forget, retain = split_classes(train, forgotten)
    method = ConceptPoisoning(bank, lr=2e-4, random_state=0)
    result = method.unlearn(network, forget=forget, retain=retain)
    claimed = result.details["concepts"].to_frame().query("selected")["concept"]
    trace = trace_concepts(craft, result, test.inputs, test.y, [forgotten], n_maps=2).to_frame()
    kept = trace.set_index("concept")["kept"]
    own, rest = split_classes(test, forgotten)
    report = None
    if attack:
        report = audit(
            network,
            result,
            forget=forget,
            retain=retain,
            test=test,
            concepts=bank,
            class_names=CLASSES,
            max_steps=30,
            recovery=False,
            random_state=0,
        )
    return Story(
        name=name,
        concept=craft.concept_names_[best],
        importance=float(found.mean[best]),
        network=share_right(network, test),
        bottleneck=float(cbm.score(features(test), test.y.numpy())),
        claimed=list(claimed),
        fidelity=float(result.details["concepts"]["fidelity"]),
        kept=float(kept[craft.concept_names_[best]]),
        others=float(kept.drop(craft.concept_names_[best]).median()),
        accuracy=(share_right(network, rest), share_right(result.model, rest)),
        on_class=share_right(result.model, own),
        report=report,
        seconds=time.process_time() - start,
    )


PAGE = """\
# One story with photos

Made by `docs/results/story_photos.py`: the way of [](../tutorials/one-story.md) with the published
ResNet-20 and real CIFAR-10 photos, {train} to find concepts and to unlearn with, {test} to test.
One `ConceptBank` of 20 concepts of `layer3` goes from `CRAFT` to `PostHocCBM` (five concepts a
class on average), to `ConceptPoisoning` (a tenth of its default rate) and to the audit; the same
concepts are looked for in the model that forgot. One seed, one thread; {versions}.

| | {names} |
|---|{rules}|
{rows}

*Kept* is the mean coefficient of the concept on test photos of the forgotten class, after over
before, and the median of the other nineteen concepts stands beside it: the concept that made the
class goes, the others stay. There is no network that was trained without the class, so the
audit does not say more than *undecided* where nothing speaks against removal. The maps of the
concept are drawn by `trace_concepts(...).plot()`; photos are not shown here, since they are not
ours to copy.
"""


def main():
    """Walk for some classes and write the page."""
    network, layer = published()
    torch.set_num_threads(1)
    train, test = drawn(0, 200, centred=False)
    test = test.select(torch.arange(0, len(test), 2))
    stories = [walk(network, layer, train, test, name) for name in FORGOTTEN]
    facts = {
        "concept with the largest importance": lambda s: f"{s.concept}, {s.importance:.2f}",
        "accuracy of the network": lambda s: f"{s.network:.1%}",
        "accuracy through the concepts": lambda s: f"{s.bottleneck:.1%}",
        "what the class is known by": lambda s: (
            f"{', '.join(s.claimed) or 'none'} (fidelity {s.fidelity:.0%})"
        ),
        "accuracy on the class, after": lambda s: f"{s.on_class:.1%}",
        "accuracy on the others, before → after": lambda s: "{:.1%} → {:.1%}".format(*s.accuracy),
        "the concept, kept": lambda s: f"{s.kept:.3f}",
        "the other concepts, kept (median)": lambda s: f"{s.others:.3f}",
        "probe on the class, before → after": lambda s: " → ".join(
            f"{s.report.values[m]['probe_recall']:.2f}" for m in ("before", "after")
        ),
        "verdict of the audit": lambda s: str(s.report.verdict).partition(":")[0],
        "CPU seconds": lambda s: f"{s.seconds:.0f}",
    }
    rows = [f"| {fact} | {' | '.join(map(of, stories))} |" for fact, of in facts.items()]
    page = PAGE.format(
        train=len(train),
        test=len(test),
        rows="\n".join(rows),
        versions=", ".join(f"{k} {v}" for k, v in provenance()["versions"].items()),
        names=" | ".join(s.name for s in stories),
        rules="---|" * (len(stories) - 1) + "---",
    )
    (HERE / "story-photos.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
