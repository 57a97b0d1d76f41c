"""Words of a text classifier, where it is known what each word adds to each class."""

import numpy as np
import pytest
import torch
from torch import nn

from conceptlab.errors import InputError
from unlearning import ConceptPoisoning, as_samples, split_classes
from unlearning.classes.concepts.words import find_word_concepts, mask_words
from unlearning.heads import run_model

WORDS = ["the", "goal", "coach", "song", "choir", "stage", "soup", "salt", "oven"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TOPICS = {0: ["goal", "coach"], 1: ["song", "choir", "stage"], 2: ["soup", "salt", "stage"]}
PLACE = {word: i for i, word in enumerate(VOCABULARY)}


class Tokenizer:
    """As much of a tokenizer as is needed."""

    pad_token_id, unk_token_id, mask_token_id = 0, 1, 4
    all_special_ids = (0, 1, 2, 3, 4)
    all_special_tokens = tuple(VOCABULARY[:5])

    def convert_ids_to_tokens(self, ids):
        """Spell tokens."""
        return [VOCABULARY[i] for i in ids]


class Bag(nn.Module):
    """Logits are sums of what words add; `rough` makes them waver, `aware` looks at the ids."""

    def __init__(self, rough=0.0, aware=False):
        super().__init__()
        self.embed, self.head = nn.Embedding(len(VOCABULARY), 12), nn.Linear(12, 3)
        self.rough, self.aware = rough, aware
        with torch.no_grad():
            self.embed.weight.copy_(0.2 * torch.eye(len(VOCABULARY), 12))
            table = torch.zeros(3, len(VOCABULARY))
            table[:, PLACE["[SEP]"]] = 1.0
            for label, words in TOPICS.items():
                for rank, word in enumerate(words):
                    table[label, PLACE[word]] = 3.0 - rank
            self.head.weight.copy_(torch.linalg.lstsq(self.embed.weight, table.T).solution.T)
            self.head.bias.zero_()

    def get_input_embeddings(self):
        """Give the layer that embeds tokens."""
        return self.embed

    def forward(self, input_ids, attention_mask):
        """Give the logits."""
        vectors = self.embed(input_ids) * attention_mask[..., None]
        if self.aware:  # as models that count places from what is no padding
            vectors = vectors * (1 + (input_ids != 0).float().cumsum(dim=1))[..., None]
        features = vectors.sum(dim=1)
        if self.rough:
            features = features + self.rough * torch.sin(1500 * features)
        return self.head(features)


def documents(n=90, seed=0):
    rng = np.random.default_rng(seed)
    ids = []
    for i in range(n):
        own = TOPICS[i % 3]
        line = [PLACE["the"]] * 3 + [PLACE[w] for w in rng.choice(own, 2, replace=False)]
        ids.append([2, *rng.permutation(line).tolist(), 3] + [0] * 2)
    inputs = {"input_ids": torch.tensor(ids)}
    inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    return as_samples((inputs, torch.arange(n) % 3))


def found(model, **options):
    return find_word_concepts(
        model.eval(),
        documents(),
        [1],
        3,
        Tokenizer(),
        device=torch.device("cpu"),
        numpy=np.random.default_rng(0),
        **options,
    )


def test_shares_are_what_each_word_adds():
    samples = documents()
    concepts = found(Bag())
    # A linear model: a token adds its vector's worth less that of padding, which is nothing.
    expected = dict.fromkeys(WORDS, 0.0)
    mine = samples.inputs["input_ids"][samples.y == 1]
    for line in mine.tolist():
        worth = [
            3.0 - TOPICS[1].index(w)
            for w in Tokenizer().convert_ids_to_tokens(line)
            if w in TOPICS[1]
        ]
        for word in Tokenizer().convert_ids_to_tokens(line):
            if word in TOPICS[1]:
                share = (3.0 - TOPICS[1].index(word)) / sum(worth)
                expected[word] += share / len(mine)
    own = dict(zip(concepts["names"], concepts["attribution"][0], strict=True))
    for word, value in expected.items():
        assert own.get(word, 0.0) == pytest.approx(value, abs=1e-5)
    assert concepts["fidelity"] == pytest.approx(1.0, abs=1e-5)
    assert not concepts["refused"]
    assert set(concepts.chosen(1)[:2]) == {"song", "choir"}


def test_what_hangs_on_the_ids_is_held_when_the_baseline_is_asked():
    # Its places change where the baseline's padding stands in the ids: only embeddings may move.
    concepts = found(Bag(aware=True))
    assert concepts["completeness"] < 1e-4
    assert not concepts["refused"]


def test_a_classifier_too_rough_to_integrate_is_refused():
    concepts = found(Bag(rough=0.05))
    assert concepts["refused"]
    assert concepts["fidelity"] < 0.9
    assert "nothing is claimed" in concepts["reason"]
    assert concepts.chosen(1) == []
    assert not found(Bag(rough=0.05), min_fidelity=0.0)["refused"]


def test_the_donor_shares_a_word():
    # "stage" is of classes 1 and 2: class 2 is the heir, and no word of class 0 is shared.
    for label, donor in ((1, 2), (2, 1)):
        forget, retain = split_classes(documents(), label)
        method = ConceptPoisoning(
            tokenizer=Tokenizer(),
            labels="targeted",
            scope="head",
            donor_rule="shared",
            epochs=1,
            stop=False,
            random_state=0,
        )
        result = method.unlearn(Bag(), forget=forget, retain=retain)
        concepts = result.details["concepts"]
        shared = concepts["class_attribution"][donor][concepts["names"].index("stage")]
        assert shared > 0
        assert concepts["donor"] == [donor]
        assert result.details["mean_target"][donor] == 1.0
    forget, retain = split_classes(documents(), 0)
    result = ConceptPoisoning(
        tokenizer=Tokenizer(), scope="head", epochs=1, stop=False, random_state=0
    ).unlearn(Bag(), forget=forget, retain=retain)
    assert result.details["concepts"]["donor_rule"] == ["most confused by the model"]


def test_masked_documents_lose_the_class():
    samples = documents()
    forget, retain = split_classes(samples, 1)
    result = ConceptPoisoning(
        tokenizer=Tokenizer(),
        poison="mask",
        poison_share=1.0,
        scope="head",
        epochs=1,
        stop=False,
        random_state=0,
    ).unlearn(Bag(), forget=forget, retain=retain)
    assert result.details["n_poisoned"] == len(forget)
    words = result.details["concepts"].chosen(1)
    ids, count = mask_words(forget.inputs["input_ids"], Tokenizer(), words)
    assert (count >= 1).all()
    logits = run_model(Bag().eval(), {**forget.inputs, "input_ids": ids})
    assert float(logits[:, 1].detach().max()) < 2.5


def test_no_word_left_is_told():
    with pytest.raises(InputError, match="fewer stop_words"):
        found(Bag(), stop_words=WORDS)


def test_few_documents_of_many_other_classes_are_enough():
    whole, few = found(Bag()), found(Bag(), max_documents=16)
    assert few.chosen(1)[:2] == whole.chosen(1)[:2]


def test_stop_words_are_a_list():
    with pytest.raises(InputError, match="list of words"):
        ConceptPoisoning(stop_words="the").unlearn(
            Bag(), **dict(zip(("forget", "retain"), split_classes(documents(), 1), strict=True))
        )
