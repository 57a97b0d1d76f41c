"""Forgetting a class through its concepts: find them, poison with them, relabel, fine-tune."""

from __future__ import annotations

__all__ = ["ConceptPoisoning"]

from collections.abc import Callable, Collection
from dataclasses import fields
from inspect import signature
from typing import Any, Self

import torch

from conceptlab import ConceptBank
from conceptlab.errors import InputError
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.seeds import RandomState
from unlearning.classes.base import Unlearner
from unlearning.classes.concepts import labels as label_rules
from unlearning.classes.concepts.model_concepts import (
    HEADS,
    ModelConcepts,
    find_model_concepts,
    some_rows,
)
from unlearning.classes.concepts.poison_training import train_on
from unlearning.classes.concepts.poisoning import Poisoned, poison_images, poison_texts
from unlearning.classes.concepts.poisons import FILLS, PLACES, POISONS
from unlearning.classes.concepts.recipe import Recipe
from unlearning.classes.concepts.renewal import SHARE, reason_against, renew
from unlearning.classes.concepts.retained_head import (
    Readings,
    choose_layer,
    parameters_behind,
    read_layers,
    retained_targets,
)
from unlearning.classes.job import Job
from unlearning.data import Inputs, concat

_MOST_ROWS = 5000  # of which concepts are told
_ASKED = (
    *("poison", "labels", "layer", "scope", "beta", "distil", "forget_weight", "epochs"),
    *("min_steps", "lr", "optimizer", "schedule", "batch_size", "norm"),
)  # what says that samples are to be poisoned or relabelled, and how
_DOCUMENTS = 64  # that are attributed where words are masked; a quarter tells which they are
_STEPS, _RATE, _STRANGE = 150, 2e-3, 0.05  # the last: told wrongly, as samples new to it
_SHARED = 0.1  # of a concept's attribution for its class: from there on others share it


