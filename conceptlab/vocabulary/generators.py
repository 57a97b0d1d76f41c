"""Text generators: any callable, or a language model of transformers on this machine."""

from __future__ import annotations

__all__ = ["TransformersGenerator", "load_generator"]

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from conceptlab.arrays import resolve_device
from conceptlab.batching import AutoInt, BatchMemory, check_batch_size, iter_batches
from conceptlab.encoders.dependencies import cannot_load, import_package
from conceptlab.errors import CheckpointError, InputError, unknown_name
from conceptlab.io.reading import check_plain_folder
from conceptlab.models.session import Session
from conceptlab.progress import Progress
from conceptlab.seeds import quiet_randomness

Generate = Callable[..., Sequence[str]]
_LEAST_NEW = 16


class TransformersGenerator:
    r"""A causal language model as a function from prompts to texts.

    Sampling draws its noise from a generator of its own for each prompt, seeded
    by `seed` and the prompt. So one prompt has the same answer in any batch (up
    to rounding of padded batches), and no global random state is touched.

    Parameters
    ----------
    source : str or (model, tokenizer)
        Folder written by ``save_pretrained`` or a name on the Hugging Face hub;
        or the two objects themselves.
    device : str or torch.device
        See :func:`conceptlab.arrays.resolve_device`.
    max_new_tokens : int
        Longest answer; cut to what the model's context leaves.
    temperature : float
        0 takes the most likely token each time.
    top_p : float
        Sample from the least set of tokens with this probability.
    batch_size : int or "auto"
        Prompts a pass; "auto" halves it when memory runs out.
    system : str, optional
        A system message, where the chat template takes one.
    dtype : torch.dtype, optional
        Of the weights; by default as saved.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`.

    Raises
    ------
    CheckpointError
        Nothing there, or no safetensors weights.
    DependencyError
        transformers missing or broken.
    InputError
        Options out of range.

    Examples
    --------
    >>> generate = TransformersGenerator("Qwen/Qwen2.5-0.5B-Instruct")  # doctest: +SKIP
    >>> generate(["Name 3 visible features of: newt"], seed=0)  # doctest: +SKIP
    ['a long flat tail\nfour short legs\nan orange belly']
    """

    def __init__(
        self,
        source: str | tuple[Any, Any],
        *,
        device: str | torch.device = "auto",
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.95,
        batch_size: AutoInt = 8,
        system: str | None = None,
        dtype: torch.dtype | None = None,
        progress: Progress = None,
    ) -> None:
        if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise InputError(
                "Expected max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1, got "
                f"{max_new_tokens}, {temperature} and {top_p}.",
                code="CL-INPUT-RANGE",
            )
        self.max_new_tokens, self.temperature, self.top_p = max_new_tokens, temperature, top_p
        self.batch_size = check_batch_size(batch_size)
        self.system, self.progress = system, progress
        self._memory = BatchMemory()
        if isinstance(source, str | Path):
            self.name = f"transformers:{source}"
            self.device = resolve_device(device)
            model, self._tokenizer = _load(str(source), dtype)
            model.to(self.device)
        else:
            model, self._tokenizer = source
            self.name = f"transformers:{type(model).__name__}"
            self.device = next(model.parameters()).device
            if device != "auto" and resolve_device(device) != self.device:
                raise InputError(
                    f"The model is on {self.device}, and device={str(device)!r} was asked for. "
                    "Move it first, or use device='auto'.",
                    code="CL-INPUT-DEVICE",
                )
        self._model = model
        self._context = getattr(model.config, "max_position_embeddings", None)

    def __call__(self, prompts: Sequence[str], *, seed: int = 0) -> list[str]:
        """Answer every prompt.

        Parameters
        ----------
        prompts : sequence of str
            Wrapped by the tokenizer's chat template where it has one.
        seed : int
            Of the sampling.

        Returns
        -------
        list of str

        Raises
        ------
        InputError
            A prompt that leaves no room for an answer (``CL-INPUT-TEXT``).
        """
        texts = [self._framed(prompt) for prompt in prompts]
        special = not self._has_chat  # a chat template writes the special tokens itself
        lengths = [len(self._tokenizer(t, add_special_tokens=special)["input_ids"]) for t in texts]
        self._check_room(lengths)
        # Equal prompts get different answers, by the number of their occurrence.
        counts: dict[str, int] = {}
        streams = []
        for text in texts:
            counts[text] = counts.get(text, 0) + 1
            streams.append(_stream(seed, counts[text], text))
        # Prompts of like length share a batch, so that little is padded.
        order = sorted(range(len(texts)), key=lambda i: (-lengths[i], i))
        answers = [""] * len(texts)

        def answer(start: int, stop: int) -> list[str]:
            places = order[start:stop]
            return self._answer([texts[i] for i in places], [streams[i] for i in places], special)

        for start, stop, batch in iter_batches(
            answer,
            len(texts),
            batch_size=self.batch_size,
            device=self.device,
            memory=self._memory,
            description="generate texts",
            progress=self.progress,
        ):
            for i, text in zip(order[start:stop], batch, strict=True):
                answers[i] = text
        return answers

    def __repr__(self) -> str:
        return f"TransformersGenerator({self.name!r}, device={str(self.device)!r})"

    @property
    def _has_chat(self) -> bool:
        return bool(getattr(self._tokenizer, "chat_template", None))

    def _framed(self, prompt: str) -> str:
        if not self._has_chat:
            # A model that only continues text gets a list to continue.
            return f"{prompt}\n\n-"
        messages = [{"role": "user", "content": prompt}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        return str(
            self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        )

    def _check_room(self, lengths: list[int]) -> None:
        if self._context is None or not lengths:
            return
        longest = max(lengths)
        if longest + _LEAST_NEW > self._context:
            raise InputError(
                f"A prompt of {longest} tokens leaves no room for an answer in the context of "
                f"{self._context} tokens that {self.name} has. Use fewer neighbours, a shorter "
                "description, or a model with a longer context.",
                code="CL-INPUT-TEXT",
            )

    def _answer(self, texts: list[str], streams: list[int], special: bool) -> list[str]:
        transformers = import_package("transformers", "transformers")
        tokenizer, model = self._tokenizer, self._model
        end = getattr(model.generation_config, "eos_token_id", None) or tokenizer.eos_token_id
        pad = tokenizer.pad_token_id
        if pad is None:
            pad = end[0] if isinstance(end, list) else end
        rows = [tokenizer(t, add_special_tokens=special)["input_ids"] for t in texts]
        width = max(len(row) for row in rows)
        tokens = torch.full((len(rows), width), 0 if pad is None else int(pad))
        mask = torch.zeros_like(tokens)
        for i, row in enumerate(rows):  # padding on the left, as answers are on the right
            tokens[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
        room = self.max_new_tokens
        if self._context is not None:
            room = min(room, self._context - width)
        settings = transformers.GenerationConfig(
            max_new_tokens=room, do_sample=False, num_beams=1, pad_token_id=pad, eos_token_id=end
        )
        noise = transformers.LogitsProcessorList()
        if self.temperature > 0:
            noise.append(_GumbelNoise(streams, self.temperature, self.top_p))
        with Session(model, self.device, "float32", False).borrowed(), torch.no_grad():
            out = model.generate(
                tokens.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=settings,
                logits_processor=noise,
            )
        answers = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return [text if self._has_chat else f"-{text}" for text in answers]


class _GumbelNoise:
    """Make the largest score a sample: the Gumbel-max trick, with a generator for each row."""

    def __init__(self, streams: Sequence[int], temperature: float, top_p: float) -> None:
        self.temperature, self.top_p = temperature, top_p
        self.generators = [torch.Generator().manual_seed(stream) for stream in streams]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scaled = scores.float() / self.temperature
        if self.top_p < 1:
            ranked, order = scaled.sort(dim=-1, descending=True)
            shares = ranked.softmax(dim=-1)
            beyond = shares.cumsum(dim=-1) - shares >= self.top_p
            scaled = scaled.masked_fill(beyond.gather(-1, order.argsort(dim=-1)), -torch.inf)
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=g) for g in self.generators])
        tiny = torch.finfo(torch.float32).tiny
        gumbel = -torch.log(-torch.log(uniform.clamp(tiny, 1 - 1e-7)))
        return scaled + gumbel.to(scores.device)


