"""Classifiers by name: the embedded one, those of three libraries, or the user's function."""

from __future__ import annotations

__all__ = [
    "LoadedModel",
    "Normalize",
    "load_model",
    "load_state_dict",
    "load_torchscript",
    "run_function",
]

import importlib
import importlib.util
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conceptlab.errors import CheckpointError, DependencyError, InputError, unknown_name
from conceptlab.io.reading import (
    check_plain_file,
    check_plain_folder,
    file_digest,
    is_utf8,
    read_plain_file,
)
from conceptlab.models.outputs import names_of
from conceptlab.seeds import quiet_randomness

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """Turn images in [0, 1] into a model's input: subtract the mean, divide by the deviation.

    Parameters
    ----------
    mean, std : tuple of 3 floats
        For the channels red, green and blue.

    Examples
    --------
    >>> normalize = Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    >>> normalize(torch.ones(1, 3, 1, 1)).flatten()
    tensor([2., 2., 2.])
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise a batch (n, 3, H, W)."""
        return (images - self.mean.to(images)) / self.std.to(images)


@dataclass(frozen=True)
class LoadedModel:
    """A classifier with what is needed to feed it and to read its answers.

    Attributes
    ----------
    model : torch.nn.Module
        In eval mode.
    preprocess : callable or None
        From images in [0, 1] to the model's input.
    class_names : list of str or None
        Names of the outputs.
    size : int or None
        Side of the input in pixels; None, as for a bare module, leaves images at their own.
    layer : str or None
        Where to cut; None leaves it to :meth:`SplitModel.suggest`.
    output : str, int, callable or None
        Where the scores are in what the model returns.

    Examples
    --------
    >>> loaded = load_model("embedded")
    >>> type(loaded.model).__name__, len(loaded.class_names)
    ('SceneResNet', 10)
    """

    model: nn.Module
    preprocess: Any = None
    class_names: list[str] | None = None
    size: int | None = 224
    layer: str | None = None
    output: Any = None


def load_model(name: str = "embedded") -> LoadedModel:
    """Load a classifier by name.

    Parameters
    ----------
    name : str
        - ``"embedded"``: the small ResNet that ships with the package;
        - ``"torchvision:resnet50"``: with torchvision's default weights (from
          its cache or the network);
        - ``"torchvision:resnet50@weights.safetensors"``: with local weights
          (safetensors, or a torch file of plain tensors);
        - ``"torchvision:resnet50@random"``: untrained, for checks;
        - ``"timm:resnet18"``, with ``@weights.safetensors`` or ``@random`` likewise: any
          classifier of timm;
        - ``"hf:FOLDER"``: an image classifier that transformers has saved, or a name on
          its hub;
        - ``"my_file.py:build"``: a function of yours, without arguments, that
          returns a module or a :class:`LoadedModel`. The file is run.

    Returns
    -------
    LoadedModel

    Raises
    ------
    InputError
        For an unknown name.
    CheckpointError
        When the weights cannot be had, or are unsafe, or do not fit.

    Examples
    --------
    >>> len(load_model("embedded").class_names)
    10
    >>> load_model("torchvision:resnet50@weights.safetensors")  # doctest: +SKIP
    """
    if name == "embedded":
        from conceptlab.datasets import load_embedded_classifier

        model = load_embedded_classifier()
        return LoadedModel(model, None, list(model.class_names), size=64)
    prefix, _, rest = name.partition(":")
    if prefix == "torchvision" and rest:
        return _from_torchvision(*rest.partition("@")[::2])
    if prefix == "timm" and rest:
        return _from_timm(*rest.partition("@")[::2])
    if prefix == "hf" and rest:
        return _from_transformers(rest)
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        return _from_file(Path(path), function)
    raise unknown_name(
        "model",
        name,
        [
            "embedded",
            "torchvision:resnet50",
            "torchvision:resnet50@weights.pth",
            "timm:resnet18",
            "hf:FOLDER",
            "my_file.py:build",
        ],
    )


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint without running anything in it.

    Dicts that hold the weights under ``state_dict`` or ``model`` are unwrapped,
    and the prefix ``module.`` that ``DataParallel`` leaves is taken off.

    Parameters
    ----------
    path : path-like
        ``.safetensors``, or a torch file that holds only tensors and plain values.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    CheckpointError
        Missing, truncated, or with anything in it that could run code.

    Examples
    --------
    >>> torch.save({"state_dict": {"weight": torch.ones(2)}}, "weights.pt")
    >>> load_state_dict("weights.pt")
    {'weight': tensor([1., 1.])}
    """
    path = Path(path)
    _check_there(path, "the weights")
    content: Any
    try:
        _check_unpacked(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load, load_file

            content = load_file(path) if is_utf8(path) else load(read_plain_file(path))
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        unsafe = "Weights only load failed" in str(error) or "Unsupported" in str(error)
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read as weights: {reason} "
            "Only tensors and plain values are read; save model.state_dict(), best with "
            "safetensors.",
            code="CL-CHECKPOINT-UNSAFE" if unsafe else "CL-CHECKPOINT-DAMAGED",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {
        str(key).removeprefix("module."): value
        for key, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors by name.", code="CL-CHECKPOINT-KIND")
    return tensors


def load_torchscript(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[Any, str]:
    """Load a TorchScript module, which is a program: take it from a source that you trust.

    Parameters
    ----------
    path : path-like
        What ``torch.jit.save`` wrote.
    device : torch.device or str
        Where to.

    Returns
    -------
    module : torch.jit.ScriptModule
        In eval mode.
    digest : str
        The sha256 of the file.

    Raises
    ------
    CheckpointError
        Missing (``CL-CHECKPOINT-MISSING``), or no TorchScript (``CL-CHECKPOINT-KIND``).
    """
    path = Path(path)
    _check_there(path, "the TorchScript module")
    try:
        _check_unpacked(path)
        module = torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:  # of the library: several kinds
        raise CheckpointError(
            f"{path} is no TorchScript file: {str(error)[:200]}. Export the module with "
            "torch.jit.save.",
            code="CL-CHECKPOINT-KIND",
        ) from error
    return module, file_digest(path)


def _check_there(path: Path, what: str) -> None:
    try:
        check_plain_file(path)
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}"
        if isinstance(error, FileNotFoundError):
            why = "does not exist"
        raise CheckpointError(
            f"{path} {why}; give the file with {what}.",
            code="CL-CHECKPOINT-MISSING",
        ) from error


def _check_unpacked(path: Path) -> None:
    """Refuse an archive that unpacks to far more than it has; torch packs its tensors loosely."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > 2**26 + 20 * path.stat().st_size:
        raise ValueError(f"it unpacks to {unpacked} bytes.")


