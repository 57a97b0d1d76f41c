"""Cutting a model: what h and g give, what is refused, and that the model stays as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from split_models import Answers, Skip, SmallCNN, small_bert, small_vit
from torch import nn

from conceptlab.errors import InputError, SplitError
from conceptlab.models import SplitModel


@pytest.fixture
def cnn():
    torch.manual_seed(0)
    return SmallCNN()


@pytest.fixture
def x():
    return torch.rand(4, 3, 12, 10, generator=torch.Generator().manual_seed(1))


def state_of(model):
    """Everything that must be as before."""
    return {
        "training": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "dict": [sorted(m.__dict__) for m in model.modules()],
        "ids": [id(p) for p in model.parameters()],
        "needs": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "formats": [p.is_contiguous() for p in model.parameters()],
    }


def assert_same(before, after):
    for key in ("training", "hooks", "dict", "ids", "needs", "formats"):
        assert before[key] == after[key], key
    for old, new in zip(before["grads"], after["grads"], strict=True):
        assert (old is None) == (new is None)
        assert old is None or torch.equal(old, new)
    assert all(torch.equal(v, after["values"][k]) for k, v in before["values"].items())


def test_cnn_with_an_in_place_relu_after_the_layer(cnn, x):
    cnn.eval()
    split = SplitModel(cnn, "last")
    a = split.g(x)
    by_hand = cnn.last(cnn.block(torch.relu(cnn.stem(x - cnn.mean)))).detach()
    torch.testing.assert_close(a, by_hand)
    assert a.min() < 0, "captured before the in-place ReLU"
    kept = a.clone()
    torch.testing.assert_close(split.h(a), cnn(x).detach())
    assert torch.equal(a, kept), "h must not change its argument"
    assert split.closed
    assert split.check(x[:1]) < 1e-6
    assert (split.layout, split.grid, split.n_prefix) == ("nchw", (6, 5), 0)
    assert (split.n_channels, split.n_outputs) == (12, 3)


@pytest.mark.parametrize("at", ["stem", "stem.0", "block", "block.1", "last", "fc"])
def test_every_layer_that_runs_once_gives_f_back(cnn, x, at):
    split = SplitModel(cnn, at)
    activations = split.g(x)
    torch.testing.assert_close(split.h(activations), split.f(x))
    # Any number of samples, none of which was seen before.
    other = torch.rand(7, 3, 12, 10)
    torch.testing.assert_close(split.h(split.g(other)), split.f(other))


def test_h_is_differentiable_and_leaves_parameters_alone(cnn, x):
    split = SplitModel(cnn, "last")
    a = split.g(x).requires_grad_(True)
    split.h(a)[:, 0].sum().backward()
    head = lambda t: cnn.eval().fc(torch.relu(t).mean((2, 3)))  # noqa: E731
    b = a.detach().clone().requires_grad_(True)
    head(b)[:, 0].sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    cnn.zero_grad(set_to_none=True)
    images = x.clone().requires_grad_(True)
    split.g(images).sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in cnn.parameters())


def test_the_model_is_left_as_it_was(cnn, x):
    cnn.train()
    cnn.block.eval()
    cnn.fc.bias.requires_grad_(False)
    cnn.last.register_forward_hook(lambda m, i, o: None)
    cnn(x).sum().backward()
    before = state_of(cnn)
    split = SplitModel(cnn, "last", channels_last=True)
    split.check(x)
    split.h(split.g(x.clone().requires_grad_(True))).sum().backward()
    SplitModel.suggest(cnn, x)
    split.predict(x)
    assert_same(before, state_of(cnn))


def test_the_model_is_left_as_it_was_after_an_exception(cnn, x):
    cnn.train()
    split = SplitModel(cnn, "last")
    a = split.g(x)
    split.h(a)
    before = state_of(cnn)
    with pytest.raises(RuntimeError):
        split.h(torch.rand(2, 11, 6, 5), inputs=x[:2])
    with pytest.raises(RuntimeError):
        split.g(torch.rand(2, 5, 12, 10))
    boom = cnn.fc.register_forward_pre_hook(lambda m, i: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        split.h(a)
    with pytest.raises(ZeroDivisionError):
        split.f(x)
    boom.remove()
    assert_same(before, state_of(cnn))
    torch.testing.assert_close(split.h(a), split.f(x))


def test_eight_threads_agree_with_one(cnn, x):
    cnn.train()
    splits = [SplitModel(cnn, at) for at in ("last", "block")]
    batches = [torch.rand(3, 3, 12, 10) for _ in range(8)]
    expected = [splits[i % 2].f(batch) for i, batch in enumerate(batches)]
    results: list = [None] * 8
    errors = []

    def work(i):
        try:
            for _ in range(10):
                split = splits[i % 2]
                a = split.g(batches[i])
                results[i] = split.h(a)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors
    for found, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert cnn.training


def test_a_users_hook_is_not_shown_empty_tensors(cnn, x):
    seen = []
    cnn.block.register_forward_hook(lambda m, i, o: seen.append(o))
    split = SplitModel(cnn, "last")
    torch.testing.assert_close(split.h(split.g(x)), split.f(x))
    assert seen
    assert all(type(output) is torch.Tensor for output in seen)


def test_in_place_operations_before_the_layer():
    """What was recorded is neither changed by the model's later steps nor by a replay."""

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.fc = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            y = self.first(x)
            y += 1
            return self.fc(self.second(y) + y)

    split = SplitModel(InPlace(), "second")
    x = torch.rand(1, 4)
    a = split.g(x)
    for _ in range(3):
        torch.testing.assert_close(split.h(a), split.f(x))
    torch.testing.assert_close(split.h(a.expand(3, -1)), split.f(x).expand(3, -1))


