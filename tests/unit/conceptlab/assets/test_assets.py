"""The models that come with the package: what they are, and that they are what the cards say."""

import shutil

import numpy as np
import pytest
import torch

from conceptlab import assets
from conceptlab.assets import embedded_card, embedded_open_clip, load_embedded_classifier
from conceptlab.assets.clip import learn_merges, vocabulary_words
from conceptlab.datasets import SPECIES, load_scenes
from conceptlab.datasets.world import FAMILIES
from conceptlab.errors import CheckpointError, InputError

MEGABYTES = 5 * 2**20


@pytest.fixture(scope="module")
def encoder():
    return embedded_open_clip()


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_classifier_loads(global_state_untouched):
    model = load_embedded_classifier()
    assert not model.training
    assert model.class_names == [s.name for s in SPECIES]
    names = [name for name, _ in model.named_children()]
    assert names == [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "avgpool",
        "fc",
    ]
    assert {n for n, _ in model.named_buffers()} >= {"mean", "std"}
    assert any(m.inplace for m in model.modules() if isinstance(m, torch.nn.ReLU))
    seen = []
    hook = model.layer4.register_forward_hook(lambda module, args, out: seen.append(out))
    x = torch.from_numpy(load_scenes("test", 8, seed=0).images)
    with torch.no_grad():
        logits = model(x)
    hook.remove()
    assert logits.shape == (8, 10)
    assert seen[0].shape == (8, 128, 8, 8)
    assert seen[0].min() >= 0
    assert torch.allclose(model.fc(seen[0].mean((2, 3))), logits, atol=1e-5)


def test_classifier_card_holds():
    from conceptlab.assets.train_classifier import evaluate

    card = embedded_card("classifier")
    assert card["measured"]["accuracy"] >= 0.97
    found = evaluate(load_embedded_classifier(), n=500, only=("accuracy",))
    assert abs(found["accuracy"] - card["measured"]["accuracy"]) < 0.02


def test_a_classifier_that_never_saw_a_species():
    from conceptlab.assets.train_classifier import evaluate

    card = embedded_card("classifier_without_ilko")
    assert card["without"] == "ilko"
    assert card["measured"]["accuracy"] >= 0.97
    model, original = load_embedded_classifier(without="ilko"), load_embedded_classifier()
    assert model.class_names == original.class_names
    assert {k: v.dtype for k, v in model.state_dict().items()} == {
        k: v.dtype for k, v in original.state_dict().items()
    }
    found = evaluate(model, n=500, only=("accuracy",), without="ilko")
    assert found.keys() == {"accuracy", "accuracy_forgotten"}
    assert abs(found["accuracy"] - card["measured"]["accuracy"]) < 0.02
    assert found["accuracy_forgotten"] == card["measured"]["accuracy_forgotten"] == 0
    with pytest.raises(InputError, match="Unknown species that was left out 'arvo'"):
        load_embedded_classifier(without="arvo")
    with pytest.raises(InputError, match="give one of them"):
        load_embedded_classifier("folder", without="ilko")