def _from_torchvision(architecture: str, weights: str) -> LoadedModel:
    try:
        from torchvision import models
    except Exception as error:
        raise DependencyError(
            f"torchvision cannot be imported ({error}). Its build must fit torch "
            f"{torch.__version__}: pip install -U torch torchvision",
            code="CL-DEPENDENCY-BROKEN",
        ) from error
    known = models.list_models(module=models)
    if architecture not in known:
        raise unknown_name("torchvision architecture", architecture, known)
    default = models.get_model_weights(architecture)
    entry = next(iter(default)) if len(default) else None
    meta = dict(entry.meta) if entry is not None else {}
    recipe = entry.transforms() if entry is not None else None
    size = int(recipe.crop_size[0]) if recipe is not None else 224
    names: list[str] | None = list(meta["categories"]) if "categories" in meta else None
    if weights == "random":
        model = _build(models, architecture, None)
    elif weights:
        tensors = load_state_dict(weights)
        n_classes = _n_classes(tensors)
        model = _build(models, architecture, n_classes)
        _fill(model, tensors, weights)
        names = names if names is not None and len(names) == n_classes else None
    else:
        try:
            with quiet_randomness():  # weights are drawn before those of the file come
                model = models.get_model(architecture, weights="DEFAULT")
        except Exception as error:
            raise CheckpointError(
                f"The weights of torchvision's {architecture} could not be had: {error}. Without "
                f"network give a local file: torchvision:{architecture}@weights.pth",
                code="CL-CHECKPOINT-MISSING",
            ) from error
    mean = tuple(recipe.mean) if recipe is not None else IMAGENET_MEAN
    std = tuple(recipe.std) if recipe is not None else IMAGENET_STD
    return LoadedModel(model.eval(), Normalize(mean, std), names, size=size)


