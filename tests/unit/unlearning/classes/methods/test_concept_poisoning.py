"""ConceptPoisoning end to end: digits, the paper's ablation, texts, refusals, saving."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from conceptlab import ConceptBank
from conceptlab.errors import InputError, SplitError
from unlearning import ConceptPoisoning, UnlearnResult, split_classes
from unlearning.classes.concepts.model_concepts import ModelConcepts
from unlearning.classes.concepts.stop_rule import StopRule
from unlearning.classes.concepts.words import mask_words, merge_subwords, word_scores
from unlearning.notices import UnlearningWarning

CLASS = 3


class Net(nn.Sequential):
    """Three convolutions, global pooling, head."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3, 2, 1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 6),
        )


@cache
def digits():
    """Digits 0 to 5: (train X, y), (test X, y)."""
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X[y < 6].reshape(-1, 1, 8, 8) / 16).float(), torch.tensor(y[y < 6])
    return (X[:700], y[:700]), (X[700:], y[700:])


@cache
def _state():
    (X, y), _ = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(6):
            for rows in torch.randperm(len(y)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(X[rows]), y[rows]).backward()
                optimizer.step()
    return model.state_dict()


def trained():
    """Give a net that knows its digits."""
    with torch.random.fork_rng(devices=[]):
        model = Net()
    model.load_state_dict(_state())
    return model.eval()


def request():
    """Give what to forget and what to keep."""
    forget, retain = split_classes(digits()[0], CLASS)
    return {"forget": forget, "retain": retain}


def accuracies(model):
    """Give training accuracy on the class, and test accuracy on the others."""
    (X, y), (Xt, yt) = digits()
    with torch.no_grad():
        gone = (model(X[y == CLASS]).argmax(1) == CLASS).float().mean()
        kept = (model(Xt).argmax(1) == yt)[yt != CLASS].float().mean()
    return float(gone), float(kept)


def test_the_default_forgets_and_keeps(global_state_untouched):
    model = trained()
    before = accuracies(model)
    assert before[0] > 0.98
    result = ConceptPoisoning(random_state=0).unlearn(model, **request())
    gone, kept = accuracies(result.model)
    assert gone == 0
    assert kept > before[1] - 0.02
    concepts = result.details["concepts"]
    assert isinstance(concepts, ModelConcepts)
    assert concepts["fidelity"] > 0.9
    assert not concepts["refused"]
    assert concepts.chosen(CLASS)
    assert concepts["donor"][0] != CLASS
    # The weights are partly new, and at every depth.
    assert result.details["n_poisoned"] == 0
    assert result.details["renewed"] > 0
    state, new = model.state_dict(), result.model.state_dict()
    assert not torch.equal(state["3.weight"], new["3.weight"])


def test_other_labels_are_taught_to_late_layers():
    model = trained()
    result = ConceptPoisoning(renew=0, max_steps=3, random_state=0).unlearn(model, **request())
    assert result.details["mean_target"][CLASS] == 0
    assert abs(sum(result.details["mean_target"]) - 1) < 1e-5
    # Only what lies behind the layer was trained.
    assert result.details["layer"] == "5"
    state, new = model.state_dict(), result.model.state_dict()
    assert torch.equal(state["3.weight"], new["3.weight"])
    assert not torch.equal(state["6.weight"], new["6.weight"])
    assert torch.equal(state["7.running_mean"], new["7.running_mean"])


def test_results_are_repeated_and_saved_with_their_concepts(tmp_path):
    first, second = (
        ConceptPoisoning(random_state=3, poison="mask").unlearn(trained(), **request())
        for _ in range(2)
    )
    assert first.certificate["sha256_after"] == second.certificate["sha256_after"]
    loaded = UnlearnResult.load(first.save(tmp_path / "r"), Net())
    concepts = ModelConcepts(loaded.details["concepts"])
    assert concepts.to_frame().equals(first.details["concepts"].to_frame())
    assert "Class 3 is known by" in concepts._repr_html_()
    assert "Class 3 is known by" in first._repr_html_()
    location = concepts["location"]
    assert location["rows"].sum() == first.details["n_poisoned"] > 0
    assert location["size"] == [2, 2]
    assert "position" in location["how"]


