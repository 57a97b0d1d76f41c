"""Make concepts with a text generator: ask, read, filter, and ask again for what is missing.

After stages 1 and 2 of Liu et al. (2026), "Beyond heuristic prompting: a
concept-guided Bayesian framework for zero-shot image recognition", with the
duplicates of all rounds compared and the rounds bounded.
"""

from __future__ import annotations

__all__ = ["ShortfallWarning", "synthesize"]

import inspect
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import GeneratorError, InputError
from conceptlab.parameters import Whole
from conceptlab.progress import Progress, track
from conceptlab.provenance import fingerprint
from conceptlab.seeds import RandomState, draw_seed
from conceptlab.vocabulary.checkpoint import SynthesisState, read_state, write_state
from conceptlab.vocabulary.concepts import ClassConcepts, check_texts_by_class
from conceptlab.vocabulary.filters import ConceptFilter
from conceptlab.vocabulary.generators import Generate, load_generator
from conceptlab.vocabulary.neighbours import check_classes, hard_negatives
from conceptlab.vocabulary.parsing import parse_concepts
from conceptlab.vocabulary.requests import ConceptRequest, default_request

if TYPE_CHECKING:
    from conceptlab.encoders.base import Encoder

_TRIES = 3


class ShortfallWarning(UserWarning):
    """Some classes got fewer concepts than were asked for."""


@dataclass
class _Run:
    """What stays the same during one run."""

    labels: list[str]
    generate: Generate
    takes_seed: bool
    neighbours: Mapping[str, Sequence[str]]
    request: Callable[[ConceptRequest], str]
    n_concepts: int
    per_request: int
    description: str
    retry_wait: float
    samples: list[str] = field(default_factory=list)