def test_weights_changed_later_are_used(cnn, x):
    for options in ({}, {"channels_last": True}):
        split = SplitModel(cnn, "last", **options)
        split.h(split.g(x))
        first = split.fingerprint
        with torch.no_grad():
            cnn.last.weight.mul_(0.5)
            cnn.stem[0].weight.mul_(0.5)
        cnn.eval()
        torch.testing.assert_close(split.h(split.g(x)), cnn(x).detach())
        assert split.fingerprint != first


def test_vit_tokens_with_class_token():
    vit = small_vit()
    x = torch.rand(3, 3, 32, 32)
    split = SplitModel(vit, "encoder.layers.encoder_layer_1")
    a = split.g(x)
    assert (split.layout, split.grid, split.n_prefix, split.closed) == ("ntc", (4, 4), 1, True)
    rows = split.to_positions(a)
    assert rows.shape == (3, 17, 16)
    assert torch.equal(split.from_positions(rows), a)
    plane = split.spatial(rows)
    assert plane.shape == (3, 4, 4, 16)
    assert torch.equal(plane[:, 1, 2], a[:, 1 + 4 + 2])
    assert split.check(x) < 1e-5


def test_transformers_image_models_give_their_logits():
    from transformers import (
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    vit = ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=3,
            image_size=32,
            patch_size=8,
        )
    )
    x = torch.rand(2, 3, 32, 32)
    layer = SplitModel.suggest(vit, x, output="logits").query("recommended")["name"].item()
    split = SplitModel(vit, layer)
    assert torch.equal(split.f(x), SplitModel(vit, layer, output="logits").f(x))
    with pytest.raises(SplitError, match=r"'logit'.*'logits'.*\[CL-SPLIT-OUTPUT\]"):
        SplitModel(vit, layer, output="logit").g(x)
    assert split.check(x) < 1e-5
    assert (split.grid, split.n_prefix) == ((4, 4), 1)
    resnet = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3, layer_type="basic"
        )
    )
    split = SplitModel(resnet, "resnet.encoder", output="logits")
    assert split.check(x) < 1e-5
    assert split.layout == "nchw"


