"""Words as concepts of a text classifier: integrated gradients on input embeddings."""

from __future__ import annotations

__all__ = ["find_word_concepts", "mask_words", "merge_subwords", "word_scores"]

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from conceptlab.errors import DependencyError, InputError
from unlearning.classes.concepts.model_concepts import ModelConcepts, select_concepts
from unlearning.data import Samples
from unlearning.heads import frozen, run_model

_MARKS = ("Ġ", "▁")  # byte-level and sentence-piece vocabularies mark where words begin


def merge_subwords(tokens: Sequence[str], special: Collection[str] = ()) -> list[tuple[str, int]]:
    """Say which word each token belongs to.

    Parameters
    ----------
    tokens : sequence of str
        Tokens of one document, as the vocabulary spells them: pieces that
        begin with ``##`` go on a word (WordPiece), or those with ``Ġ`` or
        ``▁`` begin one. Vocabularies with neither have one token a word.
    special : collection of str
        Tokens that are no words, such as ``[CLS]``.

    Returns
    -------
    list of (word, number)
        One for each token: the word in lower case and its place; ("", -1) for
        special tokens.

    Examples
    --------
    >>> merge_subwords(["[CLS]", "gold", "##fish", "swim"], ["[CLS]"])
    [('', -1), ('goldfish', 0), ('goldfish', 0), ('swim', 1)]
    """
    marked = any(token.startswith(_MARKS) for token in tokens)
    words: list[str] = []
    places: list[int] = []
    inside = False
    for token in tokens:
        if token in special:
            places.append(-1)
            inside = False
            continue
        goes_on = token.startswith("##") or (marked and not token.startswith(_MARKS))
        piece = token.removeprefix("##").lstrip("".join(_MARKS))
        if goes_on and inside:
            words[-1] += piece
        else:
            words.append(piece)
        places.append(len(words) - 1)
        inside = True
    return [(words[p].lower(), p) if p >= 0 else ("", -1) for p in places]


def word_scores(
    scores: np.ndarray, words: Sequence[tuple[str, int]], skip: Collection[str] = ()
) -> dict[str, float]:
    """Turn token scores of one document into shares of its words.

    Parameters
    ----------
    scores : array of shape (t,)
        Attributions of tokens.
    words : sequence of (word, number)
        From :func:`merge_subwords`.
    skip : collection of str
        Words that do not count, in lower case.

    Returns
    -------
    dict of str to float
        Sums over a word's tokens, negative words left out, divided by their
        total; a word that occurs twice has both shares.

    Examples
    --------
    >>> word_scores(np.array([9.0, 1.0, 2.0, -1.0]), [("", -1), ("a", 0), ("a", 0), ("b", 1)])
    {'a': 1.0}
    """
    sums: dict[int, float] = {}
    names: dict[int, str] = {}
    for value, (word, place) in zip(scores, words, strict=True):
        if place >= 0 and word not in skip:
            sums[place] = sums.get(place, 0.0) + float(value)
            names[place] = word
    total = sum(value for value in sums.values() if value > 0)
    found: dict[str, float] = {}
    for place, value in sums.items():
        if value > 0:
            found[names[place]] = found.get(names[place], 0.0) + value / total
    return found