def synthesize(
    classes: Sequence[str],
    generate: Generate | str,
    encoder: Encoder,
    *,
    n_concepts: int = 50,
    n_neighbours: int = 10,
    per_request: int = 10,
    max_rounds: int = 15,
    patience: int = 3,
    max_words: int = 8,
    max_cosine: float | None = 0.95,
    visual: bool = True,
    description: str = "",
    request: Callable[[ConceptRequest], str] = default_request,
    existing: Mapping[str, Sequence[str]] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    retry_wait: float = 1.0,
    random_state: RandomState = None,
    progress: Progress = None,
    **options: Any,
) -> ClassConcepts:
    r"""Make visual concepts for every class with a text generator.

    For each class the encoder's own text tower finds the classes it is easily
    taken for. The generator is asked for short visible features that tell them
    apart; its answers are read leniently and filtered; classes that lack
    concepts are asked for again, with those they have listed, until nothing
    lacks or the rounds are used up.

    Parameters
    ----------
    classes : sequence of str
        Labels, all different; underscores are read as blanks.
    generate : callable or str
        From a list of prompts to a list of as many texts; a callable with a
        parameter ``seed`` gets one. ``"transformers:NAME_OR_FOLDER"`` runs a
        language model on this machine.
    encoder : Encoder
        The one that will classify.
    n_concepts : int
        Concepts wanted for each class.
    n_neighbours : int
        Other classes named in a question; fewer when there are not so many.
    per_request : int
        Most concepts asked for in one question.
    max_rounds : int
        Most questions for one class, earlier runs included.
    patience : int
        A class whose last `patience` answers brought nothing is not asked again.
    max_words : int
        Most words of a concept.
    max_cosine : float or None
        From which cosine of their embeddings two concepts of a class count as
        the same.
    visual : bool
        Whether to drop concepts with words for smell, sound, taste and the like.
    description : str
        A sentence on the images, for the question.
    request : callable
        Words a question from a :class:`ConceptRequest`.
    existing : mapping of str to sequence of str, optional
        Concepts to start from; kept as they are.
    checkpoint : path-like, optional
        A JSON file, written whole after every round. A run that finds it goes
        on from there; a finished one is read without asking anything, and one
        that brought nothing for any class starts again.
    retry_wait : float
        Seconds before the second try when the generator raises; doubled for
        the third and last.
    random_state : int, RandomState, Generator or None
        Seeds the generator, a new seed each round; kept in the checkpoint.
    progress : bool, callable or None
        See :data:`conceptlab.progress.Progress`; one step is a round.
    **options
        For :class:`TransformersGenerator`.

    Returns
    -------
    ClassConcepts
        In the order of `classes`. Its ``meta`` holds seed, rounds, what was
        rejected and why, and ``shortfall``: class to number of missing concepts.

    Warns
    -----
    ShortfallWarning
        If some classes have fewer concepts than wanted.

    Raises
    ------
    GeneratorError
        The generator raised three times running, returned no list of texts, or
        nothing usable for any class; a checkpoint keeps the rounds before.
    InputError
        Options out of range, unknown generators, or repeated classes.
    CheckpointError
        A checkpoint that is damaged or of other settings.

    Examples
    --------
    >>> from conceptlab.encoders import CallableEncoder
    >>> def read(texts):
    ...     return [[len(text), text.count("e"), text.count("a"), 1.0] for text in texts]
    >>> encoder = CallableEncoder(lambda x: x.mean(dim=(2, 3)), read)
    >>> def answer(prompts):
    ...     return ["- a long tail\n- four legs, seen from above" for _ in prompts]
    >>> made = synthesize(["newt"], answer, encoder, n_concepts=2, max_cosine=None)
    >>> made["newt"]
    ['a long tail', 'four legs, seen from above']
    """
    labels = check_classes(classes)
    Whole(1).check("n_concepts", n_concepts)
    Whole(0).check("n_neighbours", n_neighbours)
    Whole(1).check("per_request", per_request)
    Whole(1).check("max_rounds", max_rounds)
    Whole(1).check("patience", patience)
    if not isinstance(generate, str):
        generate = load_generator(generate, **options)
    screen = ConceptFilter(
        labels, encoder, max_words=max_words, max_cosine=max_cosine, visual=visual
    )
    start = _existing(existing, labels)
    settings = {
        "classes": labels,
        "encoder": encoder.fingerprint,
        "n_concepts": n_concepts,
        "n_neighbours": n_neighbours,
        "per_request": per_request,
        "max_words": max_words,
        "max_cosine": max_cosine,
        "visual": visual,
        "description": description,
        "existing": fingerprint(start),
    }
    state = None if checkpoint is None else read_state(checkpoint, settings, random_state)
    if state is None or not any(state.texts.values()):
        # Rounds that brought nothing for any class are no work to go on from.
        seed = draw_seed(random_state) if state is None else state.seed
        state = SynthesisState(seed, texts={k: start.get(k, []) for k in labels})
    screen.seed(state.texts)
    screen.rejected.update(state.rejected)
    wanted = _wanted(state, screen, labels, n_concepts, max_rounds, patience)
    run: _Run | None = None
    for _ in track(
        range(max_rounds - state.rounds), description="make concepts", progress=progress
    ):
        if not wanted:
            break
        if run is None:
            if isinstance(generate, str):
                generate = load_generator(generate, **options)
            neighbours = hard_negatives(labels, encoder, n_neighbours)
            run = _Run(
                labels,
                generate,
                _takes_seed(generate),
                neighbours,
                request,
                n_concepts,
                per_request,
                description,
                retry_wait,
            )
        _one_round(run, state, screen, wanted, max_words)
        if checkpoint is not None:
            write_state(checkpoint, settings, state)
        wanted = _wanted(state, screen, labels, n_concepts, max_rounds, patience)
    if not any(screen.kept.values()):
        raise _nothing(run, state, screen)
    shortfall = {k: n_concepts - len(v) for k, v in screen.kept.items() if len(v) < n_concepts}
    if shortfall:
        _warn_shortfall(shortfall, n_concepts, len(labels), state.rounds, screen.rejected)
    meta = {
        "source": "synthesize",
        "generator": getattr(generate, "name", None) or _name_of(generate),
        "encoder": encoder.name,
        "seed": state.seed,
        "rounds": state.rounds,
        "settings": {k: v for k, v in settings.items() if k not in {"classes", "existing"}},
        "rejected": dict(screen.rejected),
        "shortfall": shortfall,
    }
    return ClassConcepts(screen.kept, meta=meta)


def _one_round(
    run: _Run, state: SynthesisState, screen: ConceptFilter, wanted: list[str], max_words: int
) -> None:
    """Ask once for every class that lacks concepts; `state` changes only when all went well."""
    prompts = []
    for label in wanted:
        kept = screen.kept[label]
        prompts.append(
            run.request(
                ConceptRequest(
                    label,
                    tuple(run.neighbours[label]),
                    tuple(kept),
                    min(run.n_concepts - len(kept), run.per_request),
                    max_words,
                    run.description,
                )
            )
        )
    answers = _ask(run, prompts, state)
    run.samples = [text for text in answers if text.strip()][:1] or run.samples
    parsed = {label: parse_concepts(text) for label, text in zip(wanted, answers, strict=True)}
    empty = sum(not values for values in parsed.values())
    gained = screen.add(parsed, limit=run.n_concepts)
    if empty:
        screen.rejected["answer without concepts"] += empty
    state.rounds += 1
    for label in wanted:
        state.idle[label] = 0 if gained[label] else state.idle.get(label, 0) + 1
    state.texts = {label: list(values) for label, values in screen.kept.items()}
    state.rejected = dict(screen.rejected)


