"""Encoders against the models' own transforms and forward passes, in real architectures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from conceptlab.encoders import OpenClipEncoder, Preprocess, load_encoder
from conceptlab.errors import CheckpointError, InputError

SIZES = [(50, 71), (40, 40), (90, 33), (24, 20), (32, 32)]


@pytest.fixture(scope="module")
def pictures():
    """Smooth pictures of several sizes, as photographs are."""
    rng = np.random.default_rng(0)
    made = []
    for height, width in SIZES:
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        made.append(noise.filter(ImageFilter.GaussianBlur(1.5)))
    return made


def as_chw(picture):
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def unit(features):
    return features / features.norm(dim=-1, keepdim=True)


OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 32,
        "patch_size": 8,
        "head_width": 16,
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}


@pytest.fixture(scope="module")
def clip_model():
    open_clip = pytest.importorskip("open_clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**OPEN_CLIP)
    model.visual.preprocess_cfg = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    return model.eval(), open_clip.SimpleTokenizer(context_length=16)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [32, 48, (24, 40)])
def test_open_clip_transform(pictures, mode, interpolation, size):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(
        size=size, interpolation=interpolation, resize_mode=mode, mean=(0.5, 0.4, 0.3), fill_color=9
    )
    theirs = image_transform_v2(config, is_train=False)
    if mode == "shortest" and isinstance(size, tuple) and interpolation == "bilinear":
        pytest.skip("open_clip drops the interpolation for sizes that are not square")
    ours = Preprocess.from_open_clip(config)
    expected = torch.stack([theirs(picture) for picture in pictures])
    assert torch.equal(ours(pictures), expected)
    std = torch.tensor(config.std).view(3, 1, 1)
    for picture, want in zip(pictures, expected, strict=True):
        ours_tensor = ours.tensor(as_chw(picture)[None] / 255)[0]
        assert ((ours_tensor - want).abs() * std).max() < 2.5 / 255
        assert ((ours_tensor - want).abs() * std).mean() < 0.5 / 255


def test_open_clip_features_and_texts(clip_model, pictures):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    model, tokenizer = clip_model
    encoder = OpenClipEncoder(model, tokenizer, name="tiny")
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    with torch.no_grad():
        images = unit(model.encode_image(torch.stack([transform(p) for p in pictures])))
        texts = unit(model.encode_text(tokenizer(["a red cat", "dog"])))
        raw = model.encode_text(tokenizer(["dog"]))
    np.testing.assert_allclose(encoder.encode_image(pictures), images, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text(["a red cat", "dog"]), texts, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text("dog", normalize=False), raw, atol=1e-6)
    assert encoder.dim == 16
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_templates_are_averaged_as_unit_vectors(clip_model):
    model, tokenizer = clip_model
    encoder = OpenClipEncoder(model, tokenizer)
    templates = ["a photo of a {}.", "{} on grass", "the {}"]
    with torch.no_grad():
        rows = [unit(model.encode_text(tokenizer([t.format("cat")])))[0] for t in templates]
    mean = torch.stack(rows).mean(0)
    for size in (1, 2, 256):
        found = encoder.encode_text(["dog", "cat"], templates=templates, batch_size=size)[1]
        np.testing.assert_allclose(found, unit(mean), atol=1e-6)
    plain = encoder.encode_text(["cat"], templates=templates, normalize=False)[0]
    np.testing.assert_allclose(plain, mean, atol=1e-6)
    assert encoder.encode_text(["cat"], templates="openai-imagenet").shape == (1, 16)


def test_open_clip_folder_round_trip(clip_model, pictures, tmp_path):
    from safetensors.torch import save_file

    model, tokenizer = clip_model
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": OPEN_CLIP, "preprocess_cfg": model.visual.preprocess_cfg})
    )
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_encoder(f"open_clip:{tmp_path}")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    expected = OpenClipEncoder(model, tokenizer).encode_image(pictures)
    before = torch.get_rng_state()
    for name in (f"open_clip:{tmp_path}", f"local-dir:{tmp_path}", str(tmp_path)):
        encoder = load_encoder(name, device="cpu")
        np.testing.assert_allclose(encoder.encode_image(pictures), expected, atol=1e-6)
    assert torch.equal(before, torch.get_rng_state())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="Cannot load"):
        load_encoder(f"open_clip:{tmp_path}")


def _pil_processor(kind):
    """Give the image processor on Pillow, whatever this version of transformers calls it."""
    import transformers

    name = f"{kind}ImageProcessor"
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def hugging_face(request, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "photo", "of", "cat", "dog", "."]
    vocabulary = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    inner = Tokenizer(vocabulary)
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {**tower, "vocab_size": 10, "max_position_embeddings": 12}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "clip":
            config = transformers.CLIPConfig(
                text_config=text, vision_config=vision, projection_dim=12
            )
            model = transformers.CLIPModel(config)
            processor = _pil_processor("CLIP")(
                size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
            )
        else:
            model = transformers.SiglipModel(
                transformers.SiglipConfig(text_config=text, vision_config=vision)
            )
            processor = _pil_processor("Siglip")(size={"height": 32, "width": 32})
    folder = tmp_path_factory.mktemp(request.param)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return request.param, folder, model.eval(), tokenizer, processor


def test_transformers_folder(hugging_face, pictures):
    kind, folder, model, tokenizer, processor = hugging_face
    before = torch.get_rng_state()
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    assert torch.equal(before, torch.get_rng_state())
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    assert torch.equal(encoder.preprocess(pictures), pixels)
    texts = ["a photo of a cat.", "dog"]
    tokens = tokenizer(texts, padding="max_length", max_length=12, return_tensors="pt")
    wanted = {"input_ids"} if kind == "siglip" else {"input_ids", "attention_mask"}
    with torch.no_grad():
        images = unit(model.get_image_features(pixel_values=pixels).pooler_output)
        words = {key: tokens[key] for key in wanted}
        words = unit(model.get_text_features(**words).pooler_output)
    np.testing.assert_allclose(encoder.encode_image(pictures), images, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text(texts), words, atol=1e-6)
    assert (encoder.logit_bias is None) == (kind == "clip")
    assert load_encoder(str(folder), device="cpu").fingerprint == encoder.fingerprint
    with pytest.raises(InputError, match="has 32"):
        encoder.encode_text(["a " * 30])
    assert encoder.encode_text(["a " * 30], truncate=True).shape == (1, encoder.dim)


def test_transformers_never_runs_foreign_code_nor_guesses_weights(hugging_face, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    kind, folder, *_ = hugging_face
    with pytest.raises(InputError, match="trust_remote_code is not allowed"):
        load_encoder(f"hf:{folder}", trust_remote_code=True)
    copy = tmp_path / kind
    shutil.copytree(folder, copy)
    state = load_file(copy / "model.safetensors")
    state.pop(next(name for name in state if "vision" in name))
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="would be random"):
        load_encoder(f"hf:{copy}")
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Cannot load"):
        load_encoder(f"hf:{copy}")


def test_odd_image_processors_are_refused():
    with pytest.raises(InputError, match="CallableEncoder"):
        Preprocess.from_transformers({"size": {"longest_edge": 384, "shortest_edge": 224}})
    with pytest.raises(InputError, match="CallableEncoder"):
        Preprocess.from_transformers({"size": {"height": 8, "width": 8}, "rescale_factor": 1 / 127})
