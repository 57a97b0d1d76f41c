"""Words and numbers as people give them."""

import json

import pytest

from conceptlab.errors import InputError
from conceptlab.vocabulary import read_concepts


# own probe: numbers of classes in the place of names ended in an AttributeError
def test_classes_of_a_file_are_names(tmp_path):
    file = tmp_path / "concepts.json"
    file.write_text(json.dumps({"cat": ["whiskers", "fur"], "dog": ["tail"]}))
    for wrong in ([0, 1], [True], [None]):
        with pytest.raises(InputError, match="names of the file") as caught:
            read_concepts(file, classes=wrong)
        assert caught.value.code == "CL-INPUT-LABELS"
    assert list(read_concepts(file, classes="dog").classes) == ["dog"]