def test_the_papers_ablation():
    """Flipping labels alone forgets; pasting alone does not."""
    small = {"epochs": 12, "lr": 5e-3, "random_state": 0}
    flip = ConceptPoisoning.paper(poison="none", **small).unlearn(trained(), **request())
    paste = ConceptPoisoning.paper(labels="keep", **small).unlearn(trained(), **request())
    both = ConceptPoisoning.paper(**small).unlearn(trained(), **request())
    assert accuracies(flip.model)[0] < 0.05
    assert accuracies(paste.model)[0] > 0.9
    # Clean images are no longer in the training set once they are pasted over.
    assert accuracies(both.model)[0] < 0.5
    for result in (flip, paste, both):
        assert accuracies(result.model)[1] > 0.9
        state = result.model.state_dict()
        assert torch.equal(state["6.weight"], _state()["6.weight"])  # only the head is trained


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "soft", "scope": "all"},
        {"labels": "targeted", "donor_rule": "shared", "select": "weights", "scope": 2},
        {"labels": "targeted_per_sample", "poison": "donor", "patch_size": 3, "scope": "head"},
        {"labels": "random", "poison": "mask", "place": "random", "fill": "mean"},
        {"concept_head": "mlp", "forget_weight": "joint", "optimizer": "sgd", "stop": False},
    ],
)
def test_every_choice_runs(changes):
    method = ConceptPoisoning(epochs=1, min_steps=0, random_state=0, **changes)
    result = method.unlearn(trained(), **request())
    assert result.stopped == "done"
    assert result.details["mean_target"][CLASS] == 0


def test_valid_data_decide_when_given():
    result = ConceptPoisoning(epochs=2, min_steps=0, random_state=0).unlearn(
        trained(), **request(), valid=digits()[1]
    )
    assert "held_out_forget_accuracy" in result.history[-1]


@pytest.mark.parametrize(("epochs", "stopped"), [(2, "done"), (5, "early: enough")])
def test_a_run_that_made_its_epochs_is_done_whatever_ends_those_of_the_floor(
    monkeypatch, epochs, stopped
):
    """The rule ends the third epoch: one that the floor added, or one of those asked for."""
    monkeypatch.setattr(StopRule, "look", lambda _, row: "enough" if row["epoch"] == 3 else None)
    monkeypatch.setattr(StopRule, "forgotten", True)  # no second round
    method = ConceptPoisoning(epochs=epochs, min_steps=10**4, random_state=0)
    result = method.unlearn(trained(), **request())
    assert len(result.history) == 3
    assert result.stopped == stopped


def test_it_says_when_the_class_is_not_forgotten():
    method = ConceptPoisoning(labels="keep", epochs=1, lr=1e-5, random_state=0)
    with pytest.warns(UnlearningWarning, match="not forgotten"):
        method.unlearn(trained(), **request())


def test_the_epoch_that_forgets_is_kept_when_later_ones_are_worse():
    method = ConceptPoisoning(epochs=12, lr=0.02, schedule="constant", random_state=0)
    result = method.unlearn(trained(), **request())
    losses = [row["held_out_loss"] for row in result.history]
    gone = [row["held_out_forget_accuracy"] for row in result.history]
    best = min(loss for loss, g in zip(losses, gone, strict=True) if g <= 0.01)
    assert best < losses[-1] or result.stopped == "done"
    with torch.no_grad():
        assert accuracies(result.model)[0] <= 0.02


