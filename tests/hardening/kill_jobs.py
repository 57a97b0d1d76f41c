"""Long jobs that are killed and go on; run by test_kill.py in a process of its own.

Each job is a function of a folder that does the same work whether it begins or goes on, and
gives what must be the same to the bit. It is run in forked processes: once to its end, then
killed (SIGKILL) at chosen moments, then to its end again. A moment is any call of a function
that writes to the disk, before it and after it, and every step that the job counts itself.
"""

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "contract"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "worlds"))

import numpy as np
import torch
from answers import bits
from safetensors.torch import load_file
from torch import nn
from unlearning_world import methods, request, small, trained, trains

from conceptlab import ConceptBank, NMFConcepts, SplitModel
from conceptlab.encoders import CallableEncoder, EmbeddingCache
from conceptlab.models import ActivationStore, pooled_activations
from conceptlab.training import checkpoint
from conceptlab.vocabulary import synthesize
from unlearning import ShardedEnsemble

WRITES = {"open", "write", "flush", "fsync", "replace", "rename", "mkdir", "rmdir", "unlink"}
CLOCK = type("Clock", (), {"now": 0, "fatal": -1})()
checkpoint.EVERY_SECONDS = 0.0  # a checkpoint at every chance


def moment():
    """Count a moment; at the fatal one the process is gone."""
    CLOCK.now += 1
    if CLOCK.now == CLOCK.fatal:
        os.kill(os.getpid(), signal.SIGKILL)


def _profile(frame, event, arg):
    if event in ("c_call", "c_return") and getattr(arg, "__name__", "") in WRITES:
        moment()