def test_text_with_and_without_padding():
    torch.manual_seed(0)
    bert = small_bert()
    ids = torch.randint(5, 50, (4, 7))
    mask = torch.ones_like(ids)
    split = SplitModel(bert, "bert.encoder.layer.0", output="logits")
    inputs = {"input_ids": ids, "attention_mask": mask}
    assert split.check(inputs) < 1e-5
    assert (split.layout, split.grid) == ("ntc", None)
    a = split.g(inputs)
    assert split.spatial(a) is None
    assert split.predict(inputs).shape == (4,)
    padded = {"input_ids": ids, "attention_mask": mask.clone()}
    padded["attention_mask"][2:, 3:] = 0
    fresh = SplitModel(bert, "bert.encoder.layer.0", output="logits")
    with pytest.raises(SplitError, match=r"mask.*h\(a, inputs=x\).*\[CL-SPLIT-MISMATCH\]"):
        fresh.check(padded)
    torch.testing.assert_close(fresh.h(fresh.g(padded), inputs=padded), fresh.f(padded))

    def tokenize(texts):
        rows = [[ord(letter) % 50 for letter in text] for text in texts]
        return {"input_ids": torch.tensor(rows)}

    words = SplitModel(bert, "bert.encoder.layer.0", output="logits", preprocess=tokenize)
    assert words.predict(["abc", "xyz", "foo"]).shape == (3,)
    torch.testing.assert_close(words.f(["abc"]), words.f(tokenize(["abc"])))
    # Texts of another length.
    short = {key: value[:, :5] for key, value in inputs.items()}
    torch.testing.assert_close(split.h(split.g(short)), split.f(short))
    torch.testing.assert_close(split.h(a), split.f(inputs))


def test_other_libraries_layouts():
    import timm
    from torchvision.models.swin_transformer import SwinTransformer

    swin = SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3)
    x = torch.rand(2, 3, 32, 48)
    split = SplitModel(swin, "features.3")
    assert split.check(x) < 1e-5
    assert (split.layout, split.grid, split.n_channels) == ("nhwc", (4, 6), 16)
    assert split.spatial(split.to_positions(split.g(x))).shape == (2, 4, 6, 16)
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=3,
        img_size=(32, 48),
        patch_size=8,
        embed_dim=16,
        depth=3,
        num_heads=2,
        reg_tokens=2,
    ).eval()
    split = SplitModel(vit, "blocks.1")
    assert split.check(x) < 1e-5
    assert (split.grid, split.n_prefix) == ((4, 6), 3)


def test_sequence_first_transformer():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=False)
            self.first, self.second = layer, nn.Linear(8, 8)
            self.fc = nn.Linear(8, 2)

        def forward(self, x):
            return self.fc(self.second(self.first(x.flatten(2).permute(2, 0, 1))).mean(0))

    split = SplitModel(Sequence(), "first")
    x = torch.rand(5, 8, 3, 3)
    assert split.check(x) < 1e-5
    assert (split.layout, split.grid) == ("tnc", (3, 3))
    rows = split.to_positions(split.g(x))
    assert rows.shape == (5, 9, 8)
    torch.testing.assert_close(split.h(split.from_positions(rows)), split.f(x))


def test_conv1d_and_flat_layers():
    model = nn.Sequential(
        nn.Conv1d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(40, 6), nn.Linear(6, 2)
    )
    x = torch.rand(3, 2, 10)
    split = SplitModel(model, "0")
    assert split.check(x) < 1e-6
    assert (split.layout, split.n_channels, split.grid) == ("nct", 5, None)
    flat = SplitModel(model, "3")
    assert flat.check(x) < 1e-6
    assert (flat.layout, flat.to_positions(flat.g(x)).shape) == ("nc", (3, 6))


def test_values_that_go_round_the_layer_are_found(x):
    torch.manual_seed(0)
    split = SplitModel(Skip(), "body")
    with pytest.raises(SplitError, match=r"skip connection.*\[CL-SPLIT-MISMATCH\]"):
        split.check(x[:1])
    assert not split.closed
    torch.testing.assert_close(split.h(split.g(x), inputs=x), split.f(x))
    good = SplitModel(Skip(), "after")
    assert good.check(x) < 1e-6
    assert good.closed


def test_randomness_is_named_as_the_cause(x):
    class Noisy(SmallCNN):
        def forward(self, x):
            return super().forward(x) + torch.rand(1)

    with pytest.raises(SplitError, match="random numbers"):
        SplitModel(Noisy(), "last").check(x)


def test_layers_that_run_twice_or_never(cnn, x):
    cnn.unused = nn.ReLU()
    with pytest.raises(SplitError, match=r"'relu' runs 2 times.*\[CL-SPLIT-RUNS\]"):
        SplitModel(cnn, "relu").g(x)
    with pytest.raises(SplitError, match=r"'unused' does not run.*\[CL-SPLIT-RUNS\]"):
        SplitModel(cnn, "unused").check(x)