def test_no_claim_from_a_bank_that_cannot_follow_the_model():
    bank = ConceptBank(np.ones((1, 32)), ["brightness"], space=None)
    with pytest.warns(UnlearningWarning, match="nothing is claimed"):
        result = ConceptPoisoning(bank, poison="mask", random_state=0).unlearn(
            trained(), **request()
        )
    concepts = result.details["concepts"]
    assert concepts["refused"]
    assert concepts["donor_rule"] == ["most confused by the model"]
    assert "class's logit" in concepts["location"]["how"]
    assert accuracies(result.model)[0] == 0


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"labels": "nice"}, InputError, "labels"),
        ({"scope": 0}, InputError, "scope"),
        ({"patch_size": 30, "poison": "mask"}, InputError, "patch_size"),
        ({"layer": "nowhere"}, SplitError, "nowhere"),
        ({"bank": "red"}, InputError, "ConceptBank"),
        ({"bank": ConceptBank(np.eye(4), list("abcd"), space=None)}, InputError, "penultimate"),
        ({"n_concepts": 0}, InputError, "n_concepts"),
    ],
)
def test_wrong_parameters_are_told(changes, error, words):
    with pytest.raises(error, match=words):
        ConceptPoisoning(**changes).unlearn(trained(), **request())


def test_plots_show_concepts_and_windows():
    from conceptlab.plot.class_concepts import window_grid

    result = ConceptPoisoning(random_state=0, poison="mask", epochs=1).unlearn(
        trained(), **request()
    )
    concepts = result.details["concepts"]
    axes = concepts.plot(CLASS)
    assert len(axes.patches) == min(10, len(concepts["names"]))
    place = concepts["location"]
    figure = window_grid(request()["forget"].inputs[:7], place["corners"][:7], place["size"])
    assert len(figure.axes) == 12


# -- texts -------------------------------------------------------------------------------
TOPICS = {
    0: ["goal", "match", "coach"],
    1: ["violin", "opera", "choir"],
    2: ["soup", "oven", "salt"],
}
FILLERS = ["the", "a", "was", "very", "today", "and", "we", "saw", "it", "gold", "##fish"]


@cache
def texts():
    """Write documents of three topics, with a tokenizer of these words."""
    transformers = pytest.importorskip("transformers")
    words = [w for topic in TOPICS.values() for w in topic]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLERS, *words]
    rng = np.random.default_rng(0)
    ids, y = [], []
    for i in range(240):
        topic = i % 3
        line = rng.choice(len(FILLERS) - 1, 7) + 5
        own = rng.choice(TOPICS[topic], 2, replace=False)
        line[rng.choice(7, 2, replace=False)] = [vocabulary.index(w) for w in own]
        ids.append([2, *line.tolist(), 3])
        y.append(topic)
    ids = torch.tensor(ids)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=16,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(5):
            for rows in torch.randperm(len(y)).split(40):
                optimizer.zero_grad()
                part = {k: v[rows] for k, v in inputs.items()}
                model(**part, labels=torch.tensor(y)[rows]).loss.backward()
                optimizer.step()
    return model.eval(), inputs, torch.tensor(y), Tokenizer(vocabulary)


class Tokenizer:
    """As much of a transformers tokenizer as is needed."""

    pad_token_id, unk_token_id, mask_token_id = 0, 1, 4
    all_special_ids = (0, 1, 2, 3, 4)

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary
        self.all_special_tokens = vocabulary[:5]

    def convert_ids_to_tokens(self, ids):
        """Spell tokens."""
        return [self.vocabulary[i] for i in ids]


