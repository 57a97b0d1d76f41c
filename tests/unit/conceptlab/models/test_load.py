import pickle

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from conceptlab.errors import CheckpointError, InputError
from conceptlab.models.load import LoadedModel, Normalize, load_model, load_state_dict


@pytest.fixture(scope="module")
def tensors():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.squeezenet1_1(num_classes=7).state_dict()


def test_torchvision_with_local_weights(tensors, tmp_path):
    resnet = models.resnet18(num_classes=5)
    path = tmp_path / "resnet.safetensors"
    save_file(resnet.state_dict(), path)
    loaded = load_model(f"torchvision:resnet18@{path}")
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded.model(x), resnet.eval()(x))
    assert loaded.size == 224
    assert loaded.class_names is None  # not ImageNet's thousand
    assert not loaded.model.training


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model"])
def test_checkpoints_are_unwrapped(tensors, tmp_path, wrap):
    path = tmp_path / "weights.pth"
    parallel = {f"module.{key}": value for key, value in tensors.items()}
    torch.save(parallel if wrap == "plain" else {wrap: parallel, "best": 1.0}, path)
    assert set(load_state_dict(path)) == set(tensors)


def test_a_pickle_with_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    path = tmp_path / "weights.pth"
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(CheckpointError, match="Only tensors and plain values") as info:
        load_state_dict(path)
    assert info.value.code == "CL-CHECKPOINT-UNSAFE"


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps([1, 2])])
def test_rubbish_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_state_dict(path)


def test_missing_weights(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(f"torchvision:resnet18@{tmp_path / 'no.pth'}")


def test_weights_of_another_architecture(tensors, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="do not fit ResNet"):
        load_model(f"torchvision:resnet18@{path}")


def test_random_weights_only_on_request_and_without_global_state(global_state_untouched):
    a, b = (load_model("torchvision:resnet18@random").model for _ in range(2))
    assert torch.equal(a.fc.weight, b.fc.weight)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("embeded", "Did you mean 'embedded'"),
        ("torchvision:resnet5", "Did you mean 'resnet50'|resnet"),
        ("nothing.py:build", "does not exist"),
        ("timm:resnet1888@random", "Did you mean 'resnet18'|resnet"),
        ("tim:resnet18", "Did you mean 'timm:resnet18'"),
    ],
)
def test_unknown_names(name, text):
    with pytest.raises(InputError, match=text):
        load_model(name)


def test_a_function_of_the_users(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\nfrom conceptlab.models.load import LoadedModel\n"
        "def build():\n    return LoadedModel(nn.Flatten(), class_names=['a'], size=32)\n"
        "def bare():\n    return nn.Dropout()\n"
        "def wrong():\n    return 3\n"
    )
    loaded = load_model(f"{path}:build")
    assert isinstance(loaded, LoadedModel)
    assert loaded.size == 32
    bare = load_model(f"{path}:bare")
    assert not bare.model.training
    assert bare.size is None  # images stay as they are
    with pytest.raises(InputError, match="returned int"):
        load_model(f"{path}:wrong")
    with pytest.raises(InputError, match="Did you mean 'build'"):
        load_model(f"{path}:buid")


def test_normalize():
    x = torch.rand(2, 3, 4, 4)
    expected = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
    assert torch.allclose(Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))(x), expected)


def test_timm_by_name(tmp_path):
    loaded = load_model("timm:resnet18@random")
    assert (loaded.size, len(loaded.class_names), loaded.model.training) == (224, 1000, False)
    assert loaded.class_names[1].startswith("goldfish")
    import timm

    small = timm.create_model("test_resnet", num_classes=3)
    torch.save(small.state_dict(), tmp_path / "w.pt")
    mine = load_model(f"timm:test_resnet@{tmp_path / 'w.pt'}")
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(mine.model(x), small.eval()(x))
    assert mine.class_names is None
    with pytest.raises(CheckpointError, match="do not fit"):
        load_model(f"timm:resnet18@{tmp_path / 'w.pt'}")


def test_transformers_by_folder(tmp_path):
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    loaded = load_model(f"hf:{tmp_path}")
    assert (loaded.size, loaded.class_names, loaded.output) == (32, ["cat", "dog"], "logits")
    x = torch.rand(2, 3, 32, 32)
    pixels = processor(list(x), do_rescale=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(loaded.preprocess(x), pixels)
    with pytest.raises(CheckpointError, match="save_pretrained"):
        load_model(f"hf:{tmp_path / 'nothing'}")