def test_unknown_layers_get_the_nearest_names(cnn):
    with pytest.raises(SplitError, match=r"no layer 'blok'.*'block'.*suggest.*\[CL-SPLIT-LAYER\]"):
        SplitModel(cnn, "blok")
    with pytest.raises(SplitError, match="not a part of SmallCNN"):
        SplitModel(cnn, nn.ReLU())
    with pytest.raises(SplitError, match="name or module"):
        SplitModel(cnn, 3)
    assert SplitModel(cnn, cnn.block).layer == "block"


def test_outputs_by_key_index_and_function(cnn, x):
    wanted = SplitModel(cnn, "last").f(x)
    for kind, output in (("dict", "scores"), ("tuple", 1), ("dict", lambda y: y["scores"])):
        split = SplitModel(Answers(cnn, kind), "model.last", output=output)
        torch.testing.assert_close(split.h(split.g(x)), wanted)
    cases = [
        ("dict", None, r"keys 'scores'.*output='scores'"),
        ("tuple", None, "index of the scores"),
        ("dict", "score", "Did you mean 'scores'"),
        ("tuple", 2, "output=2 does not fit"),
        ("map", None, r"shape \(n, n_outputs\), got \(1, 3, 12, 10\)"),
        ("text", None, "got str"),
    ]
    for kind, output, message in cases:
        with pytest.raises(SplitError, match=message + r".*\[CL-SPLIT-OUTPUT\]"):
            SplitModel(Answers(cnn, kind), "model.last", output=output).f(x)


def test_layer_with_several_tensors():
    bert = small_bert()
    ids = torch.randint(5, 50, (2, 6))
    split = SplitModel(bert, "bert", output="logits")
    with pytest.raises(SplitError, match="returns several tensors"):
        split.check({"input_ids": ids})


def test_wrappers_are_looked_through(cnn, x):
    wanted = SplitModel(cnn, "last").f(x)
    wrapped = SplitModel(nn.DataParallel(cnn), "module.last")
    assert (wrapped.layer, wrapped.model) == ("last", cnn)
    torch.testing.assert_close(wrapped.h(wrapped.g(x)), wanted)
    assert SplitModel(torch.compile(cnn), "last").model is cnn


def test_precision_and_memory_format(cnn, x):
    plain = SplitModel(cnn, "last")
    for options, tolerance in (({"channels_last": True}, 1e-5), ({"precision": "bfloat16"}, 0.05)):
        split = SplitModel(cnn, "last", **options)
        a = split.g(x)
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, plain.g(x), rtol=tolerance, atol=tolerance)
        split.check(x)
    with pytest.raises(InputError, match="Unknown precision 'fp16'"):
        SplitModel(cnn, "last", precision="fp16")
    double = SplitModel(SmallCNN().double(), "last")
    assert double.g(x).dtype == torch.float64


def test_numpy_in_numpy_out(cnn, x):
    split = SplitModel(cnn, "last")
    a = split.g(x.numpy())
    assert isinstance(a, np.ndarray)
    np.testing.assert_allclose(split.h(a), split.f(x).numpy(), rtol=1e-5)
    assert split.to_positions(a).shape == (4, 6, 5, 12)
    assert split.predict(x.numpy(), batch_size=3).tolist() == split.f(x).argmax(1).tolist()


def test_preprocess_is_the_first_step(cnn, x):
    split = SplitModel(cnn, "last", preprocess=lambda images: 2 * images - 1)
    torch.testing.assert_close(split.f(x), SplitModel(cnn, "last").f(2 * x - 1))
    assert split.fingerprint != SplitModel(cnn, "last").fingerprint
    same = SplitModel(cnn, "last", preprocess=lambda images: 2 * images - 1)
    other = SplitModel(cnn, "last", preprocess=lambda images: 3 * images - 1)
    assert split.fingerprint == same.fingerprint != other.fingerprint


