"""The page on forgetting classes: its example runs, and its table names every method."""

import re

from markdown_blocks import DOCS, blocks, run

import unlearning

PAGE = DOCS / "class-unlearning.md"


def test_the_example_forgets(capsys):
    names = run(blocks(PAGE, "python")[0], PAGE)
    assert names["report"].value("fa_test") == 0
    assert names["report"].verdict.word in capsys.readouterr().out


def test_the_example_of_texts_finds_its_words_and_forgets():
    names = run(blocks(PAGE, "python")[1], PAGE)
    assert set(names["result"].details["concepts"].chosen(1)) == {"violin", "opera", "choir"}
    with names["torch"].no_grad():
        answers = names["result"].model(**names["held_out"][0]).logits.argmax(1)
    truth = names["held_out"][1]
    assert not (answers == 1).any()
    assert (answers == truth)[truth != 1].float().mean() > 0.95


def test_the_table_has_every_method():
    listed = set(re.findall(r"^\| `(\w+)", PAGE.read_text("utf-8"), re.M))
    methods = {
        name
        for name in unlearning.__all__
        if isinstance(value := getattr(unlearning, name), type)
        and issubclass(value, unlearning.Unlearner | unlearning.ShardedEnsemble)
        and value is not unlearning.Unlearner
    }
    assert methods <= listed