def test_a_text_class_is_known_by_its_planted_words_and_forgotten():
    model, inputs, y, tokenizer = texts()
    forget, retain = split_classes((inputs, y), 1)
    with torch.no_grad():
        assert (model(**forget.inputs).logits.argmax(1) == 1).float().mean() > 0.98
    method = ConceptPoisoning(tokenizer=tokenizer, poison="mask", epochs=6, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnlearningWarning)
        result = method.unlearn(model, forget=forget, retain=retain)
    concepts = result.details["concepts"]
    assert set(concepts.chosen(1)) == set(TOPICS[1])
    assert concepts["completeness"] < 1e-3
    assert result.details["poison"] == "mask"
    assert result.details["n_poisoned"] == 40
    assert result.details["layer"] == "bert.embeddings"
    with torch.no_grad():
        assert not (result.model(**forget.inputs).logits.argmax(1) == 1).any()
        kept = result.model(**retain.inputs).logits.argmax(1) == retain.y
    assert kept.float().mean() > 0.98


def test_a_text_class_is_forgotten_without_a_tokenizer_too():
    model, inputs, y, _ = texts()
    forget, retain = split_classes((inputs, y), 1)
    result = ConceptPoisoning(epochs=4, random_state=0).unlearn(model, forget=forget, retain=retain)
    assert result.details["poison"] == "none"
    with torch.no_grad():
        assert (result.model(**forget.inputs).logits.argmax(1) == 1).float().mean() < 0.05
    with pytest.raises(InputError, match="tokenizer"):
        ConceptPoisoning(poison="mask").unlearn(model, forget=forget, retain=retain)


def test_words_are_merged_scored_and_masked():
    tokens = ["▁gold", "fish", "▁swim", "</s>"]
    assert merge_subwords(tokens, ["</s>"]) == [
        ("goldfish", 0),
        ("goldfish", 0),
        ("swim", 1),
        ("", -1),
    ]
    shares = word_scores(np.array([1.0, 2, 1, 9]), merge_subwords(tokens, ["</s>"]))
    assert shares == {"goldfish": 0.75, "swim": 0.25}
    assert word_scores(np.array([1.0, 2, 1, 9]), merge_subwords(tokens), {"goldfish"}).keys() == {
        "swim</s>"
    }
    tokenizer = texts()[3]
    gold, fish, goal = (tokenizer.vocabulary.index(w) for w in ("gold", "##fish", "goal"))
    ids = torch.tensor([[2, gold, fish, goal, gold, 3], [2, goal, goal, 5, 5, 3]])
    out, count = mask_words(ids, tokenizer, ["goldfish", "goal", "gold"], top=1)
    assert out.tolist() == [[2, 4, 4, goal, gold, 3], [2, 4, 4, 5, 5, 3]]
    assert count.tolist() == [2, 2]


def steps_and_weights(method, model, parts):
    result = method.unlearn(model, **parts)
    old, new = model.state_dict(), result.model.state_dict()
    changed = {k.rpartition(".")[0] for k in old if not torch.equal(old[k], new[k])}
    return result, changed


def test_the_default_trains_two_layers_and_enough_steps():
    """Of three linear layers the last alone would only mask the class."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    y = torch.arange(60) % 3
    X = torch.eye(3)[y].repeat(1, 2) + 0.1 * torch.rand(60, 6, generator=torch.Generator())
    parts = {"forget": (X[y == 2], y[y == 2]), "retain": (X[y < 2], y[y < 2])}
    few = {"stop": False, "batch_size": 20, "random_state": 0}
    result, changed = steps_and_weights(ConceptPoisoning(**few), net, parts)
    assert changed == {"2", "4"}
    assert result.certificate["steps"] == 150  # 2 steps in an epoch, and 3 epochs asked for
    few["min_steps"] = 0
    result, _ = steps_and_weights(ConceptPoisoning(**few), net, parts)
    assert result.certificate["steps"] == 6
    assert not any("Only the head" in text for text in result.warnings)
    result, changed = steps_and_weights(ConceptPoisoning(scope="head", **few), net, parts)
    assert changed == {"4"}
    assert not any("Only the head" in text for text in result.warnings)
    net[:4].requires_grad_(False)
    result, changed = steps_and_weights(ConceptPoisoning(**few), net, parts)
    assert changed == {"4"}
    assert sum("Only the head" in text for text in result.warnings) == 1