def test_bad_inputs_are_refused_by_message(cnn, x):
    split = SplitModel(cnn, "last")
    cases = [
        (torch.rand(2, 32, 32, 3), "channels last"),
        (torch.rand(3, 32, 32), "got one image"),
        ((x * 255).to(torch.uint8), "Divide 8-bit images by 255"),
        (x[:0], "empty"),
        ("image.png", "got str"),
        ([], "no tensor"),
    ]
    for value, message in cases:
        with pytest.raises(InputError, match=message):
            split.g(value)
    with pytest.raises(SplitError, match="known after the first pass"):
        _ = SplitModel(cnn, "last").grid
    with pytest.raises(SplitError, match="no input seen so far"):
        SplitModel(cnn, "last").h(torch.rand(2, 12, 6, 5))
    split.g(x)
    with pytest.raises(InputError, match="4 axes"):
        split.to_positions(torch.rand(2, 12))
    with pytest.raises(InputError, match="class_names has 2 names"):
        SplitModel(cnn, "last", class_names=["a", "b"]).g(x)
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        SplitModel(lambda x: x, "last")
    with pytest.raises(InputError, match="inputs has 3 samples"):
        split.h(split.g(x), inputs=x[:3])
    with pytest.raises(SplitError, match="one 'n' and one 'c'"):
        SplitModel(cnn, "last", layout="nhw").g(x)


def test_images_of_another_size(cnn, x):
    split = SplitModel(cnn, "last")
    split.check(x)
    wide = torch.rand(2, 3, 8, 20)
    a = split.g(wide)
    torch.testing.assert_close(split.h(a), split.f(wide))
    assert split.spatial(split.to_positions(a)).shape == (2, 4, 10, 12)


def test_suggest_marks_a_layer_that_can_be_cut(cnn, x):
    import torchvision

    table = SplitModel.suggest(torchvision.models.resnet18(num_classes=5), torch.rand(2, 3, 64, 64))
    assert table.query("recommended")["name"].tolist() == ["layer4"]
    row = table.set_index("name").loc["layer4"]
    assert row["non_negative"]
    assert row["parameters_after"] == 512 * 5 + 5
    vit = SplitModel.suggest(small_vit(), torch.rand(2, 3, 32, 32)).set_index("name")
    # In the last block only the class token matters, so the block before is taken.
    assert vit.index[vit["recommended"]].tolist() == ["encoder.layers.encoder_layer_1"]
    assert vit.loc["encoder.layers.encoder_layer_2", "positions_used"] == pytest.approx(1 / 17)
    names = SplitModel.suggest(cnn)
    assert "stem.0" in set(names["name"])


def test_suggest_looks_past_blocks_whose_inner_layers_cannot_be_cut():
    import torchvision

    dense = torchvision.models.DenseNet(4, (2, 2, 40), 8)  # eighty inner ReLUs at the end
    table = SplitModel.suggest(dense, torch.rand(2, 3, 64, 64))
    assert table.query("recommended")["name"].tolist() == ["features"]


def test_channels_after_a_pooling_are_no_tokens():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.act = nn.Conv2d(3, 8, 4, stride=4), nn.ReLU()
            self.pool, self.head = nn.AdaptiveAvgPool1d(1), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.pool(self.act(self.embed(x)).flatten(2)).flatten(1))

    x = torch.rand(2, 3, 16, 16)
    table = SplitModel.suggest(Pooled(), x)
    assert table.query("recommended")["name"].tolist() == ["act"]
    split = SplitModel(Pooled(), "pool")
    split.check(x)
    assert (split.layout, split.n_channels) == ("nct", 8)


def test_another_layer_clone_and_repr(cnn, x):
    split = SplitModel(cnn, "last", channels_last=True)
    earlier = split.at_layer("block")
    assert earlier.layer == "block"
    assert earlier.channels_last
    assert earlier._session.lock is split._session.lock
    assert earlier.fingerprint != split.fingerprint
    assert clone(split) is split
    assert "at='last'" in repr(split)


def test_global_random_state(global_state_untouched, cnn, x):
    split = SplitModel(cnn, "last")
    split.check(x)


def test_inference_mode(cnn, x):
    with torch.inference_mode():
        split = SplitModel(cnn, "last")
        torch.testing.assert_close(split.h(split.g(x.clone())), split.f(x))
    a = split.g(x).requires_grad_(True)
    assert torch.autograd.grad(split.h(a).sum(), a)[0].abs().sum() > 0
