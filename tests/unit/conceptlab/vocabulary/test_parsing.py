"""Whatever form an answer has, the concepts come out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptlab.vocabulary import parse_concepts

PLAIN = ["sticky toes", "green skin", "large round eyes"]


@pytest.mark.parametrize(
    "answer",
    [
        "sticky toes\ngreen skin\nlarge round eyes",
        "- sticky toes\n- green skin\n- large round eyes\n",
        "* sticky toes.\n* green skin.\n* large round eyes.",
        "• sticky toes\n•green skin\n◦ large round eyes",
        "1. sticky toes\n2. green skin\n3. large round eyes",
        "1) sticky toes\n2) green skin\n3) large round eyes",
        "(1) sticky toes\n(2) green skin\n(3) large round eyes",
        "1. - sticky toes\n2. - green skin\n3. - large round eyes",
        "a) sticky toes\nb) green skin\nc) large round eyes",
        "1. sticky toes 2. green skin 3. large round eyes",
        "[ ] sticky toes\n[x] green skin\n[X] large round eyes",
        '"sticky toes"\n"green skin"\n"large round eyes"',
        "“sticky toes”\n‘green skin’\n«large round eyes»",
        '["sticky toes", "green skin", "large round eyes"]',
        '```json\n["sticky toes", "green skin", "large round eyes"]\n```',
        '{"concepts": ["sticky toes", "green skin", "large round eyes"]}',
        '{"class": "frog", "features": ["sticky toes", "green skin", "large round eyes"]}',
        '[{"name": "sticky toes"}, {"name": "green skin"}, {"name": "large round eyes"}]',
        "sticky toes, green skin, and large round eyes",
        "Features: sticky toes, green skin, large round eyes.",
        "sticky toes; green skin; large round eyes",
        "with sticky toes\nhas green skin\nhaving large round eyes",
        "it has sticky toes\nwhich has green skin\nthey have large round eyes",
        "a photo of a frog with sticky toes\nA photo of a tree frog with green skin\n"
        "an image of a frog with large round eyes",
        "The frog has sticky toes\nthe frog has green skin\nThe tree frog has large round eyes",
        "Sure! Here are three features:\n\nsticky toes\ngreen skin\nlarge round eyes\n\n"
        "I hope this helps!",
        "# Features\n\n**sticky toes**\n**green skin**\n**large round eyes**",
        "**sticky toes**: they climb\n**green skin** - to hide\n**large round eyes**: to see",
        "sticky toes - for climbing\ngreen skin – to hide\nlarge round eyes -> to see",
        "Feet: sticky toes\nColour: green skin\nHead: large round eyes",
        "sticky toes: help it climb\ngreen skin: hides it\nlarge round eyes: see at night",
        "<think>what has a frog?\n- a car\n</think>\nsticky toes\ngreen skin\nlarge round eyes",
        "<BEGIN>\nsticky toes\ngreen skin\nlarge round eyes\n<END>",
        "[BEGIN OUTPUT]\nsticky toes\ngreen skin\nlarge round eyes\n[END]",
        "<li>sticky toes</li>\n<li>green skin</li>\n<li>large round eyes</li>",
        "sticky toes\r\ngreen skin\r\nlarge   round eyes",
    ],
)
def test_every_form_gives_the_same_three(answer):
    assert parse_concepts(answer) == PLAIN


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "   \n\n",
        "!!!",
        "12345\n67",
        "Sure, here you go:",
        "I cannot help with that.",
        "As an AI I see nothing.",
        "```\n```",
        "<think>endless thought without an end",
        "---",
        "What do you mean?",
        "[]",
        "{}",
    ],
)
def test_answers_without_concepts_give_none(answer):
    assert parse_concepts(answer) == []


def test_what_looks_like_markup_inside_stays():
    assert parse_concepts("- a black-and-white face\n- size 3.5 wheels\n- a 2-door body") == [
        "a black-and-white face",
        "size 3.5 wheels",
        "a 2-door body",
    ]


@given(st.text(max_size=300))
def test_any_text_gives_clean_strings(text):
    for concept in parse_concepts(text):
        assert concept == " ".join(concept.split())
        assert any(character.isalpha() for character in concept)


@given(st.lists(st.from_regex(r"[a-z]{3,8} [a-z]{3,8}", fullmatch=True), min_size=2, max_size=8))
def test_lists_survive_their_bullets(texts):
    from conceptlab.vocabulary.parsing import _TALK, _WITH

    texts = [t for t in texts if not _TALK.match(t) and not _WITH.match(t) and t[:2] not in ("it",)]
    texts = [t for t in texts if not t.startswith(("they ", "this ", "these ", "which "))]
    texts = [t for t in texts if t.split()[0] not in {"the", "begin", "end", "start", "stop"}]
    numbered = "\n".join(f"{i}. {text}" for i, text in enumerate(texts, start=1))
    assert parse_concepts(numbered) == texts
