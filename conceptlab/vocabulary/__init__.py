"""Concepts made by words: synthesis, files, filters, composition, selection, audit."""

from __future__ import annotations

from conceptlab.vocabulary.concepts import ClassConcepts, Texts
from conceptlab.vocabulary.prompts import (
    PROMPTS,
    PromptPreset,
    class_text,
    fill_prompt,
    plain_prompt,
)

__all__ = [
    "PROMPTS",
    "ClassConcepts",
    "PromptPreset",
    "Texts",
    "class_text",
    "fill_prompt",
    "plain_prompt",
]
