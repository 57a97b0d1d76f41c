"""Encoders as people have them: half precision, patches for pixels, vectors of a batch."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from conceptlab.datasets.resize import Fit
from conceptlab.encoders import (
    CallableEncoder,
    EncoderWarning,
    OpenClipEncoder,
    Preprocess,
    TransformersEncoder,
)
from conceptlab.errors import InputError
from conceptlab.models.identity import describe_callable, weights_fingerprint
from conceptlab.provenance import fingerprint


def images(n=4, size=32):
    return np.random.default_rng(0).random((n, 3, size, size), dtype=np.float32)


def small_clip(precision):
    import open_clip

    vision = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    model = open_clip.CLIP(16, vision, text).eval()
    if precision != "fp32":
        kept = torch.bfloat16 if precision == "bf16" else torch.float16
        open_clip.convert_weights_to_lp(model, dtype=kept)
    model.visual.preprocess_cfg = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return model, lambda texts: torch.ones(len(texts), 16, dtype=torch.long)


# mlfoundations/open_clip#79: some parameters stay in float32
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_open_clip_in_half_precision(precision):
    low = OpenClipEncoder(*small_clip(precision))
    full = OpenClipEncoder(*small_clip("fp32"))
    for name, given in (("encode_image", images()), ("encode_text", ["a cat", "a dog"])):
        one, other = getattr(low, name)(given), getattr(full, name)(given)
        np.testing.assert_allclose(one, other, atol=0.03)


class Words:
    def __call__(self, texts, **options):
        ids = torch.zeros(len(texts), 16, dtype=torch.long)
        return {"input_ids": ids if options.get("return_tensors") else [[1, 2]] * len(texts)}


def naflex():
    import transformers

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    config = transformers.Siglip2Config(
        vision_config={**tower, "patch_size": 8, "num_patches": 16},
        text_config={**tower, "vocab_size": 20, "max_position_embeddings": 16,
                     "projection_size": 32},
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.Siglip2Model(config).eval()


# huggingface/transformers#37907
def test_a_naflex_model_gets_its_patches():
    from transformers import Siglip2ImageProcessor

    model = naflex()
    prepare = Preprocess(Fit(32, 48), (0.5,) * 3, (0.5,) * 3)
    encoder = TransformersEncoder(model, Words(), prepare)
    pictures = (images(3, 48)[:, :, :32] * 255).astype(np.uint8)
    processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=24)
    with torch.no_grad():
        own = model.get_image_features(**processor(list(pictures), return_tensors="pt"))
    found = encoder.encode_image(pictures, normalize=False)
    np.testing.assert_allclose(found, own.pooler_output.numpy(), atol=1e-5)
    with pytest.raises(InputError, match="NaFlex"):
        TransformersEncoder(model, Words(), processor)
    odd = TransformersEncoder(model, Words(), Preprocess(Fit(30, 30)))
    with pytest.raises(InputError, match="patches of 8 pixels"):
        odd.encode_image(pictures)


def centred(x):
    x = x.mean((2, 3))
    return x - x.mean(0)


def padded(texts):
    longest = max(map(len, texts))
    return torch.tensor([[len(text) / longest, 1.0] for text in texts])


def test_vectors_that_depend_on_the_batch_are_told_once():
    encoder = CallableEncoder(centred, padded, fingerprint="of the batch")
    with pytest.warns(EncoderWarning, match="one image alone"):
        encoder.encode_image(images())
    with pytest.warns(EncoderWarning, match="one text alone"):
        encoder.encode_text(["cat", "zebra"])
    placed = CallableEncoder(  # the first is the same in every batch
        lambda x: x.mean((2, 3)) + torch.arange(len(x))[:, None], padded, fingerprint="placed"
    )
    with pytest.warns(EncoderWarning, match="one image alone"):
        placed.encode_image(images())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_image(images())
        plain = CallableEncoder(lambda x: x.mean((2, 3)), lambda texts: torch.ones(len(texts), 3))
        plain.encode_image(images())
        plain.encode_text(["cat", "zebra"])


# What says "the same" has looked at all of it.
def test_a_weight_written_past_torch_is_seen():
    model = nn.Linear(64, 64)
    before = weights_fingerprint(model)
    assert weights_fingerprint(model) == before
    model.weight.data[63, 63] += 1  # its version stays
    after = weights_fingerprint(model)
    assert after != before
    model.weight.detach().numpy()[0, 0] += 1
    assert weights_fingerprint(model) not in (before, after)


def test_arrays_inside_containers_count_whole():
    one, other = np.zeros(5000), np.zeros(5000)
    other[2500] = 1  # where the text of an array has three dots
    assert str(one) == str(other)
    assert fingerprint([one]) != fingerprint([other])
    assert fingerprint({"a": [one]}) != fingerprint({"a": [other]})

    def encoder(settings):
        return lambda x: x.mean((2, 3)) * settings["scale"][0]

    def identity(scale):
        return describe_callable(encoder({"scale": scale}))

    assert identity([one]) != identity([other])
    spaces = []
    for scale in (1.0, 2.0):
        module = nn.Flatten()
        settings = {"scale": scale}
        function = lambda x, m=module, s=settings: m(x) * s["scale"]  # noqa: E731
        spaces.append(CallableEncoder(lambda x, f=function, s=settings, m=module: f(x)).fingerprint)
    assert spaces[0] != spaces[1]
