"""Data and answers as they come: columns, loaders, names of classes, tuples, zero-shot matrices."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from conceptlab.errors import InputError, SplitError
from unlearning import UnlearningWarning, as_samples, features_and_logits, find_head, split_classes
from unlearning.heads import call_model, run_model, unused_columns

X, Y = torch.arange(24.0).reshape(12, 2) / 24, torch.arange(12) % 3


class Rows(Dataset):
    """A data set whose items are made by a function of their number."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return self.make(i)


def loader(make, **options):
    return DataLoader(Rows(make), batch_size=5, **options)


@pytest.mark.parametrize(
    ("classes", "found"),
    [(1, [1]), ("1", [1]), ("12", None), (["0", "2"], [0, 2]), (torch.tensor(2), [2]),
     (np.array([0, 1]), [0, 1]), ({1, 2}, [1, 2]), (range(2), [0, 1])],
)  # fmt: skip
def test_a_class_is_a_whole_number_or_its_digits(classes, found):
    if found is None:
        with pytest.raises(InputError, match="Class 12 is not in"):
            split_classes((X, Y), classes)
    else:
        assert split_classes((X, Y), classes)[0].classes == found


@pytest.mark.parametrize("classes", [2.0, [2.7], True, "one", [None], "1.0", [[1]]])
def test_what_is_no_class_is_told(classes):
    with pytest.raises(InputError, match="whole numbers") as caught:
        split_classes((X, Y), classes)
    assert caught.value.code == "CL-INPUT-TYPE"


@pytest.mark.parametrize("batched", [False, True])
def test_columns_of_text_are_left_out_and_named(batched):
    def make(i):
        return {"x": X[i], "labels": Y[i], "path": f"{i}.png"}

    with pytest.warns(UnlearningWarning, match="left out: path"):
        samples = as_samples(loader(make) if batched else Rows(make))
    assert list(samples.inputs) == ["x"]
    assert torch.equal(samples.inputs["x"], X)


def test_text_alone_and_nested_inputs_are_refused():
    with pytest.raises(InputError, match="only text"):
        as_samples({"text": ["a", "b"], "labels": [0, 1]})
    with pytest.raises(InputError, match="a tuple of 2|a list of 2") as caught:
        as_samples(Rows(lambda i: ((X[i], X[i]), Y[i])))
    assert caught.value.code == "CL-INPUT-TYPE"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, None),
        ({"shuffle": True}, None),
        ({"drop_last": True}, "gave 10 of the 12"),
        ({"sampler": WeightedRandomSampler([1.0] * 12, 12)}, "with replacement"),
        ({"sampler": RandomSampler(X, replacement=True)}, "with replacement"),
        ({"sampler": range(7)}, "gave 7 of the 12"),
    ],
)
def test_a_loader_that_leaves_samples_out_is_told(options, told):
    data = DataLoader(TensorDataset(X, Y), batch_size=5, **options)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        as_samples(data)
    texts = [str(w.message) for w in seen if w.category is UnlearningWarning]
    assert len(texts) == (told is not None)
    assert told is None or told in texts[0]


class Named(nn.Module):
    def __init__(self, kind="plain"):
        super().__init__()
        self.kind, self.body, self.fc = kind, nn.Linear(2, 5), nn.Linear(5, 3)

    def forward(self, x):
        features = self.body(x)
        hidden = features.relu()
        logits = self.fc(hidden)
        return {
            "plain": logits,
            "features first": (hidden, logits),
            "logits first": [logits, hidden],
            "two heads": (features, logits),
            "no head": (hidden, logits.relu()),
        }[self.kind]


def test_columns_go_to_the_arguments_of_forward():
    model = Named()
    expected = model(X)
    assert unused_columns(model, {"x": X, "idx": Y}) == ["idx"]
    assert torch.equal(call_model(model, {"x": X, "idx": Y}), expected)
    assert torch.equal(call_model(model, {"image": X}), expected)
    with pytest.raises(InputError, match="takes none of image, idx"):
        call_model(model, {"image": X, "idx": Y})

    class Any(Named):
        def forward(self, **inputs):
            return self.fc(inputs["a"].repeat(1, 3)[:, :5])

    assert unused_columns(Any(), {"a": X, "b": X}) == []
    assert run_model(Any(), {"a": X, "b": X}).shape == (12, 3)


@pytest.mark.parametrize("kind", ["features first", "logits first"])
def test_of_features_and_logits_the_head_s_answer_counts(kind):
    model = Named(kind)
    features, logits = features_and_logits(model, X)
    assert torch.equal(logits, model.fc(model.body(X).relu()))
    assert features.shape == (12, 5)
    assert find_head(model, X).name == "fc"


@pytest.mark.parametrize("kind", ["two heads", "no head"])
def test_several_tensors_that_may_be_logits_are_refused(kind):
    with pytest.raises(SplitError, match="Wrap the model") as caught:
        run_model(Named(kind), X)
    assert caught.value.code == "CL-SPLIT-OUTPUT"


def test_a_matrix_of_texts_is_named():
    class ZeroShot(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(2, 4)
            self.register_buffer("texts", torch.randn(3, 4))

        def forward(self, x):
            return self.body(x) @ self.texts.T

    with pytest.raises(SplitError, match="'texts'.*nn.Linear"):
        find_head(ZeroShot(), X)
