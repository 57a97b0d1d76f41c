"""Sentences that put a class and one of its concepts before a text encoder."""

from __future__ import annotations

__all__ = ["PROMPTS", "PromptPreset", "class_text", "fill_prompt", "plain_prompt", "resolve_prompt"]

from collections.abc import Callable
from dataclasses import dataclass

from conceptlab.errors import InputError, unknown_name

_TAKES_IS = ("a ", "an ", "used ")
_TAKES_NOTHING = ("has ", "have ", "often ", "typically ", "may ", "can ", "is ", "are ")


@dataclass(frozen=True)
class PromptPreset:
    """How a class and a concept become one sentence.

    Attributes
    ----------
    name : str
        Name of the preset, or the sentence itself.
    sentence : str
        With ``{concept}`` and, as a rule, ``{class}``.
    plain : str
        The sentence of the class alone, with ``{class}``.
    lead : callable, optional
        Turns the concept to the words that take its place, such as
        ``"has four legs"``.

    Examples
    --------
    >>> from conceptlab.vocabulary import fill_prompt
    >>> preset = PromptPreset("mine", "a {class}, which has {concept}")
    >>> fill_prompt(preset, "newt", "a tail")
    'a newt, which has a tail'
    """

    name: str
    sentence: str
    plain: str = "a photo of a {class}."
    lead: Callable[[str], str] | None = None


def _which(concept: str) -> str:
    """Put "is" or "has" before a descriptor, as its first word asks for."""
    lowered = concept.lower()
    if lowered.startswith(_TAKES_IS):
        return f"is {concept}"
    return concept if lowered.startswith(_TAKES_NOTHING) else f"has {concept}"


PROMPTS: dict[str, PromptPreset] = {
    "cgbc": PromptPreset("cgbc", "a photo of a {class} with {concept}."),
    "cgbc-satellite": PromptPreset(
        "cgbc-satellite",
        "a satellite photo of {class} with {concept}.",
        "a satellite photo of {class}.",
    ),
    "dclip": PromptPreset("dclip", "{class}, which {concept}", "{class}", _which),
    "cupl": PromptPreset("cupl", "{concept}"),
    "concept": PromptPreset("concept", "{concept}"),
    "phrase": PromptPreset("phrase", "a photo of a {class} {concept}."),
}
"""Published ways by name: CGBC (Liu et al. 2026), its satellite form, DCLIP (Menon and
Vondrick 2023), CuPL (Pratt et al. 2023; whole sentences, verbatim), the bare concept, and
phrases that follow the class name."""


def resolve_prompt(template: str | PromptPreset) -> PromptPreset:
    """Give the preset that `template` stands for.

    Parameters
    ----------
    template : str or PromptPreset
        A key of :data:`PROMPTS`, or a sentence with ``{concept}`` once and
        ``{class}`` at most once.

    Returns
    -------
    PromptPreset

    Raises
    ------
    InputError
        Unknown name, or a sentence without ``{concept}`` (``CL-INPUT-OPTION``).

    Examples
    --------
    >>> resolve_prompt("cgbc").sentence
    'a photo of a {class} with {concept}.'
    """
    if isinstance(template, PromptPreset):
        return template
    if isinstance(template, str) and template in PROMPTS:
        return PROMPTS[template]
    if not isinstance(template, str) or "{" not in template:
        raise unknown_name(
            "prompt", template, PROMPTS, hint="A sentence of your own needs {class} and {concept}."
        )
    if template.count("{concept}") != 1 or template.count("{class}") > 1:
        raise InputError(
            f"The prompt {template!r} needs {{concept}} once and {{class}} at most once, such as "
            "'a photo of a {class} with {concept}.'.",
            code="CL-INPUT-OPTION",
        )
    return PromptPreset(template, template)


def class_text(label: str, *, underscores: bool = False) -> str:
    """Give the words for a label: ``_`` becomes a blank unless `underscores` keeps it.

    Parameters
    ----------
    label : str
        Class as in the data.
    underscores : bool
        Whether underscores stay.

    Returns
    -------
    str

    Examples
    --------
    >>> class_text("apple_pie"), class_text("apple_pie", underscores=True)
    ('apple pie', 'apple_pie')
    """
    return label if underscores else " ".join(label.replace("_", " ").split())


def fill_prompt(
    template: str | PromptPreset, label: str, concept: str, *, underscores: bool = False
) -> str:
    """Put a class and a concept into a sentence.

    Parameters
    ----------
    template : str or PromptPreset
        See :func:`resolve_prompt`.
    label : str
        Class as in the data.
    concept : str
        One concept.
    underscores : bool
        Whether underscores in label and concept stay, as in the published code.

    Returns
    -------
    str

    Examples
    --------
    >>> fill_prompt("dclip", "tree_frog", "a small green body")
    'tree frog, which is a small green body'
    """
    preset = resolve_prompt(template)
    concept = class_text(concept, underscores=underscores)
    words = concept if preset.lead is None else preset.lead(concept)
    # The concept goes in last and into a split sentence, so that braces in names stay text.
    before, after = preset.sentence.split("{concept}")
    text = class_text(label, underscores=underscores)
    return before.replace("{class}", text) + words + after.replace("{class}", text)


def plain_prompt(template: str | PromptPreset, label: str, *, underscores: bool = False) -> str:
    """Give the sentence of the class alone, without a concept.

    Parameters
    ----------
    template : str or PromptPreset
        See :func:`resolve_prompt`.
    label : str
        Class as in the data.
    underscores : bool
        Whether underscores in the label stay.

    Returns
    -------
    str

    Examples
    --------
    >>> plain_prompt("cgbc", "apple_pie")
    'a photo of a apple pie.'
    """
    preset = resolve_prompt(template)
    return preset.plain.replace("{class}", class_text(label, underscores=underscores))