def find_word_concepts(
    model: nn.Module,
    samples: Samples,
    classes: Sequence[int],
    n_classes: int,
    tokenizer: Any,
    *,
    device: torch.device,
    stop_words: Collection[str] = (),
    max_documents: int = 64,
    n_steps: int = 20,
    mass: float = 0.8,
    max_concepts: int = 5,
    n_bootstrap: int = 200,
    min_frequency: float = 0.8,
    min_fidelity: float = 0.9,
    numpy: np.random.Generator | None = None,
) -> ModelConcepts:
    """Find the words that a text classifier knows classes by.

    Parameters
    ----------
    model : torch.nn.Module
        A transformers classifier with ``get_input_embeddings()``.
    samples : Samples
        Documents with ``input_ids`` (and ``attention_mask``, ...) of all classes.
    classes : sequence of int
        The classes asked about.
    n_classes : int
        Number of logits.
    tokenizer : object
        With ``convert_ids_to_tokens`` and special token ids, as transformers'.
    device : torch.device
        Where the model is.
    stop_words : collection of str
        Words that never count.
    max_documents : int
        Most documents that are attributed, drawn at random: of each class asked
        about, and of all others together (but at least 8 of each).
    n_steps : int
        Gauss-Legendre points of integrated gradients; four times as many where
        attributions do not add up within 1 %.
    mass, max_concepts, n_bootstrap, min_frequency
        As in :func:`find_model_concepts`.
    min_fidelity : float
        Fidelity below which the claim is refused.
    numpy : numpy.random.Generator, optional
        For draws.

    Returns
    -------
    ModelConcepts
        ``attribution`` is the mean share of a word in documents of the class,
        ``contrast`` that less the mean over the other classes. ``fidelity`` is one
        less the mean distance of a document's attributions, added up, from the
        change of its logit, as a share of that change.

    Notes
    -----
    The baseline has the pad token (mask token without one) in place of every
    token that is not special. Integrated gradients of the logit of a
    document's own class are summed over the dimensions of the embedding;
    sub-words are merged, and the positive mass of a document is scaled to 1.

    References
    ----------
    Sundararajan et al., *Axiomatic Attribution for Deep Networks*, ICML 2017;
    Chang et al., 2024 (arXiv 2405.15662), language pipeline.
    """
    rng = numpy or np.random.default_rng(0)
    ids = _input_ids(samples)
    skip = {word.lower() for word in stop_words}
    special = set(getattr(tokenizer, "all_special_tokens", ()))
    documents: dict[int, list[dict[str, float]]] = {}
    errors, changes = [], []
    rest = [label for label in samples.classes if label not in classes]
    for label in samples.classes:
        rows = (samples.y == label).nonzero()[:, 0].numpy()
        most = max(8, max_documents // max(len(rest), 1)) if label in rest else max_documents
        if len(rows) > most:
            rows = np.sort(rng.choice(rows, most, replace=False))
        part = samples.select(torch.from_numpy(rows))
        scores, error, change = _attribute(model, part, label, tokenizer, device, n_steps)
        if error.sum() > 0.01 * change.sum():
            scores, error, change = _attribute(model, part, label, tokenizer, device, 4 * n_steps)
        errors.append(error)
        changes.append(change)
        documents[label] = [
            word_scores(row, merge_subwords(tokenizer.convert_ids_to_tokens(line), special), skip)
            for row, line in zip(scores, ids[rows].tolist(), strict=True)
        ]
    error, change = np.concatenate(errors), np.concatenate(changes).clip(1e-12)
    fidelity = max(0.0, 1 - float(error.mean() / change.mean()))
    vocabulary = sorted({w for lines in documents.values() for line in lines for w in line})
    if not vocabulary:
        raise InputError(
            "No word of the documents speaks for its class: all attributions are negative, or all "
            f"words are stop words (they add up to the logits' change by {fidelity:.0%}). Give "
            "fewer stop_words, check that the model was trained, or leave out the tokenizer.",
            code="CL-INPUT-FEW",
        )
    place = {word: k for k, word in enumerate(vocabulary)}
    shares = {
        label: _matrix(lines, place) for label, lines in documents.items()
    }  # (documents, words)
    means = np.zeros((n_classes, len(vocabulary)))
    for label, values in shares.items():
        means[label] = values.mean(axis=0)
    contrast, frequency, chosen, stable = [], [], [], []
    for label in classes:
        others = [j for j in shares if j != label]
        gap = means[label] - means[others].mean(axis=0)
        picked = select_concepts(gap, mass, max_concepts)
        drawn = np.zeros(len(vocabulary))
        for _ in range(n_bootstrap):
            own = _resample(shares[label], rng)
            rest = np.mean([_resample(shares[j], rng) for j in others], axis=0)
            drawn[select_concepts(own - rest, mass, max_concepts)] += 1
        share = drawn / max(n_bootstrap, 1)
        contrast.append(gap)
        frequency.append(share)
        chosen.append([int(k) for k in picked])
        stable.append([bool(share[k] >= min_frequency) for k in picked])
    refused = fidelity < min_fidelity
    reason = "Words are attributed in the classifier itself, without a bottleneck."
    if refused:
        reason = (
            f"Attributions of words add up to the change of the logits by {fidelity:.1%} only, "
            f"less than {min_fidelity:.0%}, so nothing is claimed. The classifier is too rough "
            "between a document and its baseline; use poison='none'."
        )
    return ModelConcepts(
        classes=[int(c) for c in classes],
        names=vocabulary,
        attribution=means[list(classes)],
        contrast=np.stack(contrast),
        frequency=np.stack(frequency),
        selected=chosen,
        stable=stable,
        class_attribution=means,
        weights=means,
        activation_gap=means - means.mean(axis=0),
        fidelity=fidelity,
        min_fidelity=float(min_fidelity),
        refused=refused,
        reason=reason,
        completeness=float(error.max() / change.max()),
        source="words, by integrated gradients on input embeddings",
    )


def mask_words(
    input_ids: torch.Tensor,
    tokenizer: Any,
    words: Sequence[str],
    *,
    top: int = 5,
    rows: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace the strongest words of documents by the mask token.

    Parameters
    ----------
    input_ids : torch.Tensor of shape (n, t)
        Documents.
    tokenizer : object
        As transformers'; its mask token is used, or the unknown token.
    words : sequence of str
        In lower case, the strongest first.
    top : int
        In each document the first so many that are present, at every place.
    rows : torch.Tensor of int, optional
        Which documents; all by default.

    Returns
    -------
    input_ids : torch.Tensor of shape (n, t)
        A copy.
    count : torch.Tensor of shape (n,), int64
        Tokens replaced in each document.
    """
    blank = getattr(tokenizer, "mask_token_id", None)
    blank = blank if blank is not None else getattr(tokenizer, "unk_token_id", None)
    if blank is None:
        raise InputError(
            "The tokenizer has neither a mask token nor an unknown token to replace words by. "
            "Add one (tokenizer.add_special_tokens), or use poison='none'.",
            code="CL-INPUT-OPTION",
        )
    special = set(getattr(tokenizer, "all_special_tokens", ()))
    out = input_ids.clone()
    count = torch.zeros(len(out), dtype=torch.int64)
    for i in range(len(out)) if rows is None else rows.tolist():
        merged = merge_subwords(tokenizer.convert_ids_to_tokens(out[i].tolist()), special)
        present = {word for word, place in merged if place >= 0}
        gone = set([word for word in words if word in present][:top])
        hit = torch.tensor([place >= 0 and word in gone for word, place in merged])
        out[i, hit] = blank
        count[i] = int(hit.sum())
    return out, count


def _input_ids(samples: Samples) -> torch.Tensor:
    if not isinstance(samples.inputs, dict) or "input_ids" not in samples.inputs:
        raise InputError(
            "Word concepts need documents as a mapping with 'input_ids', as tokenizers give them.",
            code="CL-INPUT-TYPE",
        )
    return samples.inputs["input_ids"]


def _attribute(
    model: nn.Module,
    samples: Samples,
    label: int,
    tokenizer: Any,
    device: torch.device,
    n_steps: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token scores (n, t); error of completeness and change of the logit, (n,) each."""
    try:
        from captum.attr import LayerIntegratedGradients
    except ImportError as error:
        raise DependencyError(
            f"Word concepts need captum, which cannot be imported ({error}). Install it with: "
            "pip install captum"
        ) from error
    getter = getattr(model, "get_input_embeddings", None)
    if getter is None:
        raise InputError(
            f"{type(model).__name__} has no get_input_embeddings(); word concepts need the layer "
            "that embeds tokens. Use a transformers classifier.",
            code="CL-INPUT-TYPE",
        )
    if not isinstance(samples.inputs, dict):
        raise InputError("Documents must be a mapping of tensors.", code="CL-INPUT-TYPE")
    names = [key for key in samples.inputs if key != "input_ids"]

    def forward(ids: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        # captum repeats documents for its points; what goes with them must be repeated alike.
        inputs = dict(zip(names, rest, strict=True))
        return run_model(model, {"input_ids": ids, **inputs})

    embed = getter()
    gradients = LayerIntegratedGradients(forward, embed)
    found, errors, changes = [], [], []
    with frozen(model):
        for inputs, _ in samples.batches(16):
            if not isinstance(inputs, Mapping):
                raise InputError("Documents must be a mapping of tensors.", code="CL-INPUT-TYPE")
            ids = inputs["input_ids"].to(device)
            rest = tuple(inputs[name].to(device) for name in names)
            start = _baseline(ids, tokenizer)
            scores = (
                gradients.attribute(
                    ids,
                    baselines=start,
                    additional_forward_args=rest,
                    target=label,
                    n_steps=n_steps,
                    internal_batch_size=max(64, len(ids)),
                )
                .sum(dim=-1)
                .detach()
            )
            with torch.no_grad(), _answering(embed, embed(start)):
                # Only the embeddings move: places, and the token that is pooled, are told
                # by the document's own ids.
                low = forward(ids, *rest)[:, label]
            with torch.no_grad():
                change = (forward(ids, *rest)[:, label] - low).double()
            total = scores.sum(dim=1).double()
            found.append(scores.cpu().double().numpy())
            errors.append((total - change).abs().cpu().numpy())
            changes.append(change.abs().cpu().numpy())
    return np.concatenate(found), np.concatenate(errors), np.concatenate(changes)


@contextlib.contextmanager
def _answering(module: nn.Module, value: torch.Tensor) -> Iterator[None]:
    """Let a module give `value`, whatever goes in."""
    handle = module.register_forward_hook(lambda _m, _a, _v: value)
    try:
        yield
    finally:
        handle.remove()


def _baseline(ids: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    blank = getattr(tokenizer, "pad_token_id", None)
    for name in ("mask_token_id", "unk_token_id"):
        blank = blank if blank is not None else getattr(tokenizer, name, None)
    special = torch.tensor(sorted(getattr(tokenizer, "all_special_ids", ())), device=ids.device)
    return torch.where(torch.isin(ids, special), ids, 0 if blank is None else int(blank))


def _matrix(lines: Sequence[Mapping[str, float]], place: Mapping[str, int]) -> np.ndarray:
    found = np.zeros((len(lines), len(place)))
    for row, line in zip(found, lines, strict=True):
        for word, value in line.items():
            row[place[word]] = value
    return found


def _resample(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(values)
    mean: np.ndarray = rng.multinomial(n, np.full(n, 1 / n)) @ values / n
    return mean