# -------------------------------------------------------------------------- jobs
def images(n=10, side=24):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def store(folder):
    """Collect activations into a store on disk."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    rows = ActivationStore(folder / "store", shard_size=5 * 4 * 7)
    found = pooled_activations(
        SplitModel(model, at="1"), images(), patch_size=12, batch_size=5, into=rows, progress=False
    )
    return np.asarray(found.rows), found.index


def store_of_positions(folder):
    """The same for every position of whole images."""
    rows = ActivationStore(folder / "store", shard_size=5 * 4 * 100)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3, stride=3), nn.ReLU(), nn.Flatten())
    found = pooled_activations(
        SplitModel(model, at="1"), images(), mode="none", batch_size=3, into=rows, progress=False
    )
    return np.asarray(found.rows), found.index


def nmf(folder):
    """Learn concepts from batches, and save after each."""
    place, rng = folder / "nmf", np.random.default_rng(0)
    batches = [rng.random((12, 6)) for _ in range(4)]
    found = NMFConcepts.load(place) if place.exists() else NMFConcepts(2, random_state=0)
    done = getattr(found, "n_rows_seen_", 0) // 12
    for batch in batches[done:]:
        found.partial_fit(batch)
        found.save(place)
    return found.components_


def saving(folder):
    """Save over an older bank: it is the old one or the new one, and then the new one."""
    place = folder / "bank"
    if place.exists():
        kept = ConceptBank.load(place)
        assert kept.names[0] in ("old", "new"), kept.names
        assert (kept.vectors == (1.0 if kept.names[0] == "old" else 2.0)).all()
    else:
        ConceptBank(np.ones((2, 3)), ["old", "b"], space="s").save(place)
    ConceptBank(2 * np.ones((2, 3)), ["new", "b"], space="s").save(place)
    return ConceptBank.load(place).vectors


def embeddings(folder):
    """Encode images through a cache."""

    def encode(batch):
        moment()
        return batch.flatten(1)[:, :5]

    encoder = CallableEncoder(encode, dim=5, name="e", fingerprint="e")
    cache = EmbeddingCache(folder / "cache", shard_size=3)
    return cache.encode_image(encoder, images(), batch_size=2)


def words(folder):
    """Ask a generator of texts for concepts, round by round."""
    from word_encoder import WordEncoder

    def generate(prompts, seed):
        moment()
        draw = np.random.default_rng(seed)
        nouns = ["skin", "tail", "leg", "eye", "belly", "back", "toe", "mouth"]
        looks = ["green", "wet", "long", "striped", "round", "pale"]
        said = [f"{look} {noun}" for look in looks for noun in nouns]
        return ["\n".join(draw.choice(said, 2)) for _ in prompts]

    found = synthesize(
        ["frog", "newt"],
        generate,
        WordEncoder(),
        n_concepts=6,
        max_rounds=8,
        checkpoint=folder / "rounds.json",
        random_state=0,
        progress=False,
    )
    return found.texts, found.meta["rejected"]


def forget(name):
    """Make the job of one method of unlearning."""

    def job(folder):
        def noisy(batch, generator):
            moment()
            return batch + 0.05 * torch.randn(batch.shape, generator=generator)

        def told(done, total):
            moment()

        known = small(name).get_params()
        changes = {"augment": noisy} if "augment" in known else {}
        found = small(name, **changes).unlearn(
            trained(), checkpoint=folder / "run", progress=told, **request()
        )
        return found.model.state_dict(), found.history

    return job


def shards(folder):
    """Fit a sharded ensemble, then delete from it."""

    def build():
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

    def told(done, total):
        moment()

    X = torch.randn(60, 6, generator=torch.Generator().manual_seed(3))
    y = torch.arange(60) % 3
    place = folder / "ensemble"
    if place.exists():
        found = ShardedEnsemble.load(place, build, data=(X, y))
    else:
        found = ShardedEnsemble(build, 2, 3, epochs=2, batch_size=8, random_state=0)
        found.fit(X, y, progress=told, checkpoint=folder / "fit")
        found.save(place)
    cost = found.delete((X[:4], y[:4]), progress=told, checkpoint=folder / "deletion")
    return found.states_, cost.passes, cost.slices


def generator(folder):
    """Make a generator of images forget."""
    from toy_gan import FAMILIES, toy_gan, toy_guide

    from unlearning.gan import TextToUnlearn, training

    training.EVERY_SECONDS = 0.0

    def told(done, total):
        moment()

    found = TextToUnlearn(
        toy_guide(),
        "red",
        retain=FAMILIES,
        random_state=0,
        steps=4,
        mapper_steps=2,
        n_survey=50,
        batch_size=16,
        fold_steps=20,
    ).unlearn(toy_gan(5), checkpoint=folder / "run", progress=told)
    return found.module.state_dict()


def removal(folder):
    """Judge a remover; finished removals are kept."""
    from unlearning.removal import RemovalBenchmark, SceneRemovals
    from unlearning.removal.removers import CallableRemover

    def noise(images, masks, seed):
        moment()
        draws = torch.Generator().manual_seed(seed)
        return torch.where(masks > 0, torch.rand(images.shape, generator=draws), images)

    data = SceneRemovals(("star",), n=8, size=32, random_state=0)
    bench = RemovalBenchmark(
        lambda x: x.mean(dim=(2, 3)),
        n_min=8,
        n_bootstrap=3,
        random_state=0,
        cache=folder / "removed",
    )
    report = bench.run(data, [CallableRemover(noise, name="noise")], progress=False)
    frame = report.to_frame()
    return frame.drop(columns=[c for c in frame if "second" in c])


def benchmarks(folder):
    """Run benchmarks one after another, those that a killed run has not finished."""
    from conceptlab.bench import _all

    def write(name):
        page = folder / f"{name}.md"
        code = f"open({str(page)!r}, 'w').write({name!r})"
        return _all.Job(name, (sys.executable, "-c", code), page, shown=name)

    planned = [write(name) for name in ("one", "two", "three")]
    with contextlib.redirect_stdout(io.StringIO()):
        assert _all.run_all(planned, folder, missing=True)
    log = _all.read_log(folder)
    return {name: (log[name].state, (folder / f"{name}.md").read_text()) for name in log}


def command(folder):
    """The same from the command line: train, audit, write weights and report."""
    import typer
    from typer.testing import CliRunner

    from unlearning.commands.unlearn import unlearn

    app, out = typer.Typer(), folder / "out"
    app.command()(unlearn)
    answer = CliRunner().invoke(
        app,
        [
            "--method",
            "fine-tune",
            "--epochs",
            "2",
            "--n-images",
            "80",
            "--n-test",
            "40",
            "--checkpoint",
            str(folder / "run"),
            "--out",
            str(out),
        ],
    )
    assert answer.exit_code == 0, answer.output
    return load_file(out / "model.safetensors")


JOBS = {
    "activation store": store,
    "activation store of positions": store_of_positions,
    "benchmarks": benchmarks,
    "embedding cache": embeddings,
    "generator": generator,
    "nmf": nmf,
    "removal": removal,
    "saving": saving,
    "sharded ensemble": shards,
    "synthesis": words,
    "unlearn command": command,
    **{f"forget {name}": forget(name) for name in methods() if trains(name)},
}


# ----------------------------------------------------------------------- killing
def in_child(job, folder, fatal=-1):
    """Run a job in a process of its own: its moments and a hash of its answer, or None."""
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if not child:
            status = 1
            try:
                CLOCK.now, CLOCK.fatal = 0, fatal
                sys.setprofile(_profile)
                found = job(folder)
                sys.setprofile(None)
                plain = hashlib.sha256(repr(bits(found)).encode()).hexdigest()
                os.write(answer.fileno(), json.dumps([CLOCK.now, plain]).encode())
                status = 0
            except BaseException:
                sys.setprofile(None)
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, os.WTERMSIG(status)
            return None
        assert os.WEXITSTATUS(status) == 0, f"failed when it was run with fatal={fatal}"
        answer.seek(0)
        return json.loads(answer.read())


def kills(name, folder, n_kills, seed):
    """Kill a job `n_kills` times, at random moments, or (0) at each; tell what came of it."""
    job, draw = JOBS[name], np.random.default_rng(seed)
    for place in ("warm", "whole"):
        (folder / place).mkdir(parents=True)
    job(folder / "warm")  # what is imported on first use counts for no moments
    n, expected = in_child(job, folder / "whole")
    chosen = range(1, n + 1)
    if n_kills:
        chosen = sorted(draw.choice(n, min(n_kills, n), replace=False) + 1)
    wrong, killed = [], 0
    for at in chosen:
        place = folder / str(at)
        place.mkdir()
        killed += in_child(job, place, int(at)) is None
        if draw.random() < 0.3:  # and once more on the way
            in_child(job, place, int(draw.integers(1, n)))
        _, found = in_child(job, place)
        if found != expected:
            wrong.append(int(at))
    return {"moments": n, "chosen": len(chosen), "killed": killed, "wrong": wrong}


def main(folder, n_kills, seed, *names):
    """Kill jobs, and print what came of each."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in names:
        start = time.perf_counter()
        found = kills(name, folder / name.replace(" ", "-"), n_kills, seed)
        seconds = round(time.perf_counter() - start, 1)
        print(json.dumps({"job": name, "seconds": seconds, **found}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