class ConceptPoisoning(Unlearner):
    """Find the concepts of a class, and take them out: by new weights, or by other labels.

    1. A post-hoc bottleneck on the model's own penultimate features, and
       integrated gradients at its concept layer, tell what the class is known
       by (for texts: words, by integrated gradients on input embeddings).
    2. Where the retained data can teach the network again, a share of every weight is drawn
       anew (`renew`), and it learns on retained samples alone, from their labels and
       the original's answers without the class: features of the class go at every depth. Where
       that does, the run ends here.
    3. Else samples of the class are poisoned: nothing, the located concept masked,
       or a patch of a donor class pasted over it (for texts: words masked). They get
       other labels, and the model is fine-tuned on them and on the retained data:
       cross-entropy and distillation from the original on what is kept,
       cross-entropy to the new labels, and a pull of the features to where the new
       labels say, ``beta |phi(x) - sum_j t_j mu_j|² / var(phi)``.

    Parameters
    ----------
    bank : ConceptBank, optional
        Concepts as directions in the space of the model's penultimate
        features; found on these features by default.
    n_concepts : int or "auto"
        How many are found; see :func:`find_model_concepts`.
    concept_head : {"linear", "mlp"}
        Head of the bottleneck.
    select : {"ig", "weights"}
        Whether concepts and donor are chosen by integrated gradients or by
        the bottleneck's weights, as in the released code.
    min_fidelity : float
        Agreement of bottleneck and model (for words: of attributions and logits)
        below which no concept is claimed: a warning says so, donors are chosen by
        confusion, and windows by the class's logit.
    renew : float or "auto"
        Share of new weights, 0 for none. "auto" is 0.8, and 0 where poison, labels or
        anything of the training is asked for, or where the retained samples are too few
        for the network (``details["not_renewed"]`` says which). With a number other
        labels are taught, too.
    poison : {"auto", "none", "mask", "donor"}
        What becomes of samples of the class; "auto" is "none".
    poison_share : float
        Share of the forgotten samples that is poisoned; all are relabelled.
    place : {"located", "centre", "random", "full"}
        Where in the image.
    patch_size : float or int
        Side of the window, as a share of the image's or in pixels.
    fill : {"blur", "mean"}
        What masks a window.
    labels : str
        - ``"retained_head"``: what a head says that is fitted to retained
          samples only, on an earlier layer of the model: nearest to what a
          retrained model says;
        - ``"soft"``: ``t_j = f_j / (1 - f_c)``;
        - ``"targeted"``: one donor class for all; ``"targeted_per_sample"``:
          each sample's strongest retained class;
        - ``"random"``: any retained class; ``"keep"``: unchanged, for ablation.
    donor_rule : {"confusion", "shared"}
        See :func:`unlearning.classes.concepts.labels.donor_class`.
    temperature : float
        Of the soft labels.
    layer : str
        The layer that ``"retained_head"`` reads, and behind which
        ``scope="late"`` trains; "auto" chooses one in the middle, and of
        texts the end of the embeddings.
    scope : {"late", "all", "head"} or int
        What is trained: the layers that run after `layer` (two with a matrix of
        weights at least, or the class would only be masked), all, the last one,
        or the last so many layers with weights.
    beta : float
        Weight of the feature pull; 0 without.
    distil : float
        Weight of the divergence from the original on retained data.
    forget_weight : float or "joint"
        Weight of the loss on forgotten samples beside that on retained ones;
        "joint" mixes all samples in one batch, each of the same weight.
    epochs : int
        Passes over the retained data; more where that makes fewer than
        `min_steps` steps. With `stop`, up to three times as many while held-out
        samples are not forgotten.
    min_steps : int or "auto"
        Fewest steps; 0 leaves it to `epochs`; "auto" is 150, and 0 for texts. Where the
        stop rule ends the epochs that this adds, the run is "done".
    lr : float or "auto"
        Peak learning rate. "auto" is 2e-3; a tenth of it where the network is wrong on more
        than one in twenty retained samples, because it did not learn from these, as a
        published one: larger steps would fit it to them and lose what it knows.
    optimizer : {"adam", "sgd"}
        What steps.
    schedule : {"cosine", "constant"}
        Warm-up and cosine decay of the rate, or the same rate throughout.
    stop : bool
        After each epoch, look at held-out samples; keep the best epoch at
        which the class is forgotten, and end when it gets worse twice.
    holdout : float
        Share of the data held out for that, where no `valid` is given.
    tokenizer : object, optional
        Of a text classifier.
    top_words : int
        Words masked in a document.
    stop_words : collection of str
        Words that are no concepts.
    batch_size : int
        Retained samples in a batch.
    momentum, weight_decay : float
        Of the optimiser.
    norm : {"frozen", "update"}
        Whether normalisation layers keep their running statistics.
    augment : callable, optional
        From (images, generator) to images, as in the model's own training.
    head : str, optional
        Name of the model's last linear layer, where it is not found.
    max_steps : int, optional
        Most optimiser steps.
    max_seconds : float, optional
        Most seconds of wall time.
    device : str or torch.device
        Where to compute; "auto" is where the model is.
    random_state : int, Generator or None
        For splits, draws and the order of batches.

    Notes
    -----
    On images the labels do the work, not the patch: flipping labels alone
    forgets the class, pasting alone does not (in the tables of the paper's
    code, and in a test here). The default therefore poisons no image. But labels leave what
    earlier layers hold, which counts as suppressed; new weights that learn from retained
    samples alone hold no more of the class than a retrained network's.

    References
    ----------
    Chang, Zhu, Xu, Liu and Zhou, "Class Machine Unlearning for Complex Data
    via Concepts Inference and Data Poisoning", 2024 (arXiv 2405.15662).

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> y = torch.arange(90) % 3
    >>> X = torch.eye(3)[y] + 0.1 * torch.rand(90, 3)
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> optimizer = torch.optim.Adam(net.parameters(), 0.05)
    >>> for _ in range(60):
    ...     optimizer.zero_grad()
    ...     torch.nn.functional.cross_entropy(net(X), y).backward()
    ...     _ = optimizer.step()
    >>> method = ConceptPoisoning(lr=0.1, epochs=20, random_state=0)
    >>> result = method.unlearn(net, forget=(X[y == 2], y[y == 2]), retain=(X[y < 2], y[y < 2]))
    >>> bool((result.model(X[y == 2]).argmax(1) == 2).any()), result.details["labels"]
    (False, 'retained_head')
    """

    _rules = Rules(
        concept_head=OneOf(*HEADS),
        select=OneOf("ig", "weights"),
        poison=OneOf("auto", *POISONS),
        place=OneOf(*PLACES),
        fill=OneOf(*FILLS),
        labels=OneOf(*label_rules.LABELS),
        donor_rule=OneOf(*label_rules.DONOR_RULES),
        optimizer=OneOf("adam", "sgd"),
        schedule=OneOf("cosine", "constant"),
        n_concepts=OneOf("auto") | Whole(1),
        scope=OneOf("late", "all", "head") | Whole(1),
        forget_weight=OneOf("joint") | Real(above=0),
        renew=OneOf("auto") | Real(least=0, most=1),
        patch_size=Whole(1) | Real(above=0, most=1),
        min_fidelity=Real(least=0, most=1),
        poison_share=Real(least=0, most=1),
        holdout=Real(least=0, most=0.5),
        min_steps=OneOf("auto") | Whole(0),
        lr=OneOf("auto") | Real(above=0),
        temperature=Real(above=0),
        top_words=Whole(1),
        beta=Real(least=0),
        distil=Real(least=0),
    )

    def __init__(
        self,
        bank: ConceptBank | None = None,
        *,
        n_concepts: int | str = "auto",
        concept_head: str = "linear",
        select: str = "ig",
        min_fidelity: float = 0.9,
        renew: float | str = "auto",
        poison: str = "auto",
        poison_share: float = 0.5,
        place: str = "located",
        patch_size: float = 0.3,
        fill: str = "blur",
        labels: str = "retained_head",
        donor_rule: str = "confusion",
        temperature: float = 1.0,
        layer: str = "auto",
        scope: str | int = "late",
        beta: float = 0.3,
        distil: float = 1.0,
        forget_weight: float | str = 1.0,
        epochs: int = 3,
        min_steps: int | str = "auto",
        lr: float | str = "auto",
        optimizer: str = "adam",
        schedule: str = "cosine",
        stop: bool = True,
        holdout: float = 0.1,
        tokenizer: Any = None,
        top_words: int = 5,
        stop_words: Collection[str] = (),
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        norm: str = "frozen",
        augment: Callable[..., Any] | None = None,
        head: str | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.bank = bank
        self.n_concepts = n_concepts
        self.concept_head = concept_head
        self.select = select
        self.min_fidelity = min_fidelity
        self.renew = renew
        self.poison = poison
        self.poison_share = poison_share
        self.place = place
        self.patch_size = patch_size
        self.fill = fill
        self.labels = labels
        self.donor_rule = donor_rule
        self.temperature = temperature
        self.layer = layer
        self.scope = scope
        self.beta = beta
        self.distil = distil
        self.forget_weight = forget_weight
        self.epochs = epochs
        self.min_steps = min_steps
        self.lr = lr
        self.optimizer = optimizer
        self.schedule = schedule
        self.stop = stop
        self.holdout = holdout
        self.tokenizer = tokenizer
        self.top_words = top_words
        self.stop_words = stop_words
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.head = head
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.device = device
        self.random_state = random_state

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Give the published setting for images.

        The bottleneck's weights choose concept and donor; the donor's patch of
        64/224 of the image is pasted over the located concept of every
        forgotten image; all get the donor's label; only the head is trained,
        by SGD of rate 0.001 and momentum 0.9 in mixed batches of 32 for 20
        epochs, with normalisation layers in training mode.

        Parameters
        ----------
        **changes
            Other parameters, such as ``poison="none"`` for the ablation.

        Returns
        -------
        ConceptPoisoning

        Notes
        -----
        On purpose, concepts are located by the model's own features (not CLIP),
        random labels are never the forgotten class, and there is no JPEG.

        Examples
        --------
        >>> ConceptPoisoning.paper(poison="none").scope
        'head'
        """
        setting: dict[str, Any] = {
            "select": "weights",
            "renew": 0.0,
            "poison": "donor",
            "poison_share": 1.0,
            "place": "located",
            "patch_size": 64 / 224,
            "labels": "targeted",
            "donor_rule": "confusion",
            "scope": "head",
            "beta": 0.0,
            "distil": 0.0,
            "forget_weight": "joint",
            "epochs": 20,
            "min_steps": 0,
            "lr": 1e-3,
            "optimizer": "sgd",
            "schedule": "constant",
            "stop": False,
            "batch_size": 32,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "norm": "update",
        }
        return cls(**{**setting, **changes})

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.bank is not None and not isinstance(self.bank, ConceptBank):
            raise InputError(
                f"bank must be a ConceptBank or None, got {type(self.bank).__name__}.",
                code="CL-INPUT-TYPE",
            )
        if isinstance(self.stop_words, str):
            raise InputError(
                f"stop_words must be a list of words, got {self.stop_words!r}.",
                code="CL-INPUT-TYPE",
            )

    # -- the method --------------------------------------------------------------------
    def _unlearn(self, job: Job) -> dict[str, Any]:
        text = isinstance(job.forget.inputs, dict) and "input_ids" in job.forget.inputs
        example = job.to_device(job.forget.select(range(min(2, len(job.forget)))).inputs)
        share, reason = self._renewal(job)
        facts: dict[str, Any] = {"renewed": 0.0, "not_renewed": reason, "layer": ""}
        alone = share > 0 and self.renew == "auto"
        layer = None if alone else self._layer(job, example)
        retain, forget = (
            read_layers(job, job.original, s, layer) for s in (job.retain, job.forget)
        )
        concepts = self._concepts(job, retain, forget, text)
        if concepts["refused"]:
            job.warnings.append(f"No concepts are claimed. {concepts['reason']}")
        donors = self._donors(job, forget, concepts)
        facts["concepts"] = concepts
        if share and renew(job, retain.logits, share, self.holdout / 2):
            facts["renewed"] = share
            if alone:
                return facts | {"labels": "", "poison": "none", "n_poisoned": 0, "scope": "all"}
        elif share:
            facts["not_renewed"] = "the retained samples did not bring back what it knew"
            job.warnings.append(
                "New weights did not learn again what the network knew of retained classes; other "
                "labels were taught to its own weights instead, whose early layers still hold the "
                "class."
            )
        if alone:
            layer = self._layer(job, example)
            retain, forget = (
                read_layers(job, job.original, s, layer) for s in (job.retain, job.forget)
            )
        targets = self._targets(job, layer, retain, forget, donors)
        poisoned = self._poison(job, concepts, donors, text)
        self._restrict(job, example, layer)
        train_on(
            self._recipe(job, retain, text),
            job,
            retain,
            targets,
            poisoned.samples,
        )
        return facts | {
            "labels": self.labels,
            "layer": layer or "",
            "poison": poisoned.kind,
            "n_poisoned": int(poisoned.rows.sum()),
            "mean_target": [float(v) for v in targets.mean(dim=0)],
            "scope": str(self.scope),
        }

    def _recipe(self, job: Job, retain: Readings, text: bool) -> Recipe:
        """Give the options of the training, with what is left to this method filled in."""
        options = {f.name: getattr(self, f.name) for f in fields(Recipe)}
        if self.min_steps == "auto":
            options["min_steps"] = 0 if text else _STEPS
        if self.lr == "auto":
            wrong = float((retain.logits.argmax(dim=1) != job.retain.y).float().mean())
            options["lr"] = _RATE if wrong <= _STRANGE else _RATE / 10
        return Recipe(**options)

    def _layer(self, job: Job, example: Inputs) -> str | None:
        """Name the layer that the head for retained classes reads, where one is wanted."""
        if self.labels == "retained_head" or self.scope == "late":
            return choose_layer(job.original, example, self.layer)
        return None

    def _renewal(self, job: Job) -> tuple[float, str]:
        """Give the share of new weights, and why there are none."""
        if self.renew != "auto":
            return float(self.renew), "" if self.renew else "renew=0"
        defaults = signature(type(self)).parameters
        for name in _ASKED:
            if getattr(self, name) != defaults[name].default:
                return 0.0, f"{name} is asked for"
        reason = reason_against(job)
        return (0.0 if reason else SHARE), reason

    def _concepts(self, job: Job, retain: Readings, forget: Readings, text: bool) -> ModelConcepts:
        if text and self.tokenizer is not None:
            from unlearning.classes.concepts.words import find_word_concepts

            return find_word_concepts(
                job.original,
                concat(job.retain, job.forget),
                job.classes,
                job.n_classes,
                self.tokenizer,
                device=job.device,
                stop_words=self.stop_words,
                max_documents=_DOCUMENTS if self.poison == "mask" else _DOCUMENTS // 2,
                min_fidelity=self.min_fidelity,
                numpy=job.numpy,
            )
        y = torch.cat([job.retain.y, job.forget.y])
        rows = some_rows(y, _MOST_ROWS, job.numpy)
        features = torch.cat([retain.features, forget.features])[rows]
        logits, y = torch.cat([retain.logits, forget.logits])[rows], y[rows]
        return find_model_concepts(
            features,
            logits,
            y,
            job.classes,
            bank=self.bank,
            n_concepts=self.n_concepts,
            head=self.concept_head,
            min_fidelity=self.min_fidelity,
            numpy=job.numpy,
        )

    def _donors(
        self, job: Job, forget: Readings, concepts: ModelConcepts
    ) -> dict[int, tuple[int, int | None]]:
        """Class to (donor class, donor's concept), told in the concepts too."""
        matrix = concepts["class_attribution" if self.select == "ig" else "weights"]
        donors: dict[int, tuple[int, int | None]] = {}
        rules = []
        for label in job.classes:
            donor, concept, rule = label_rules.donor_class(
                matrix, label, job.retained, rule=self.donor_rule
            )
            # Of a concept that hardly speaks for another class nobody is the natural heir.
            least = _SHARED * max(0.0, float(matrix[label, concept]))
            alone = self.select == "ig" and not matrix[donor, concept] > least
            if concepts["refused"] or alone:
                logits = forget.logits[job.forget.y == label]
                soft = label_rules.soft_probabilities(logits, job.retained)
                donors[label] = (label_rules.most_confused(soft), None)
                rules.append("most confused by the model")
                continue
            strongest = int(matrix[donor].argmax()) if rule == "shared" else concept
            donors[label] = (donor, strongest)
            rules.append(rule)
        concepts["donor"] = [donors[label][0] for label in job.classes]
        concepts["donor_concept"] = [donors[label][1] for label in job.classes]
        concepts["donor_rule"] = rules
        return donors

    def _targets(
        self,
        job: Job,
        layer: str | None,
        retain: Readings,
        forget: Readings,
        donors: dict[int, tuple[int, int | None]],
    ) -> torch.Tensor:
        y, n_classes = job.forget.y, job.n_classes
        if self.labels == "keep":
            return label_rules.hard_targets(y, n_classes)
        if self.labels == "random":
            return label_rules.random_targets(len(y), n_classes, job.retained, job.generator)
        if self.labels == "targeted":
            chosen = torch.tensor([donors[int(label)][0] for label in y])
            return label_rules.hard_targets(chosen, n_classes)
        if self.labels == "targeted_per_sample":
            return label_rules.targeted_per_sample(forget.logits, job.retained)
        if self.labels == "retained_head" and layer is not None:
            return retained_targets(job, layer, retain, forget)
        return label_rules.soft_probabilities(forget.logits, job.retained, self.temperature)

    def _poison(
        self,
        job: Job,
        concepts: ModelConcepts,
        donors: dict[int, tuple[int, int | None]],
        text: bool,
    ) -> Poisoned:
        kind = "none" if self.poison == "auto" else self.poison
        n = len(job.forget)
        rows = torch.zeros(n, dtype=torch.bool)
        if kind == "none":
            return Poisoned(job.forget, rows, kind)
        rows[torch.randperm(n, generator=job.generator)[: round(self.poison_share * n)]] = True
        if text:
            if kind == "donor" or self.tokenizer is None:
                raise InputError(
                    "Texts are poisoned by poison='mask', which needs the model's tokenizer: "
                    "ConceptPoisoning(tokenizer=...).",
                    code="CL-INPUT-OPTION",
                )
            return poison_texts(job, concepts, rows, self.tokenizer, self.top_words)
        return poison_images(
            job,
            concepts,
            donors,
            rows,
            kind=kind,
            place=self.place,
            fill=self.fill,
            patch_size=self.patch_size,
            select=self.select,
        )

    def _restrict(self, job: Job, example: Inputs, layer: str | None) -> None:
        """Let only the parameters in scope learn."""
        if self.scope == "all":
            return
        wanted: set[int]
        if self.scope == "head":
            wanted = {id(p) for p in job.head.linear.parameters()}
        elif self.scope == "late" and layer is not None:
            behind = parameters_behind(job.model, example, layer, least=2)
            wanted = {
                id(p) for name in behind for p in job.model.get_submodule(name).parameters(False)
            }
        else:
            layers = [m for m in job.model.modules() if any(True for _ in m.parameters(False))]
            wanted = {id(p) for m in layers[-int(self.scope) :] for p in m.parameters(False)}
        for parameter in job.model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in wanted)
        matrices = [p for p in job.model.parameters() if p.ndim > 1]
        if self.scope != "head" and sum(p.requires_grad for p in matrices) == 1 < len(matrices):
            job.warnings.append(
                "Only the head is trained, so that the class is masked: what lies before it still "
                "tells the class. Unfreeze more layers, or use scope='all'."
            )
        if not job.trainable():
            raise InputError(
                f"scope={self.scope!r} leaves no parameter to train, because those in it are "
                "frozen (requires_grad is False). Unfreeze them, or use scope='all'.",
                code="CL-INPUT-OPTION",
            )
