"""Eight threads at once: estimators, one model under many hooks, tokenizers, caches, seeds."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cases_conceptlab as made
import numpy as np
import pytest
import torch
from answers import bits, differences, facts
from instances import answer, feature_estimators, features, fitted, images, name_of

from attribution import ConceptGradients
from conceptlab import ActivationStore, SplitModel
from conceptlab.datasets import load_scenes
from conceptlab.encoders import CallableEncoder, EmbeddingCache, Preprocess, TransformersEncoder
from conceptlab.maps import concept_maps
from conceptlab.seeds import quiet_randomness
from unlearning import LogitMask, as_samples, features_and_logits, find_head
from unlearning.audit import quantised_copy
from unlearning.removal.features import FeatureExtractor

pytestmark = pytest.mark.filterwarnings("ignore")
N_THREADS = 8


@pytest.fixture(autouse=True)
def hasty_threads():
    """Let threads take turns as often as they can."""
    kept = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(kept)


def at_once(jobs):
    """Run each job in a thread of its own, all starting together; give their answers."""
    together = threading.Barrier(len(jobs))

    def run(job):
        torch.set_num_threads(1)
        together.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def agree(jobs, alone):
    for number, found in enumerate(at_once([lambda job=job: bits(job()) for job in jobs])):
        assert differences(bits(alone[number]), found) == [], f"thread {number}"


@pytest.mark.parametrize("estimator", feature_estimators(), ids=name_of)
def test_fitted_estimators(estimator, global_state_untouched):
    model, X = fitted(estimator), features()
    agree([lambda: answer(model, X)] * N_THREADS, [answer(model, X)] * N_THREADS)


def test_one_model_under_the_hooks_of_all(global_state_untouched):
    """Whatever looks into a model sees its own pass only, and leaves the model as it was."""
    model, x = made.model(), torch.from_numpy(images())
    model.eval()  # so that what runs a model in its own mode can be told alone
    model[0].train()
    before = facts(model)
    extractor = made.extractor()

    def jobs():
        late, early = SplitModel(model, at="0"), SplitModel(model, at="0.0")
        return [
            lambda: late.h(late.g(x)),
            lambda: early.h(early.g(x[:2])),
            lambda: SplitModel.suggest(model, x[:2]),
            lambda: features_and_logits(model, x[:4]),
            lambda: find_head(model, x[:2]).name,
            lambda: concept_maps(late, extractor, x[:2]),
            lambda: ConceptGradients(late, extractor, n_steps=2).inputs(x[:2], concept=0),
            lambda: FeatureExtractor(model)(x),
        ]

    def copies():
        late = SplitModel(model, at="0")

        def passes():
            return [late.h(late.g(x)) for _ in range(6)]

        twins = [lambda: inside(quantised_copy(model, 8)), lambda: inside(unlearned()), encoded]
        return [*[passes] * 5, *twins]

    def encoded():
        return CallableEncoder(model, fingerprint="model").encode_image(x)

    def unlearned():
        parts = {"forget": (x[:2], [0, 0]), "retain": (x[2:], [1, 2, 3, 1])}
        return LogitMask().unlearn(model, **parts).model

    def inside(twin):
        """What a copy must not have of a pass that ran meanwhile: stand-ins and hooks."""
        return twin.state_dict(), [
            [type(p).__name__ for p in twin.parameters()],
            [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in twin.modules()],
        ]

    for make, times in ((jobs, 4), (copies, 8)):
        alone = [job() for job in make()]
        for _ in range(times):
            agree(make(), alone)
            assert facts(model) == before


def test_features_are_those_of_the_own_pass():
    """Hooks see every pass of a model, so each thread gives images of its own."""
    model = made.model().eval()
    batches = [torch.from_numpy(images(2 + i)) for i in range(N_THREADS)]
    alone = [features_and_logits(model, x) for x in batches]
    for _ in range(20):
        agree([lambda x=x: features_and_logits(model, x) for x in batches], alone)


def test_a_split_model_that_has_seen_nothing_yet():
    alone = made.split().f(images())
    for _ in range(4):
        fresh = SplitModel(made.model(), at="0")
        jobs = [lambda s=fresh: s.h(s.g(images())), lambda s=fresh: s.f(images())] * 4
        agree(jobs, [alone] * N_THREADS)


def test_caches_that_fill(tmp_path):
    encoder = made.encoder()
    cache = EmbeddingCache(tmp_path / "cache", shard_size=2)
    alone = encoder.encode_image(images())
    agree([lambda: cache.encode_image(encoder, images())] * N_THREADS, [alone] * N_THREADS)
    assert np.array_equal(encoder.encode_image(images(), cache=cache), alone)
    expected = load_scenes("test", 3, seed=2)
    scenes = load_scenes("test", 3, seed=2)
    agree([lambda: scenes.images, lambda: scenes.masks] * 4, [expected.images, expected.masks] * 4)
    store = ActivationStore(tmp_path / "store", shard_size=6 * 4 * 5)  # five rows a shard
    rows = features(40).astype(np.float32)
    store.append(rows)
    store.finish()
    slices = [slice(5 * i, 5 * i + 5) for i in range(N_THREADS)]
    for _ in range(5):
        agree([lambda s=s: store[s] for s in slices], [rows[s] for s in slices])
    parts = (torch.from_numpy(images()), [0] * 6)
    samples = as_samples(parts)
    agree([lambda: samples.digest] * N_THREADS, [as_samples(parts).digest] * N_THREADS)


def test_global_state_survives_guards_in_turn(global_state_untouched):
    """Two threads that save and restore it in turn would each bring back what the other made."""

    def draw(seed):
        for _ in range(40):
            with quiet_randomness(seed):
                found = torch.rand(3), np.random.rand(3)  # noqa: NPY002
        return found

    agree([lambda s=s: draw(s) for s in range(8)], [draw(s) for s in range(8)])


def test_a_tokenizer_whose_padding_is_a_state():
    """Fast tokenizers are told anew by every call how to pad and where to cut."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {"[PAD]": 0, "[EOS]": 1, "a": 2, "red": 3, "tail": 4}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[EOS]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", eos_token="[EOS]", model_max_length=6
    )
    small = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 5, "max_position_embeddings": 6, "eos_token_id": 1},
        vision_config={**small, "image_size": 8, "patch_size": 4},
        projection_dim=4,
    )
    with quiet_randomness(0):
        clip = transformers.CLIPModel(config)
    encoder = TransformersEncoder(clip, tokenizer, Preprocess(None))
    texts = [["a"], ["a red tail", "red"], ["a tail a tail a"], ["tail"]] * 2
    alone = [encoder.encode_text(part) for part in texts]
    for _ in range(10):
        agree([lambda part=part: encoder.encode_text(part) for part in texts], alone)
