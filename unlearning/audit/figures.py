"""What an audit measures: names, meanings, ideals."""

from __future__ import annotations

__all__ = ["COLUMNS", "FIGURES", "GROUPS", "Figure", "better"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure of an audit.

    Attributes
    ----------
    title : str
        For headings.
    group : str
        One of :data:`GROUPS`.
    text : str
        What it is, in a line.
    share : bool
        Whether it lies in [0, 1], so that bars of several figures can share an axis.
    """

    title: str
    group: str
    text: str
    share: bool = True


COLUMNS: dict[str, str] = {
    "before": "original",
    "after": "unlearned",
    "mask": "logit mask",
    "retrained": "retrained",
    "retrained_b": "retrained again",
}
"""Models of an audit: key and title."""

GROUPS = ("accuracy", "distance", "membership", "features", "attacks", "concepts", "cost")
"""Groups of figures, in the order of the tables."""

FIGURES: dict[str, Figure] = {
    "fa_train": Figure(
        "forget accuracy, train", "accuracy", "accuracy on the samples to be forgotten"
    ),
    "fa_test": Figure(
        "forget accuracy, test", "accuracy", "accuracy on test samples of the forgotten class"
    ),
    "ra": Figure("retain accuracy", "accuracy", "accuracy on retained training samples"),
    "ta": Figure("test accuracy", "accuracy", "accuracy on test samples of retained classes only"),
    "fa_earlier": Figure(
        "earlier classes",
        "accuracy",
        "largest test accuracy on a class that an earlier request made the model forget",
    ),
    "gap": Figure(
        "average gap",
        "distance",
        "mean distance of forget, retain and test accuracy and of the confidence attack to the "
        "retrained model, in points",
        share=False,
    ),
    "tow": Figure("tug of war", "distance", "product of one minus the distances in accuracy"),
    "aus": Figure(
        "AUS", "distance", "adaptive unlearning score: what was kept against what was forgotten"
    ),
    "js": Figure(
        "JS to retrained",
        "distance",
        "Jensen-Shannon divergence of the answers on test samples of the class, nats",
    ),
    "js_mask": Figure(
        "JS to logit mask",
        "distance",
        "the same to the original with the class's logit masked: 0 is nothing but a mask",
    ),
    "activation": Figure(
        "activation distance",
        "distance",
        "mean Euclidean distance of probabilities to the retrained model",
        share=False,
    ),
    "agreement": Figure(
        "agreement", "distance", "share of test samples of the class answered as retrained does"
    ),
    "zrf": Figure(
        "ZRF", "distance", "one minus JS to a network with random weights, on forget samples"
    ),
    "temperature": Figure(
        "temperature",
        "distance",
        "size of the logits in units of the original's; answers are compared after division by it",
        share=False,
    ),
    "memorised": Figure(
        "memorised",
        "membership",
        "how much surer a model is of the samples than retrained ones, less the same on test "
        "samples of the same classes; log-odds in nats, for parts of classes only",
        share=False,
    ),
    "memorised_error": Figure(
        "its standard error", "membership", "of what was memorised", share=False
    ),
    "memory_auc": Figure(
        "forgotten surer than new",
        "membership",
        "share of pairs of a forgotten sample and a test sample of the same classes in which the "
        "model is surer of the forgotten one, for parts of classes only",
    ),
    "mia_confidence": Figure(
        "confidence attack",
        "membership",
        "share of forget samples that a support vector machine on the confidence calls "
        "non-members (MIA-efficacy)",
    ),
    "mia_accuracy": Figure(
        "accuracy of the attack",
        "membership",
        "share of known members and non-members that the confidence attack tells apart; near one "
        "half it says nothing",
    ),
    "mia_entropy": Figure(
        "entropy attack",
        "membership",
        "share of forget samples that a logistic attack on the entropy calls members",
    ),
    "mia_modified": Figure(
        "modified entropy attack",
        "membership",
        "share of forget samples called non-members by their modified entropy",
    ),
    "mia_loss": Figure(
        "loss attack",
        "membership",
        "|accuracy - ½| of telling forget samples from unseen ones of the class by their loss",
    ),
    "mia_neighbours": Figure(
        "attack by neighbours",
        "membership",
        "share of answers on test samples of the class whose model, this or a retrained one, is "
        "told by the probabilities of the neighbouring classes; compare with two retrained models",
    ),
    "features_kept": Figure(
        "features kept",
        "features",
        "R² of the best linear map from the last features to the original's, fitted on retained "
        "samples and read on test samples of the class; 1 for the same features in other units",
    ),
    "features_kept_middle": Figure(
        "features kept, middle", "features", "the same for a layer in the middle of the network"
    ),
    "probe_5": Figure(
        "probe, 5 samples",
        "features",
        "share of test samples of the class that a linear classifier on the features names rightly "
        "which saw five samples of it",
    ),
    "probe_20": Figure("probe, 20 samples", "features", "the same with twenty samples"),
    "probe_5_middle": Figure(
        "probe, 5 samples, middle", "features", "the same with five, for a layer in the middle"
    ),
    "probe_20_middle": Figure(
        "probe, 20 samples, middle", "features", "the same with twenty, for a layer in the middle"
    ),
    "probe_recall": Figure(
        "probe, all samples", "features", "the same with all, by logistic regression"
    ),
    "probe_auc": Figure(
        "probe AUC", "features", "area under the ROC curve of that probe for the class"
    ),
    "relearn_steps": Figure(
        "relearn steps", "attacks", "mini-batches until the class is known again", share=False
    ),
    "ain": Figure(
        "AIN", "attacks", "relearn steps as a ratio to the retrained model's", share=False
    ),
    "relearn_ended": Figure(
        "relearning ran out of steps",
        "attacks",
        "1 where the class was not learned again, so that the steps are a lower bound",
        share=False,
    ),
    "relearn_broken": Figure(
        "relearning broke",
        "attacks",
        "1 where the class was learned again only at the price of retained ones",
        share=False,
    ),
    "fa_int8": Figure("forget accuracy, int8", "attacks", "forget accuracy with weights at 8 bits"),
    "ta_int8": Figure("test accuracy, int8", "attacks", "test accuracy with weights at 8 bits"),
    "fa_int4": Figure("forget accuracy, int4", "attacks", "forget accuracy with weights at 4 bits"),
    "ta_int4": Figure("test accuracy, int4", "attacks", "test accuracy with weights at 4 bits"),
    "fa_recovered": Figure(
        "forget accuracy, recovered",
        "attacks",
        "forget accuracy after further training on retained samples only",
    ),
    "concept_attribution": Figure(
        "attribution to the class",
        "concepts",
        "what the class's concepts add to its logit, integrated gradients of a linear surrogate",
        share=False,
    ),
    "concept_r2": Figure(
        "surrogate R²", "concepts", "share of the class's logit that concepts explain"
    ),
    "concept_auc": Figure(
        "own concept encoded",
        "concepts",
        "AUC of a probe for concepts that only this class has",
    ),
    "concept_auc_other": Figure(
        "other concepts encoded", "concepts", "mean AUC of probes for other concepts"
    ),
    "redirect": Figure(
        "redirected attribution",
        "concepts",
        "largest attribution of the class's concepts on the logit of a retained class",
        share=False,
    ),
    "donor": Figure(
        "donor probability",
        "concepts",
        "mean of the largest probability of a retained class on test samples of the class",
    ),
    "rte": Figure(
        "run-time efficiency", "cost", "CPU seconds as a ratio to retraining", share=False
    ),
}
"""Every figure by its key, in the order of the tables."""

_LOWER = {"fa_train", "fa_test", "fa_earlier", "fa_int8", "fa_int4", "fa_recovered", "gap", "js"}
_LOWER |= {"activation", "rte"}
_HIGHER = {"ra", "ta", "ta_int8", "ta_int4", "tow", "aus", "agreement"}
_TOLD = {
    "memorised_error",
    "temperature",
    "mia_accuracy",
    "relearn_ended",
    "relearn_broken",
    "concept_r2",
}


def better(key: str) -> str:
    """Say which way a figure is better.

    Parameters
    ----------
    key : str

    Returns
    -------
    str
        Empty for figures that only say what others are worth.

    Examples
    --------
    >>> better("ta"), better("probe_20")
    ('higher is better', "best where a retrained model's is")
    """
    if key in _TOLD:
        return ""
    if key in _LOWER:
        return "lower is better"
    return "higher is better" if key in _HIGHER else "best where a retrained model's is"
