"""Sentences around a name, over which text embeddings are averaged."""

from __future__ import annotations

__all__ = ["TEMPLATES", "Templates", "fill_templates", "resolve_templates"]

from collections.abc import Sequence

from conceptlab.errors import InputError, unknown_name

Templates = str | Sequence[str] | None
"""A named set, one sentence with ``{}``, several of them, or None."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "none": ("{}",),
    "photo": ("a photo of a {}.",),
    "photos": (
        "a photo of a {}.",
        "a close photo of a {}.",
        "a photo of one {}.",
        "a photo of a small {}.",
        "a photo of a large {}.",
        "a blurred photo of a {}.",
        "a drawing of a {}.",
    ),
    "attribute": (
        "{}",
        "something {}",
        "a photo of something {}.",
        "an object that is {}.",
    ),
}
"""Named sets. ``"openai-imagenet"`` is read from open_clip, with 80 sentences."""


def resolve_templates(templates: Templates) -> tuple[str, ...]:
    """Give the sentences that `templates` stands for.

    Parameters
    ----------
    templates : str, sequence of str, or None
        None, a name of a set, one sentence, or several. Each sentence has one ``{}``.

    Returns
    -------
    tuple of str

    Raises
    ------
    InputError
        For an unknown set or a sentence without ``{}`` (``CL-INPUT-OPTION``).

    Examples
    --------
    >>> resolve_templates("photo")
    ('a photo of a {}.',)
    """
    if templates is None:
        return TEMPLATES["none"]
    if isinstance(templates, str):
        if templates == "openai-imagenet":
            return _openai_imagenet()
        if templates in TEMPLATES:
            return TEMPLATES[templates]
        if "{}" not in templates:
            raise unknown_name(
                "template set",
                templates,
                [*TEMPLATES, "openai-imagenet"],
                hint="A sentence of your own needs {} where the name goes.",
            )
        return (templates,)
    sentences = tuple(templates)
    bad = [s for s in sentences if not isinstance(s, str) or s.count("{}") != 1]
    if bad or not sentences:
        raise InputError(
            f"Every template needs {{}} exactly once, where the name goes; got {bad[:5]!r}. "
            "Write, for example, 'a photo of a {}.'.",
            code="CL-INPUT-OPTION",
        )
    return sentences


def fill_templates(templates: Sequence[str], text: str) -> list[str]:
    """Put `text` into each sentence; other braces stay as they are."""
    return [template.replace("{}", text) for template in templates]


def _openai_imagenet() -> tuple[str, ...]:
    from conceptlab.encoders.dependencies import import_package

    metadata = import_package("open_clip.zero_shot_metadata", "open_clip_torch")
    return tuple(template("{}") for template in metadata.OPENAI_IMAGENET_TEMPLATES)
