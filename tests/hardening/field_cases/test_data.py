"""Words and numbers as people give them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from conceptlab.errors import InputError
from conceptlab.vocabulary import read_concepts
from unlearning.data import as_samples


# own probe: numbers of classes in the place of names ended in an AttributeError
def test_classes_of_a_file_are_names(tmp_path):
    file = tmp_path / "concepts.json"
    file.write_text(json.dumps({"cat": ["whiskers", "fur"], "dog": ["tail"]}))
    for wrong in ([0, 1], [True], [None]):
        with pytest.raises(InputError, match="names of the file") as caught:
            read_concepts(file, classes=wrong)
        assert caught.value.code == "CL-INPUT-LABELS"
    assert list(read_concepts(file, classes="dog").classes) == ["dog"]


# own probe: labels that are missing or names, tables, and pictures ended in errors about shapes
def test_rows_of_data_sets_are_read_or_named():
    photo, x = Image.new("RGB", (4, 4)), np.zeros((3, 4, 4), np.float32)

    def rows(labels, key="pixel_values", value=x):
        return [{key: value, "label": label, "file": "a.png"} for label in labels]

    samples = as_samples(rows([0, 1]))
    assert list(samples.inputs) == ["pixel_values"]
    assert samples.y.tolist() == [0, 1]
    wrong = [
        (rows([0, None]), "CL-INPUT-LABELS", "Sample 1 .* None"),
        (rows(["cat", "dog"]), "CL-INPUT-LABELS", "Sample 0 .* 'cat'"),
        (
            (torch.zeros(2, 3), torch.tensor([0.0, float("nan")])),
            "CL-INPUT-LABELS",
            "1 of them NaN",
        ),
        (rows([0, 1], "image", photo), "CL-INPUT-TYPE", "uint8 images"),
        (pd.DataFrame({"a": [1.0], "y": [0]}), "CL-INPUT-TYPE", "'a', 'y'"),
    ]
    for data, code, words in wrong:
        with pytest.raises(InputError, match=words) as caught:
            as_samples(data)
        assert caught.value.code == code


def test_data_sets_of_the_library_are_read():
    datasets = pytest.importorskip("datasets")
    x, y = np.random.default_rng(0).random((6, 3, 4, 4), dtype=np.float32), [0, 1, 2] * 2
    columns = {"pixel_values": x.tolist(), "labels": y, "file": [f"{i}.png" for i in y]}
    for form in (None, "torch", "numpy"):
        samples = as_samples(datasets.Dataset.from_dict(columns).with_format(form))
        np.testing.assert_allclose(samples.inputs["pixel_values"], x)
        assert samples.y.tolist() == y
