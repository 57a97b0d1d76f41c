"""Forgetting a class of texts: captions of scenes, and which words make the class is known.

``python docs/results/unlearning_text.py`` writes ``unlearning-text.md`` beside this file. A text is
the caption of a scene with one large object and two small ones; its class is the kind of the
large one. Small objects are of all kinds, so that a word alone does not tell the class.
"""

import re
from functools import cache

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    logging,
)
from unlearning_table import Recipe, Study, Task, run, train

from conceptlab.datasets import Species, load_scenes
from unlearning import ConceptPoisoning, as_samples, split_classes

logging.set_verbosity_error()
logging.disable_progress_bar()

SPECIES = [
    Species("red circle", "red", "circle", "plain"),
    Species("red star", "red", "star", "plain"),
    Species("blue circle", "blue", "circle", "plain"),
    Species("blue star", "blue", "star", "plain"),
    Species("red heart", "red", "heart", "plain"),
    Species("blue cross", "blue", "cross", "plain"),
]
FORGOTTEN = (4, 5)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LENGTH, TRAIN, TEST = 52, 1200, 600


@cache
def captions(seed, split, n):
    """Draw n different captions with their classes and what the large object shows."""
    scenes = load_scenes(split, 4 * n, seed=seed, species=SPECIES, n_objects=3, size=16)
    large = np.flatnonzero(scenes.objects["size"][:, 0] == 1)
    texts = {scenes.captions[i]: i for i in large[::-1]}
    rows = np.array(sorted(texts.values())[:n])
    names = list(scenes.attribute_names)
    shown = [names.index(w) for w in ("red", "blue", "circle", "star", "heart", "cross")]
    concepts = scenes.main_attributes[rows][:, shown], [names[k] for k in shown]
    return [scenes.captions[i] for i in rows], torch.as_tensor(scenes.y[rows]), concepts


@cache
def tokenizer():
    """Make a tokenizer of word pieces: words of more than five letters are cut in two."""
    words = sorted(
        {w for text in captions(99, "train", 400)[0] for w in re.findall(r"\w+|,", text)}
    )
    pieces = [p for w in words for p in ((w,) if len(w) < 6 else (w[:4], f"##{w[4:]}"))]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, SPECIAL, strict=True)))


