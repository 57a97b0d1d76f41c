"""What every rank of the tests runs under torchrun; rank 0 writes what came out.

python -m torch.distributed.run --nproc-per-node N ranks.py FOLDER
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.distributed import Shards, World, extract, init
from conceptlab.errors import ConceptlabError
from conceptlab.extractors import NMFConcepts
from conceptlab.models import SplitModel
from unlearning.distances import FeatureStatistics

N = 45


def matrix(seed=0):
    """Rows of six parts with noise, (301, 40) float64."""
    rng = np.random.default_rng(seed)
    return rng.random((301, 6)) ** 3 @ rng.random((6, 40)) + 0.01 * rng.random((301, 40))


def dead_start(A):
    """A start of which one component reaches no row and must be sown anew."""
    W = np.random.default_rng(1).random((5, A.shape[1]))
    W[2] = 0
    return W


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU())
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


def pictures():
    return torch.rand(N, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def compute(world: World, folder: Path) -> dict[str, Any]:
    """Do all that runs over ranks, and give what must not depend on their number."""
    A = matrix()
    # Rank 0 of many holds nothing: a shard may be empty.
    share = world.share(len(A))
    if world.size > 1:
        cuts = [0, *(len(A) * np.arange(world.size) // (world.size - 1))]
        share = range(cuts[world.rank], cuts[world.rank + 1])
    mine = A[list(share)]
    found: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {
        "svd": {},
        "random": {"init": "random"},
        "starts": {"n_init": 3},
        "ridge": {"l2": 0.1},
        "sown": {"init": dead_start(A)},
    }
    for name, options in settings.items():
        model = NMFConcepts(5, random_state=0, device="cpu", **options).fit(mine, world=world)
        found[f"W {name}"] = model.components_
        found[f"error {name}"] = model.reconstruction_err_
        found[f"steps {name}"] = model.n_iter_
        found[f"UA {name}"] = model.statistics_.UA
    single = NMFConcepts(5, random_state=0, device="cpu").fit(mine.astype(np.float32), world=world)
    found["float32 error"] = single.reconstruction_err_
    split = SplitModel(network(), at="0", device="cpu")
    shards = Shards(pictures(), batch_size=4, world=world)
    for mode in ("grid", "random", "none"):
        parts = extract(split, shards, folder / mode, mode=mode, patch_size=12, n_crops=3)
        found[f"rows {mode}"], found[f"index {mode}"] = np.asarray(parts), parts.index
    rows = 1e6 + matrix(1)
    moments = FeatureStatistics(device="cpu")
    if len(share):
        moments.update(rows[list(share)])
    moments = moments.over(world)
    found["mean"], found["covariance"] = moments.mean, moments.covariance
    return found


def refusals(world: World) -> list[str]:
    """Give the codes of what ranks cannot agree on; each must come on all of them."""
    bad = matrix()[:50].copy()
    if world.rank == 1:
        bad[3, 3] = -1.0
    wide = matrix()[:50, : 40 - world.rank]
    tries = [
        lambda: NMFConcepts(3, device="cpu").fit(bad, world=world),
        lambda: NMFConcepts(3, device="cpu").fit(wide, world=world),
        lambda: NMFConcepts(3, device="cpu").fit(0 * bad.clip(0), world=world),
        lambda: Shards(pictures()[: 10 + world.rank], world=world),
    ]
    codes = []
    for call in tries:
        try:
            call()
            codes.append("none")
        except ConceptlabError as error:
            codes.append(error.code)
    return codes


def main() -> None:
    folder = Path(sys.argv[1])
    world = init(timeout=30)
    found = compute(world, folder)
    codes = world.gather(refusals(world))
    if world.is_main:
        np.savez(folder / "found.npz", codes=np.array(codes), **found)
    world.barrier()
    if world.rank == world.size - 1:
        os._exit(0)  # as a rank does that is killed: without a word to the others
    start = time.monotonic()
    try:
        world.sum(torch.ones(1))
    except ConceptlabError as error:
        (folder / f"lost-{world.rank}.txt").write_text(str(error))
    if time.monotonic() - start > 60:
        raise TimeoutError("a rank waited for more than a minute")
    sys.stdout.flush()
    os._exit(0)  # gloo's threads that wait for the lost rank may abort an orderly end


if __name__ == "__main__":
    main()