def _from_timm(architecture: str, weights: str) -> LoadedModel:
    timm = _library("timm")
    if architecture.partition(".")[0] not in timm.list_models():
        raise unknown_name("timm architecture", architecture, timm.list_models())
    tensors = load_state_dict(weights) if weights not in ("", "random") else None
    options = {} if tensors is None else {"num_classes": _n_classes(tensors)}
    try:
        with quiet_randomness(0):
            model = timm.create_model(architecture, pretrained=not weights, **options)
    except Exception as error:  # each kind of weights and of network has errors of its own
        if weights:
            raise
        raise CheckpointError(
            f"The weights of timm's {architecture} could not be had: {error}. Without network give "
            f"a local file: timm:{architecture}@weights.safetensors",
            code="CL-CHECKPOINT-MISSING",
        ) from error
    if tensors is not None:
        _fill(model, tensors, weights)
    config = timm.data.resolve_model_data_config(model)
    names: list[str] | None = None
    if model.num_classes == 1000:
        names = timm.data.ImageNetInfo().label_descriptions()
    prepare = Normalize(tuple(config["mean"]), tuple(config["std"]))
    return LoadedModel(model.eval(), prepare, names, size=int(config["input_size"][-1]))


def _from_transformers(source: str) -> LoadedModel:
    transformers = _library("transformers")
    local = os.path.isdir(source)
    try:
        if local:
            check_plain_folder(source)
        common = {"trust_remote_code": False, "local_files_only": local}
        with quiet_randomness():
            model, info = transformers.AutoModelForImageClassification.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True, **common
            )
        settings = transformers.AutoImageProcessor.from_pretrained(source, **common).to_dict()
    except Exception as error:  # each format of weights has errors of its own
        raise CheckpointError(
            f"hf:{source} cannot be had: {str(error)[:300]} Give a folder written by "
            "save_pretrained of an image classifier and of its processor, or a name on the hub "
            "and network.",
            code="CL-CHECKPOINT-MISSING",
        ) from error
    if absent := sorted(info.get("missing_keys", ())):
        raise CheckpointError(
            f"hf:{source} lacks {len(absent)} weights of a {type(model).__name__}, which would be "
            f"random: {', '.join(absent[:5])}. Get the folder again.",
        )
    size = settings.get("crop_size") if settings.get("do_center_crop") else settings.get("size")
    size = size if isinstance(size, int) else dict(size or {"height": 224})
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge")
    prepare = None
    if settings.get("do_normalize", True) and "image_mean" in settings:
        prepare = Normalize(tuple(settings["image_mean"]), tuple(settings["image_std"]))
    names = names_of(model)
    return LoadedModel(model.eval(), prepare, names, size=int(side or 224), output="logits")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"{name} cannot be imported ({error}): pip install {name}",
            code="CL-DEPENDENCY-MISSING",
        ) from error


def _build(models: Any, architecture: str, n_classes: int | None) -> nn.Module:
    options = {} if n_classes is None else {"num_classes": n_classes}
    with quiet_randomness(0):
        return models.get_model(architecture, weights=None, **options)


def _n_classes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Read the number of classes off the last matrix of the checkpoint."""
    matrices = [
        value for key, value in tensors.items() if key.endswith("weight") and value.ndim == 2
    ]
    return int(matrices[-1].shape[0]) if matrices else 1000


def _fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(
            f"The weights in {source} do not fit {type(model).__name__}: {' '.join(lines)[:300]} "
            "Name the architecture that they were trained with.",
            code="CL-CHECKPOINT-KIND",
        ) from error


def run_function(path: str | os.PathLike[str], function: str) -> Any:
    """Run a Python file of the user's and call a function of it, without arguments.

    Parameters
    ----------
    path : path-like
        The file, which is run.
    function : str
        Its function.

    Returns
    -------
    object
        What the function returns.

    Raises
    ------
    InputError
        No such file (``CL-INPUT-FILE``) or function (``CL-INPUT-OPTION``).
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist; give FILE.py:FUNCTION.", code="CL-INPUT-FILE")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file.", code="CL-INPUT-FILE")
    module = importlib.util.module_from_spec(spec)
    with quiet_randomness():
        spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise unknown_name(
            f"function in {path.name}",
            function,
            [key for key, value in vars(module).items() if callable(value) and key[0] != "_"],
        )
    with quiet_randomness():
        return getattr(module, function)()


def _from_file(path: Path, function: str) -> LoadedModel:
    built = run_function(path, function)
    if isinstance(built, nn.Module):
        return LoadedModel(built.eval(), class_names=names_of(built), size=None)
    if not isinstance(built, LoadedModel):
        raise InputError(
            f"{path.name}:{function} returned {type(built).__name__}; it must return a "
            "torch.nn.Module or a conceptlab.models.LoadedModel.",
            code="CL-INPUT-TYPE",
        )
    return built
