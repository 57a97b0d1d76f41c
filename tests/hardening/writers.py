"""All that writes to the disk, one function of a place each."""

import functools
import inspect

import numpy as np
import torch
from reports import REPORTS, SAVED
from torch import nn
from unlearning_world import request, small, trained
from word_encoder import WordEncoder

from conceptlab.encoders import CallableEncoder, EmbeddingCache
from conceptlab.io.files import atomic_write
from conceptlab.models import ActivationStore
from conceptlab.vocabulary import synthesize, write_concepts
from unlearning import ShardedEnsemble
from unlearning.removal import RemovalCache


def store(place):
    found = ActivationStore(place, shard_size=64)
    found.append(np.ones((8, 4), np.float32))
    found.finish()


def embeddings(place):
    encoder = CallableEncoder(lambda x: x.flatten(1)[:, :5], dim=5, name="e", fingerprint="e")
    EmbeddingCache(place).encode_image(encoder, torch.rand(3, 3, 4, 4))


def rounds(place):
    synthesize(
        ["frog", "newt"],
        lambda prompts: ["green skin\nlong tail"] * len(prompts),
        WordEncoder(),
        n_concepts=2,
        max_rounds=1,
        checkpoint=place,
        random_state=0,
        progress=False,
    )


def unlearn(place):
    model = trained()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        small("FineTune", max_steps=1).unlearn(model, checkpoint=place, **request())
    finally:
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def shards(place):
    X, y = torch.eye(6).repeat(4, 1), torch.arange(6).repeat(4) % 3
    found = ShardedEnsemble(lambda: nn.Linear(6, 3), 2, 2, epochs=1, random_state=0)
    found.fit(X, y, checkpoint=place)


@functools.cache
def made(kind):
    return {**REPORTS, **SAVED}[kind]()


def page(kind):
    def write(place):
        found = made(kind)
        pages = getattr(found, "to_html", None)
        (pages if pages and "path" in inspect.signature(pages).parameters else found.save)(place)

    return write


PAGES = [
    kind for kind in REPORTS if kind.__name__ in ("Explanation", "BottleneckReport", "GanReport")
]
WRITERS = {
    "a text": lambda place: atomic_write(place, "text" * 100),
    "concepts": lambda place: write_concepts({"frog": ["no tail"], "newt": ["wet skin"]}, place),
    "activations": store,
    "embeddings": embeddings,
    "removed images": lambda place: RemovalCache(place).put(
        "blur", "ab", np.random.default_rng(0).integers(0, 255, (3, 9, 9), dtype=np.uint8)
    ),
    "rounds of synthesis": rounds,
    "a run of unlearning": unlearn,
    "slices of an ensemble": shards,
    **{f"page of {kind.__name__}": page(kind) for kind in PAGES},
    **{f"saved {kind.__name__}": lambda place, kind=kind: made(kind).save(place) for kind in SAVED},
}
SLOW_TO_DRAW = ("page of Explanation",)
RESUME = ("activations", "rounds of synthesis", "a run of unlearning", "slices of an ensemble")
