"""Models as they are given: compiled, scripted, in half precision, with probabilities; what the
end of a run says."""

import copy
import warnings

import pytest
import torch
from torch import nn
from unlearning_world import net, request, small, trained

from conceptlab.errors import InputError, SplitError
from unlearning import FineTune, GradientAscent, LogitMask, SalUn, UnlearningWarning, UnlearnResult

PARTS = {k: v for k, v in request().items() if k != "valid"}


class Ruin(LogitMask):
    """Says class 0 to everything."""

    def _unlearn(self, job):
        with torch.no_grad():
            job.head.weight.zero_()
            job.head.bias.copy_(torch.tensor([1.0, 0, 0, 0]))


class OptimizedModule(nn.Module):
    """What torch.compile makes, without its compiler: the module within, called."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module

    def forward(self, x):
        return self._orig_mod(x)


def told(method, model, **more):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = method.unlearn(model, **{**PARTS, **more})
    texts = [str(w.message) for w in seen if w.category is UnlearningWarning]
    assert texts == result.warnings
    return result, texts


def compile_(module):
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("wrap", [OptimizedModule, pytest.param(compile_, marks=pytest.mark.slow)])
def test_a_compiled_model_is_unlearned_as_the_module_it_was_made_from(wrap):
    plain = trained()
    compiled = wrap(plain)
    for name, options in (("LogitMask", {}), ("ConceptPoisoning", {"max_steps": 2})):
        expected, _ = told(small(name, **options), plain)
        found, _ = told(small(name, **options), compiled)
        assert found.certificate["sha256_after"] == expected.certificate["sha256_after"]
    named, _ = told(small(name, head="_orig_mod.head", **options), compiled)
    assert named.certificate["sha256_after"] == expected.certificate["sha256_after"]


def test_a_scripted_model_is_refused():
    scripted = torch.jit.trace(trained(), PARTS["forget"][0][:2])
    with pytest.raises(InputError, match="TorchScript") as caught:
        SalUn().unlearn(scripted, **PARTS)
    assert caught.value.code == "CL-INPUT-TYPE"


def test_half_precision_is_trained_in_float32_and_comes_back():
    half = trained().half()
    before = copy.deepcopy(half.state_dict())
    result, _ = told(small("ConceptPoisoning"), half)
    assert result.stopped == "done"
    assert {t.dtype for t in result.model.parameters()} == {torch.float16}
    assert all(torch.equal(before[k], v) for k, v in half.state_dict().items())
    # The same as of a float32 copy, rounded.
    whole, _ = told(small("ConceptPoisoning"), copy.deepcopy(half).float())
    for a, b in zip(result.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b.half())


@pytest.mark.parametrize("method", [SalUn(), LogitMask()], ids=["SalUn", "LogitMask"])
def test_probabilities_are_no_logits(method):
    class Ended(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = trained()

        def forward(self, x):
            return self.net(x).softmax(1)

    with pytest.raises(SplitError, match="Take the softmax off") as caught:
        method.unlearn(Ended(), **PARTS)
    assert caught.value.code == "CL-SPLIT-OUTPUT"


def test_columns_that_the_model_does_not_take_are_named():
    def mapping(part):
        X, y = part
        return {"input": X, "row": torch.arange(len(y)), "labels": y}

    parts = {name: mapping(part) for name, part in PARTS.items()}
    _, texts = told(small("LogitMask"), trained(), **parts)
    assert any("row" in text and "left out" in text for text in texts)


def test_a_class_that_is_not_forgotten_and_a_rest_that_is_lost_are_told(tmp_path):
    _, texts = told(LogitMask(), trained())
    assert texts == []
    result, texts = told(FineTune(epochs=1, lr=1e-8, random_state=0), trained())
    assert [text.split(":")[0] for text in texts] == ["The class is not forgotten"]
    assert UnlearnResult.load(result.save(tmp_path / "r"), trained()).warnings == texts
    assert texts[0] in result._repr_html_()
    _, texts = told(Ruin(), trained())
    assert [text.split(":")[0] for text in texts] == ["What should be kept is lost"]
    _, texts = told(small("ConceptPoisoning", epochs=1, lr=1e-9), trained())
    assert sum("not forgotten" in text for text in texts) == 1


def test_single_samples_of_a_class_are_sent_to_the_ensemble():
    X, y = torch.cat([PARTS["forget"][0], PARTS["retain"][0]]), torch.arange(96) % 4
    with pytest.raises(InputError, match=r"ShardedEnsemble\.delete"):
        GradientAscent().unlearn(net(), forget=(X[:8], y[:8]), retain=(X[8:], y[8:]))