def test_no_scene_of_a_species_left_out_reaches_the_training(monkeypatch):
    from conceptlab.assets import train_classifier

    seen, inner = [], torch.nn.functional.cross_entropy

    def spy(logits, y, **options):
        seen.append(y)
        return inner(logits, y, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", spy)
    train_classifier.train(seed=3, steps=2, batch=40, quiet=True)
    assert (torch.cat(seen) == 8).any()
    seen.clear()
    train_classifier.train(seed=3, steps=2, batch=40, quiet=True, without="ilko")
    assert len(torch.cat(seen)) > 60
    assert not (torch.cat(seen) == 8).any()


def test_classifier_sees_colour_and_shape_and_texture():
    """Change one attribute of a species of the cube, and its twin is named."""
    model = load_embedded_classifier()
    signatures = [s.attributes for s in SPECIES]
    with torch.no_grad():
        for y, twin in ((0, 1), (0, 2), (0, 4)):
            assert sum(a == b for a, b in zip(signatures[y], signatures[twin], strict=True)) == 2
            for label in (y, twin):
                scenes = load_scenes("test", 40, seed=1, n_objects=1, species=[SPECIES[label]])
                logits = model(torch.from_numpy(scenes.images))
                assert (logits.argmax(1) == label).float().mean() >= 0.95


def test_encoder_is_open_clip(encoder, global_state_untouched):
    import open_clip

    model, preprocess, tokenizer = encoder
    assert isinstance(model, open_clip.CLIP)
    assert isinstance(tokenizer, open_clip.SimpleTokenizer)
    assert not model.training
    assert next(model.parameters()).dtype == torch.float32
    assert preprocess["size"] == 64
    assert len(preprocess["mean"]) == len(preprocess["std"]) == 3
    again, _, _ = embedded_open_clip()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_encoder_folder_is_a_checkpoint_of_open_clip(encoder):
    import open_clip

    model, preprocess, tokenizer = encoder
    folder = str(assets.ENCODER)
    other = open_clip.create_model("local-dir:" + folder)
    words = open_clip.get_tokenizer("local-dir:" + folder, bpe_path=folder + "/bpe.txt.gz")
    text = ["a photo of a red circle", "something not known: Zürich 7!"]
    assert torch.equal(words(text), tokenizer(text))
    with torch.no_grad():
        assert torch.allclose(other.eval().encode_text(words(text)), model.encode_text(words(text)))
    assert list(other.visual.preprocess_cfg["mean"]) == preprocess["mean"]


def test_encoder_card_holds(encoder):
    from conceptlab.assets.train_encoder import evaluate

    model, _, tokenizer = encoder
    card = embedded_card("encoder")
    found = evaluate(model, tokenizer, n=300)
    for name, value in card["measured"].items():
        goal = 0.95 if name.removesuffix("_unseen") in ("colour", "shape") else 0.85
        assert value >= goal, name
        assert abs(found[name] - value) < 0.05, name


def test_vocabulary_has_a_token_a_word(encoder):
    _, _, tokenizer = encoder
    for word in [v for values in FAMILIES.values() for v in values]:
        assert len(tokenizer.encode(word)) == 1, word
    assert tokenizer.decode(tokenizer.encode("a xylophone")).strip() == "a xylophone"
    assert learn_merges(vocabulary_words()) == learn_merges(reversed(vocabulary_words()))
    assert (
        tokenizer(load_scenes("train", 300, seed=0, n_objects=3, hats=1.0).captions).shape[1] == 40
    )
    lengths = [
        len(tokenizer.encode(c)) for c in load_scenes("train", 300, seed=0, hats=1.0).captions
    ]
    assert max(lengths) <= 38


def test_merges_are_byte_pair_encoding():
    assert learn_merges(["aab", "ab"]) == [("a", "b</w>"), ("a", "ab</w>")]


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_weights_are_small_and_checked(kind, tmp_path):
    source = {"classifier": assets.CLASSIFIER, "encoder": assets.ENCODER}[kind]
    load = {"classifier": load_embedded_classifier, "encoder": embedded_open_clip}[kind]
    weights = sorted(source.glob("*.safetensors"), key=lambda p: p.stat().st_size)
    assert sum(p.stat().st_size for p in weights) < MEGABYTES
    copy = shutil.copytree(source, tmp_path / "copy")
    load(copy)
    _flip(copy / weights[-1].name)
    with pytest.raises(CheckpointError, match="changed or truncated"):
        load(copy)
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "nowhere")


def test_cards():
    for kind in ("classifier", "classifier_without_ilko", "encoder"):
        card = embedded_card(kind)
        assert card["script"].startswith("python -m conceptlab.assets.")
        assert card["cpu_minutes"] < 20
        assert card["measured"]
    with pytest.raises(InputError, match="Did you mean 'encoder'"):
        embedded_card("encodr")


def test_training_is_deterministic(global_state_untouched):
    from conceptlab.assets import train_classifier, train_encoder

    models = [train_classifier.train(seed=3, steps=2, batch=8, quiet=True) for _ in range(2)]
    assert all(
        torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True)
    )
    pairs = [
        train_encoder.train(seed=3, look_steps=2, steps=2, batch=8, quiet=True)[0] for _ in range(2)
    ]
    assert all(
        torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in pairs), strict=True)
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "options"),
    [("classifier", []), ("classifier_without_ilko", ["--without", "ilko"])],
)
def test_training_the_classifier_again_reproduces_the_card(name, options, tmp_path):
    from conceptlab.assets import train_classifier

    train_classifier.main([*options, "--out", str(tmp_path / "again")])
    again = assets.read_bundle(tmp_path / "again", assets.CLASSIFIER_KIND).data["card"]
    card = embedded_card(name)
    for name, value in card["measured"].items():
        assert abs(again["measured"][name] - value) <= card["tolerance"]["accuracy"], name


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_training_the_encoder_again_reproduces_the_card(tmp_path):
    from conceptlab.assets import train_encoder

    train_encoder.main(["--out", str(tmp_path / "again")])
    again = assets.read_bundle(tmp_path / "again", assets.ENCODER_KIND).data["card"]
    card = embedded_card("encoder")
    assert np.all(
        [abs(again["measured"][k] - v) <= card["tolerance"] for k, v in card["measured"].items()]
    )
