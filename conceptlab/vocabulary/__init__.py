"""Concepts made by words: synthesis, files, filters, composition, selection, audit."""

from __future__ import annotations

from conceptlab.vocabulary.audit import BankAudit, audit
from conceptlab.vocabulary.compose import compose, distinct_sets, select_diverse
from conceptlab.vocabulary.concepts import ClassConcepts, Texts
from conceptlab.vocabulary.dpp import DPPSelector
from conceptlab.vocabulary.files import from_pairs, read_concepts, write_concepts
from conceptlab.vocabulary.filters import ClassNames, ConceptFilter
from conceptlab.vocabulary.generators import TransformersGenerator, load_generator
from conceptlab.vocabulary.margins import Margins, concept_margins, filter_margins
from conceptlab.vocabulary.neighbours import hard_negatives
from conceptlab.vocabulary.parsing import parse_concepts
from conceptlab.vocabulary.prompts import (
    PROMPTS,
    PromptPreset,
    class_text,
    fill_prompt,
    plain_prompt,
)
from conceptlab.vocabulary.requests import ConceptRequest, default_request
from conceptlab.vocabulary.synthesis import ShortfallWarning, synthesize
from conceptlab.vocabulary.tables import RELATIONS, from_attributes, from_triples
from conceptlab.vocabulary.words import from_random_words, from_vocabulary, load_vocabulary

__all__ = [
    "PROMPTS",
    "RELATIONS",
    "BankAudit",
    "ClassConcepts",
    "ClassNames",
    "ConceptFilter",
    "ConceptRequest",
    "DPPSelector",
    "Margins",
    "PromptPreset",
    "ShortfallWarning",
    "Texts",
    "TransformersGenerator",
    "audit",
    "class_text",
    "compose",
    "concept_margins",
    "default_request",
    "distinct_sets",
    "fill_prompt",
    "filter_margins",
    "from_attributes",
    "from_pairs",
    "from_random_words",
    "from_triples",
    "from_vocabulary",
    "hard_negatives",
    "load_generator",
    "load_vocabulary",
    "parse_concepts",
    "plain_prompt",
    "read_concepts",
    "select_diverse",
    "synthesize",
    "write_concepts",
]