def _stream(seed: int, occurrence: int, text: str) -> int:
    digest = hashlib.sha256(f"{seed}:{occurrence}:{text}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def load_generator(generate: Generate | str, **options: Any) -> Generate:
    """Give the function that `generate` stands for.

    Parameters
    ----------
    generate : callable or str
        A callable is returned as it is. ``"transformers:NAME_OR_FOLDER"`` loads
        a language model.
    **options
        For :class:`TransformersGenerator`.

    Returns
    -------
    callable
        From a list of prompts to a list of texts.

    Raises
    ------
    InputError
        Neither a callable nor a known name (``CL-INPUT-OPTION``).

    Examples
    --------
    >>> generate = load_generator(lambda prompts: ["a tail"] * len(prompts))
    >>> generate(["Which features has a newt?"])
    ['a tail']
    """
    if isinstance(generate, str):
        prefix, colon, rest = generate.partition(":")
        if prefix == "transformers" and colon and rest:
            return TransformersGenerator(rest, **options)
        raise unknown_name(
            "generator",
            generate,
            ["transformers:NAME_OR_FOLDER"],
            hint="Or give a function from a list of prompts to a list of texts.",
        )
    if not callable(generate):
        raise InputError(
            "generate must be a function from a list of prompts to a list of texts, or "
            f"'transformers:NAME_OR_FOLDER', got {type(generate).__name__}.",
            code="CL-INPUT-TYPE",
        )
    if options:
        raise InputError(
            f"{sorted(options)} are options of a transformers generator; a function takes its "
            "own, for example by functools.partial.",
            code="CL-INPUT-OPTION",
        )
    return generate


def _load(source: str, dtype: torch.dtype | None) -> tuple[Any, Any]:
    transformers = import_package("transformers", "transformers")
    local = os.path.isdir(source)
    if not local and source.startswith(("/", "./", "../", "~")):
        raise CheckpointError(f"There is no folder {source}.", code="CL-CHECKPOINT-MISSING")
    common = {"trust_remote_code": False, "local_files_only": local}
    try:
        if local:
            check_plain_folder(source)
        with quiet_randomness():
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype or "auto",
                use_safetensors=True,
                output_loading_info=True,
                **common,
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **common)
    except Exception as error:  # each format of files has errors of its own
        raise cannot_load(
            f"transformers:{source}",
            error,
            "Give a folder written by save_pretrained of a causal language model and of its "
            "tokenizer (weights in safetensors), or a name on the hub and network.",
        ) from error
    if info.get("missing_keys"):
        absent = sorted(map(str, info["missing_keys"]))
        raise CheckpointError(
            f"transformers:{source} lacks {len(absent)} weights, which would be random: "
            f"{', '.join(absent[:5])}. Get the folder again."
        )
    return model.requires_grad_(False), tokenizer