def tokens(texts):
    """Turn texts to what the classifier takes."""
    found = tokenizer()(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    return {key: found[key] for key in ("input_ids", "attention_mask")}


def build():
    """Make the classifier: BERT with two layers, 46 000 weights."""
    config = BertConfig(
        vocab_size=len(tokenizer()),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=LENGTH,
        num_labels=len(SPECIES),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    return BertForSequenceClassification(config)


RECIPE = Recipe(build, epochs=10, lr=2e-3, batch_size=32, weight_decay=0.0, optimizer="adam")


def tasks(seeds, forgotten=FORGOTTEN):
    """Draw the tasks of some seeds."""
    for seed in seeds:
        texts, y, _ = captions(seed, "train", TRAIN)
        held, labels, concepts = captions(seed, "test", TEST)
        new = [i for i, text in enumerate(held) if text not in set(texts)]
        concepts = concepts[0][new], concepts[1]
        samples = as_samples((tokens(texts), y))
        test = as_samples((tokens([held[i] for i in new]), labels[new]))
        for c in forgotten:
            names = [s.name for s in SPECIES]
            yield Task(seed, c, samples, test, RECIPE, names, concepts, tokenizer=tokenizer())


WITH_WORDS = {"method": "ConceptPoisoning", "tokenized": True}
SETTINGS = {
    "concept poisoning": WITH_WORDS,
    "without masks": {"method": "ConceptPoisoning"},
    "masks without new labels": {**WITH_WORDS, "labels": "keep", "poison_share": 1.0},
    "one donor for all": {**WITH_WORDS, "labels": "targeted"},
    "logit mask": {"method": "LogitMask"},
    "fine-tune": {"method": "FineTune", "epochs": 3, "lr": 0.5},
    "gradient ascent": {"method": "GradientAscent", "epochs": 10, "lr": 0.02, "until": 0.02},
    "NegGrad+": {"method": "NegGradPlus", "epochs": 3, "lr": 0.2},
    "random label": {"method": "RandomLabel", "epochs": 3, "lr": 0.02},
    "SalUn": {"method": "SalUn", "epochs": 3, "lr": 0.02, "batch_size": 64},
    "bad teacher": {"method": "BadTeacher", "epochs": 3, "lr": 4e-3, "batch_size": 64},
    "SCRUB": {"method": "SCRUB", "epochs": 3, "lr": 5e-4, "batch_size": 64},
    "SSD": {"method": "SSD", "alpha": 10.0, "lam": 1.0},
    "Fisher": {"method": "FisherForgetting", "alpha": 1e-8, "labels": "sampled"},
    "soft relabel": {"method": "SoftRelabel", "epochs": 3, "lr": 0.02},
}


def words(seeds):
    """Say by which words the original knows the classes, and which class shares them."""
    lines = []
    for task in tasks(seeds):
        model, _ = train(task.recipe, task.train, 1000 * task.seed)
        forget, retain = split_classes(task.train, task.forgotten)
        method = ConceptPoisoning(tokenizer=task.tokenizer, max_steps=1, random_state=task.seed)
        result = method.unlearn(model, forget=forget, retain=retain, progress=False)
        found = result.details["concepts"]
        chosen = [
            f"{found['names'][k]} ({found['contrast'][0][k]:.2f}{'' if stable else ', unstable'})"
            for k, stable in zip(found["selected"][0], found["stable"][0], strict=True)
        ]
        heir = f"{task.class_names[found['donor'][0]]} ({found['donor_rule'][0]})"
        lines.append(
            f"| {task.seed} | {task.class_names[task.forgotten]} | {', '.join(chosen)} | "
            f"{100 * found['fidelity']:.1f} | {heir} |"
        )
    head = [
        "## Words\n",
        "What the original knows the forgotten class by, with the contrast of each word: its share "
        "of a document's attribution, less the mean over other classes. Fidelity: how far "
        "attributions add up to the change of the logit. Heir: the class that a shared word names, "
        "or, where none is shared, the one that the model confuses the class with.\n",
        "| seed | class | words | fidelity, % | heir |",
        "|---|---|---|---|---|",
    ]
    return {"page": "\n".join([*head, *lines, ""])}


NOTES = """\
Relearning was given 30 steps at most. Times were taken on a shared machine: ratios are good to
about a third.
"""
CHOSEN = """\
Fixed on two development draws that are not in the table (seeds 7 and 8). Peers were tried at a few
values each; concept poisoning runs at its defaults, with the tokenizer. That it reads the
embeddings of a text classifier, and not a layer in the middle, was decided on those draws and on
another world of texts.
"""
READING = """\
- **The words are found.** In all six draws the selected words are the class's own one (heart or
  cross), in two with its colour, and none of those that stand beside small objects; below.
- **Concept poisoning's answers are nearest to retrain's** (JS 0.12), and it keeps everything. The
  floor of 0.34 says more about these networks than about the methods: two retrained ones may
  send the whole class to different classes, and the answer of concept poisoning lies between.
- **Masks are not needed.** New labels without masks do as well at half of the cost; masks without
  new labels forget nothing, as patches without new labels do on images.
- **It is not always gone**: the audit calls three draws removed and two suppressed, because
  relearning takes 0.6 of retrain's steps. SCRUB does better there (four removed), and answers
  unlike retrain (0.30). The mask and all that relabels by chance are suppressed in every draw.
- **The goal on run time is missed**, 0.71: all layers behind the embeddings are trained, for three
  epochs of a training that takes ten, and a third of the time goes to attributions.
- The exclusive concept cannot tell here: any of these networks reads a word off its input.
- Plain gradient steps forget nothing (fine-tuning) or break the network (gradient ascent,
  NegGrad+) at the rates that were tried; Fisher's noise leaves the class in five draws.
"""

STUDY = Study(
    script=__file__,
    title="Forgetting a class of texts",
    data="Captions of scenes with one large and two small objects, 1 200 to train, 600 to test; "
    "the class is the kind of the large object. Six species as on the page on scenes: heart and "
    "cross, forgotten by turns, are the classes' own words, and small objects carry them too. A "
    "BERT of two layers and 46 000 weights, trained from scratch in 10 epochs.",
    tasks=tasks,
    settings=SETTINGS,
    notes=NOTES,
    chosen=CHOSEN,
    reading=READING,
    options={"max_steps": 30, "relearn_samples": 80, "attack_lr": 0.01, "recovery": False},
    limits=("concept",),
    more=words,
)

if __name__ == "__main__":
    run(STUDY)
