"""The page on forgetting classes: its example runs, and its table names every method."""

import re

from markdown_blocks import DOCS, blocks, run

import unlearning

PAGE = DOCS / "class-unlearning.md"


def test_the_example_forgets(capsys):
    (block,) = blocks(PAGE, "python")
    names = run(block, PAGE)
    assert names["report"].value("fa_test") == 0
    assert names["report"].verdict.word in capsys.readouterr().out


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