def _ask(run: _Run, prompts: list[str], state: SynthesisState) -> list[str]:
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InputError(
                f"request must return a text, got {type(prompt).__name__} for class number "
                f"{number}.",
                code="CL-INPUT-TYPE",
            )
    options = {}
    if run.takes_seed:
        sequence = np.random.SeedSequence([state.seed, state.rounds])
        options["seed"] = int(sequence.generate_state(1)[0] >> 1)
    kept = f" The {state.rounds} rounds before are kept in the checkpoint, if one was given."
    for attempt in range(_TRIES):
        try:
            answers = run.generate(list(prompts), **options)
            break
        except InputError:  # such as prompts over the context: a second try would fail too
            raise
        except Exception as error:
            if attempt + 1 == _TRIES:
                raise GeneratorError(
                    f"The text generator raised in round {state.rounds + 1}, {_TRIES} times "
                    f"running: {type(error).__name__}: {error}. Mend it and run again.{kept}"
                ) from error
            time.sleep(run.retry_wait * 2**attempt)
    if isinstance(answers, str) or not isinstance(answers, Sequence | np.ndarray):
        raise GeneratorError(
            f"The text generator must return a list of {len(prompts)} texts, one for each prompt, "
            f"got {type(answers).__name__}: {answers!r:.80}.{kept}"
        )
    if len(answers) != len(prompts):
        raise GeneratorError(
            f"The text generator returned {len(answers)} texts for {len(prompts)} prompts; "
            f"expected one for each.{kept}"
        )
    for number, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise GeneratorError(
                f"The text generator returned a {type(answer).__name__} for prompt {number}, "
                f"expected a text: {answer!r:.80}.{kept}"
            )
    return [str(answer) for answer in answers]


def _wanted(
    state: SynthesisState,
    screen: ConceptFilter,
    labels: list[str],
    n_concepts: int,
    max_rounds: int,
    patience: int,
) -> list[str]:
    if state.rounds >= max_rounds:
        return []
    return [
        label
        for label in labels
        if len(screen.kept[label]) < n_concepts and state.idle.get(label, 0) < patience
    ]


def _existing(
    existing: Mapping[str, Sequence[str]] | None, labels: list[str]
) -> dict[str, list[str]]:
    if existing is None:
        return {}
    texts = check_texts_by_class(existing)
    unknown = [label for label in texts if label not in set(labels)]
    if unknown:
        raise InputError(
            f"existing holds concepts for {unknown[:5]}, which are not among the classes.",
            code="CL-INPUT-LABELS",
        )
    return texts


def _takes_seed(generate: Generate) -> bool:
    try:
        parameters = inspect.signature(generate).parameters
    except (TypeError, ValueError):  # built-in callables tell nothing
        return False
    return "seed" in parameters


def _name_of(generate: Any) -> str:
    if isinstance(generate, str):
        return generate
    return str(getattr(generate, "__qualname__", type(generate).__qualname__))


def _nothing(run: _Run | None, state: SynthesisState, screen: ConceptFilter) -> GeneratorError:
    reasons = _reasons(screen.rejected)
    shown = f" Its last answer began: {run.samples[0][:120]!r}." if run and run.samples else ""
    return GeneratorError(
        f"After {state.rounds} rounds no class has a concept; rejected: {reasons}.{shown} "
        "Expected one short visible feature a line; see parse_concepts for the forms that are "
        "understood."
    )


def _warn_shortfall(
    shortfall: dict[str, int], wanted: int, n_classes: int, rounds: int, rejected: Counter[str]
) -> None:
    worst = sorted(shortfall, key=lambda label: -shortfall[label])[:5]
    shown = ", ".join(f"{label!r} {wanted - shortfall[label]}" for label in worst)
    warnings.warn(
        f"{len(shortfall)} of {n_classes} classes have fewer than {wanted} concepts after {rounds} "
        f"rounds (fewest: {shown}); rejected: {_reasons(rejected)}. meta['shortfall'] has all.",
        ShortfallWarning,
        stacklevel=3,
    )


def _reasons(rejected: Counter[str]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in rejected.most_common()) or "nothing"
