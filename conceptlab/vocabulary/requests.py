"""What a text generator is asked for."""

from __future__ import annotations

__all__ = ["ConceptRequest", "default_request"]

from dataclasses import dataclass

from conceptlab.vocabulary.prompts import class_text

_LISTED = 60


@dataclass(frozen=True)
class ConceptRequest:
    """One question to a text generator.

    Attributes
    ----------
    label : str
        The class that concepts are wanted for.
    neighbours : tuple of str
        The classes it is likely to be confused with; may be empty.
    known : tuple of str
        Concepts that are there already.
    n : int
        How many more are wanted.
    max_words : int
        Most words of a concept.
    description : str
        A sentence on the images, or empty.

    Examples
    --------
    >>> request = ConceptRequest("newt", ("frog",), known=("a tail",), n=3, max_words=8)
    >>> "newt" in default_request(request)
    True
    """

    label: str
    neighbours: tuple[str, ...]
    known: tuple[str, ...]
    n: int
    max_words: int
    description: str = ""


def default_request(request: ConceptRequest) -> str:
    """Word a question for short visible features that tell a class from its neighbours.

    Parameters
    ----------
    request : ConceptRequest
        What is wanted.

    Returns
    -------
    str

    Examples
    --------
    >>> print(default_request(ConceptRequest("newt", ("frog",), (), 3, 8)).splitlines()[0])
    Name 3 visible features of: newt
    """
    name = class_text(request.label)
    lines = [f"Name {request.n} visible features of: {name}"]
    if request.description:
        lines.append(f"The images: {request.description}")
    if request.neighbours:
        others = "; ".join(class_text(label) for label in request.neighbours)
        lines.append(f"They should tell it apart from: {others}")
    lines += [
        f'Each feature completes the sentence "a photo of a {name} with ...".',
        "Each names one thing that can be seen in a picture: a part, colour, shape, texture, "
        "material, pose or surrounding.",
        f"Use at most {request.max_words} words for each, and no name of any class.",
        "Write one feature a line and nothing else: no numbers, no explanations.",
    ]
    if request.known:
        # A prompt that grows with every round would leave the context of small models.
        lines.append("Do not repeat these: " + "; ".join(request.known[-_LISTED:]))
    return "\n".join(lines)
