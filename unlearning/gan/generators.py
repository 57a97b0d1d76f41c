"""Generators behind one protocol: latents in, styles between, images in [0, 1] out."""

from __future__ import annotations

__all__ = ["Generator", "as_generator", "learn"]

import copy
import functools
import inspect
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from conceptlab.arrays import resolve_device
from conceptlab.errors import ConceptlabError, InputError
from conceptlab.seeds import quiet_randomness
from unlearning.notices import UnlearningWarning

Law = Callable[[int, torch.Generator], torch.Tensor]
_NOISE = 0  # seed of noise drawn inside a module: it has the same values at every call
_SPILL = 0.10  # how far, as a share of the range, a pixel may lie outside it
_SPILT = 0.05  # share of pixels that may lie farther
_NARROW = 0.05  # of the range, that the pixels of a few images must fill
_SAME = 0.005  # of the range: mean change of pixels of an image in another row


class Generator:
    """A generator with its latent law, its range and its styles declared once.

    A module with the parts ``mapping`` (latents to styles) and ``synthesis``
    (styles to images), such as StyleGAN2 and StyleGAN3 as published, is used
    through both; any other module goes from latents to images, and its latents
    count as styles. The module itself is never changed: :meth:`fork` copies it.

    Parameters
    ----------
    module : torch.nn.Module
        The user's generator.
    latent : int, sequence of int, or callable, optional
        Length of a standard normal latent, its shape, such as ``(64, 1, 1)``, or
        a law ``(n, torch.Generator) -> (n, ...)`` on the CPU. By default the
        module's own ``draw_latents``, or its ``z_dim``.
    output_range : (float, float), optional
        Range of its pixels. By default the module's ``output_range``, or (-1, 1)
        for a module with mapping and synthesis.
    n_classes : int, optional
        Number of classes of a conditional generator, drawn evenly; by default
        the module's ``c_dim``. A latent then carries its class at the end,
        one-hot, so that one row is all that an image depends on.
    labels : {"onehot", "index"}
        What the module takes as its second argument.
    truncation : float
        Styles are drawn towards their mean by this factor where the module
        knows how (``truncation_psi``); 1 leaves them.
    options : dict, optional
        Further keyword arguments of synthesis (or of the module).
    output : int or str, optional
        Where the images are in what synthesis (or the module) gives, if that is a
        tuple, list or mapping.
    latent_list : bool
        Whether the module takes a list that holds the latents.
    device : str or torch.device
        "auto" is where the module is.

    Attributes
    ----------
    module : torch.nn.Module
        As given.
    has_styles : bool
        Whether there are mapping and synthesis.
    output_range : tuple of float

    Examples
    --------
    >>> from conceptlab.assets import load_embedded_gan
    >>> generator = Generator(load_embedded_gan())
    >>> z = generator.draw(4, torch.Generator().manual_seed(0))
    >>> generator.images(z).shape, generator.styles(z).shape
    (torch.Size([4, 3, 32, 32]), torch.Size([4, 5, 64]))
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        latent: int | Sequence[int] | Law | None = None,
        output_range: tuple[float, float] | None = None,
        n_classes: int | None = None,
        labels: str = "onehot",
        truncation: float = 1.0,
        options: dict[str, Any] | None = None,
        output: int | str | None = None,
        latent_list: bool = False,
        device: str | torch.device = "auto",
    ) -> None:
        if not isinstance(module, nn.Module):
            raise InputError(
                f"A generator must be a torch.nn.Module, got {type(module).__name__}. Wrap a "
                "function in a module.",
                code="CL-INPUT-TYPE",
            )
        if labels not in {"onehot", "index"}:
            raise InputError(
                f"labels must be 'onehot' or 'index', got {labels!r}.", code="CL-INPUT-OPTION"
            )
        self.module = module
        self.has_styles = all(_runs(getattr(module, n, None)) for n in ("mapping", "synthesis"))
        self.n_classes = int(n_classes if n_classes is not None else getattr(module, "c_dim", 0))
        self.labels, self.truncation = labels, float(truncation)
        self.options = dict(options or {})
        self.output, self.latent_list = output, latent_list
        self.output_range = self._range(output_range)
        self._law, self._latent = self._latent_law(latent), latent
        place = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.device = place if device == "auto" else resolve_device(device)
        if self.device != place:
            self.module = _copy(module).to(self.device)

    def __repr__(self) -> str:
        kind = "mapping and synthesis" if self.has_styles else "latent to image"
        classes = f", {self.n_classes} classes" if self.n_classes else ""
        return f"Generator({type(self.module).__name__}, {kind}{classes}, {self.output_range})"

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the module's weights, which its inputs are cast to."""
        floats = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        return next(floats, torch.float32)

    def draw(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Draw n latents; those of a conditional generator end with their one-hot class.

        Parameters
        ----------
        n : int
        generator : torch.Generator
            On the CPU.

        Returns
        -------
        Tensor of shape (n, ...), on the generator's device
        """
        z = self._law(n, generator).float()
        if z.shape[:1] != (n,):
            raise InputError(
                f"The latent law gave shape {tuple(z.shape)} for n = {n}; expected (n, ...).",
                code="CL-INPUT-SHAPE",
            )
        if self.n_classes:
            drawn = torch.randint(self.n_classes, (n,), generator=generator)
            z = torch.cat([z, functional.one_hot(drawn, self.n_classes).float()], dim=1)
        return z.to(self.device)

    def styles(self, z: torch.Tensor) -> torch.Tensor:
        """Give the styles of latents: what the mapping says, or the latents themselves.

        Parameters
        ----------
        z : Tensor of shape (n, ...)

        Returns
        -------
        Tensor of shape (n, ...)
        """
        if not self.has_styles:
            return z
        code, label = self._split(z)
        mapping: Any = self.module.mapping
        known = _parameters(mapping)
        given: dict[str, Any] = {}
        if self.truncation != 1.0:
            if "truncation_psi" not in known:
                raise InputError(
                    f"truncation={self.truncation} was asked for, but the mapping of "
                    f"{type(self.module).__name__} takes no truncation_psi.",
                    code="CL-INPUT-OPTION",
                )
            given["truncation_psi"] = self.truncation
        takes_label = len(known) > 1 and known[1] in {"c", "y", "label", "labels"}
        code, label = self._cast(code, label)
        with quiet_randomness(_NOISE):
            w = mapping(code, label, **given) if takes_label else mapping(code, **given)
        return w.float() if isinstance(w, torch.Tensor) else w

    def images_of(self, w: torch.Tensor) -> torch.Tensor:
        """Give the images of styles.

        Parameters
        ----------
        w : Tensor
            As :meth:`styles` gives them.

        Returns
        -------
        Tensor of shape (n, 3, height, width), float32 in [0, 1]; grey is the same in all three
        """
        return self.unit(self.raw(w))

    def images(self, z: torch.Tensor) -> torch.Tensor:
        """Give the images of latents, (n, 3, height, width), float32 in [0, 1]."""
        return self.images_of(self.styles(z))

    def raw(self, w: torch.Tensor) -> torch.Tensor:
        """Give the module's own pixels for styles, in its own range."""
        if self.has_styles:
            synthesis: Any = self.module.synthesis
            known = set(_parameters(synthesis))
            if "**" in known and isinstance(synthesis, nn.Module):  # passed on to its parts
                known = {n for part in synthesis.modules() for n in _parameters(part)}
            given = dict(self.options)
            if "noise_mode" in known:
                given.setdefault("noise_mode", "const")
            inputs = self._cast(w)
        else:
            synthesis, given = self.module, self.options
            code, label = self._cast(*self._split(w))
            inputs = ([code] if self.latent_list else code,) + (() if label is None else (label,))
        with quiet_randomness(_NOISE):
            pixels = synthesis(*inputs, **given)
        return pixels if self.output is None else pixels[self.output]

    def _cast(self, *parts: Any) -> tuple[Any, ...]:
        """Give floating inputs the type of the weights."""
        dtype = self.dtype
        return tuple(
            p.to(dtype) if isinstance(p, torch.Tensor) and p.is_floating_point() else p
            for p in parts
        )

    def fork(self) -> Generator:
        """Give a generator around a deep copy of the module, in evaluation mode."""
        return self.around(_copy(self.module).eval())

    def around(self, module: nn.Module) -> Generator:
        """Give a generator with these declarations around another module of the kind."""
        return Generator(
            module,
            latent=self._latent,
            output_range=self.output_range,
            n_classes=self.n_classes,
            labels=self.labels,
            truncation=self.truncation,
            options=self.options,
            output=self.output,
            latent_list=self.latent_list,
        )

    def on(self, device: str | torch.device) -> Generator:
        """Give this generator, or one around a copy of the module on another device.

        Parameters
        ----------
        device : str or torch.device
            "auto" is where it is.

        Returns
        -------
        Generator
        """
        if device == "auto" or resolve_device(device) == self.device:
            return self
        return self.around(_copy(self.module).to(resolve_device(device)))

    def frozen(self) -> Generator:
        """Give a copy in evaluation mode without gradients of weights."""
        twin = self.fork()
        learn(twin.module, False)
        return twin

    @torch.no_grad()
    def check(self, n: int = 8, seed: int = 0) -> None:
        """Run a few latents and see that shape, range and values are as declared.

        Parameters
        ----------
        n : int
            Latents.
        seed : int
            Of the latents.

        Raises
        ------
        InputError
            Images that are not (n, 3, height, width) or (n, 1, height, width)
            (``CL-INPUT-LAYOUT``), not finite, or outside the declared range or in a
            small part of it (``CL-INPUT-RANGE``); latents that the module cannot take
            (``CL-INPUT-SHAPE``).

        Warns
        -----
        UnlearningWarning
            An image that depends on its row in the batch.
        """
        twin = self.fork()
        z = self.draw(n, torch.Generator().manual_seed(seed))
        try:
            pixels = twin.raw(twin.styles(z))
        except ConceptlabError:
            raise
        except Exception as error:  # of the user's module: of any kind
            lines = str(error).strip().splitlines() or [""]
            why, more = lines[0], ""
            if isinstance(self.module, torch.jit.ScriptModule):
                why = lines[-1].removeprefix("RuntimeError: ")
                more = " A traced module may know one size of batch only: script it instead."
            raise InputError(
                f"{type(self.module).__name__} cannot take latents of shape {tuple(z.shape)}: "
                f"{why}. Declare the law by latent=, a length, a shape such as "
                "(64, 1, 1), or a function; n_classes= for a conditional generator; "
                f"latent_list=True where it takes a list, output= where it gives one.{more}",
                code="CL-INPUT-SHAPE",
            ) from error
        if (
            not isinstance(pixels, torch.Tensor)
            or pixels.ndim != 4
            or pixels.shape[1] not in {1, 3}
        ):
            shape = tuple(getattr(pixels, "shape", ())) or type(pixels).__name__
            raise InputError(
                "A generator must give images (n, 3, height, width), or one channel for three, "
                f"got {shape}. Say by output= which part of a tuple or mapping they are, or wrap "
                "it in a module that gives them.",
                code="CL-INPUT-LAYOUT",
            )
        if not bool(torch.isfinite(pixels).all()):
            raise InputError("The generator gives NaN or infinity.", code="CL-INPUT-NONFINITE")
        low, high = self.output_range
        slack = _SPILL * (high - low)
        outside = ((pixels < low - slack) | (pixels > high + slack)).float().mean()
        low_seen, high_seen = float(pixels.min()), float(pixels.max())
        narrow = high_seen - low_seen < _NARROW * (high - low)
        if float(outside) > _SPILT or low_seen >= 0 > low or narrow:
            seen = f"[{low_seen:.3g}, {high_seen:.3g}]"
            raise InputError(
                f"output_range is {self.output_range}, but the pixels lie in {seen}. Declare the "
                "range of the generator by output_range=(low, high).",
                code="CL-INPUT-RANGE",
            )
        self._check_rows(twin, z, pixels)

    def _check_rows(self, twin: Generator, z: torch.Tensor, pixels: torch.Tensor) -> None:
        """Warn where the image of a latent is another one in another row."""
        turned = z.flip(0)
        moved = (twin.raw(twin.styles(turned)).flip(0) - pixels).abs().float().mean()
        low, high = self.output_range
        if float(moved) > _SAME * (high - low):
            warnings.warn(
                f"An image of {type(self.module).__name__} depends on its row in the batch: noise "
                "that is drawn inside the module goes by rows. Figures of pairs of images hold it. "
                "Fix the noise in the module, or switch it off by options=.",
                UnlearningWarning,
                stacklevel=3,
            )

    def _range(self, given: tuple[float, float] | None) -> tuple[float, float]:
        found = given or getattr(self.module, "output_range", None)
        if found is None and self.has_styles:
            found = (-1.0, 1.0)
        if found is None:
            raise InputError(
                f"{type(self.module).__name__} does not say in which range its pixels are. "
                "Declare it: Generator(module, output_range=(-1, 1)).",
                code="CL-INPUT-OPTION",
            )
        low, high = (float(value) for value in found)
        if not low < high:
            raise InputError(
                f"output_range must be (low, high), got {found}.", code="CL-INPUT-RANGE"
            )
        return low, high

    def _latent_law(self, latent: int | Sequence[int] | Law | None) -> Law:
        if latent is None:
            own = getattr(self.module, "draw_latents", None)
            if callable(own):
                return own
            latent = getattr(self.module, "z_dim", None)
        if callable(latent):
            return latent
        if isinstance(latent, Sequence) and all(isinstance(size, int) for size in latent):
            return functools.partial(_normal, *latent)
        if not isinstance(latent, int):
            raise InputError(
                f"{type(self.module).__name__} does not say what its latents are. Declare their "
                "length, Generator(module, latent=512), their shape, or their law.",
                code="CL-INPUT-OPTION",
            )
        return functools.partial(_normal, latent)

    def _split(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not self.n_classes:
            return z, None
        code, label = z[:, : -self.n_classes], z[:, -self.n_classes :]
        return code, label.argmax(1) if self.labels == "index" else label

    def unit(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give pixels in the module's own range as images in [0, 1] of three channels."""
        low, high = self.output_range
        unit = ((pixels.float() - low) / (high - low)).clamp(0.0, 1.0)
        return unit.expand(-1, 3, -1, -1) if unit.shape[1] == 1 else unit


def as_generator(generator: Generator | nn.Module) -> Generator:
    """Give a :class:`Generator` for what the user has.

    Parameters
    ----------
    generator : Generator or torch.nn.Module

    Returns
    -------
    Generator
    """
    return generator if isinstance(generator, Generator) else Generator(generator)


def learn(module: nn.Module, wanted: bool) -> None:
    """Switch the gradients of all weights; scripted modules have no ``requires_grad_``."""
    for parameter in module.parameters():
        parameter.requires_grad_(wanted)


def _copy(module: nn.Module) -> nn.Module:
    """Copy a module; scripted ones through a file, or their weights would be no leaves."""
    if not isinstance(module, torch.jit.ScriptModule):
        return copy.deepcopy(module)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is the user who has chosen TorchScript
        torch.jit.save(module, stream)
        stream.seek(0)
        twin: nn.Module = torch.jit.load(stream)
    return twin


def _normal(*sizes: Any) -> torch.Tensor:
    """Draw latents: their sizes, how many, and the generator."""
    *shape, n, generator = sizes
    return torch.randn(n, *shape, generator=generator)


def _runs(part: Any) -> bool:
    """Tell whether a part can be called; those of scripted modules may have no code."""
    if isinstance(part, torch.jit.ScriptModule):
        return isinstance(getattr(part, "forward", None), torch.ScriptMethod)
    return callable(part)


def _parameters(module: Any) -> list[str]:
    """Name the parameters of a module's forward; ``"**"`` stands for any others."""
    forward = getattr(module, "forward", module)
    if isinstance(forward, torch.ScriptMethod):  # has no signature, but a schema
        return [argument.name for argument in forward.schema.arguments][1:]
    found = inspect.signature(forward).parameters
    return ["**" if p.kind is p.VAR_KEYWORD else n for n, p in found.items()]
