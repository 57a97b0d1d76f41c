"""Where banks come from: texts, examples, extractors, files of names."""

from __future__ import annotations

__all__ = ["BankMakers"]

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from conceptlab.arrays import as_numpy, check_finite
from conceptlab.bank.checks import checked_names
from conceptlab.bank.directions import METHODS, cross_validated_auc, fit_direction
from conceptlab.errors import InputError, unknown_name
from conceptlab.io.reading import read_plain_file, strict_json
from conceptlab.seeds import RandomState, draw_seed

if TYPE_CHECKING:
    from typing import Self

    from conceptlab.encoders.base import Encoder
    from conceptlab.encoders.templates import Templates


class BankMakers:
    """The class methods that make a :class:`conceptlab.ConceptBank`."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def meta(self) -> dict[str, Any]:
            """How the bank came about."""

        def __init__(self, vectors: Any, names: Any, *, space: str | None, **rest: Any) -> None: ...

        def _replace(self, **changes: Any) -> Self: ...

        def rename(self, names: Any) -> Self:
            """Give concepts other names."""

    @classmethod
    def from_texts(
        cls,
        encoder: Encoder,
        names: Sequence[str] | Mapping[str, str | Sequence[str]],
        *,
        templates: Templates = None,
        **options: Any,
    ) -> Self:
        """Let the encoder's text tower give the vectors.

        Parameters
        ----------
        encoder : Encoder
        names : sequence of str, or mapping
            A mapping goes from name to the text, or to texts to average, that
            stand for it.
        templates : str, sequence of str, or None
            Sentences around each text; see ``encode_text``.
        **options
            For ``encode_text``, such as ``truncate`` and ``cache``.

        Returns
        -------
        ConceptBank
            Unit vectors, so that the score of unit features is the cosine.

        Examples
        --------
        >>> from conceptlab.encoders import CallableEncoder
        >>> encoder = CallableEncoder(lambda x: x, lambda texts: [[len(t), 1.0] for t in texts])
        >>> from conceptlab import ConceptBank
        >>> ConceptBank.from_texts(encoder, ["red", "round"]).vectors.shape
        (2, 2)
        """
        _check_encoder(encoder, "encode_text")
        if isinstance(names, Mapping):
            labels = list(names)
            groups = [[t] if isinstance(t, str) else list(t) for t in names.values()]
        else:
            labels = [names] if isinstance(names, str) else list(names)
            groups = [[label] for label in labels]
        checked_names(labels)
        empty = [name for name, texts in zip(labels, groups, strict=True) if not texts]
        if empty:
            raise InputError(f"No text is given for {empty[:5]}.", code="CL-INPUT-EMPTY")
        flat = [text for texts in groups for text in texts]
        rows = as_numpy(encoder.encode_text(flat, templates=templates, **options))
        if len(flat) > len(groups):
            ends = np.cumsum([len(texts) for texts in groups])
            means = [part.mean(axis=0) for part in np.split(rows, ends[:-1])]
            lengths = np.linalg.norm(means, axis=1, keepdims=True)
            rows = np.asarray(means / np.where(lengths > 0, lengths, 1), dtype=rows.dtype)
        meta: dict[str, Any] = {"source": "texts", "encoder": encoder.name}
        if templates is not None:
            meta["templates"] = templates if isinstance(templates, str) else list(templates)
        if isinstance(names, Mapping):
            meta["concepts"] = {"texts": groups}
        return cls(rows, labels, space=encoder.fingerprint, meta=meta)

    @classmethod
    def from_examples(
        cls,
        encoder: Encoder | None,
        examples: Mapping[str, Any],
        *,
        negatives: Any = None,
        method: str = "shrunken",
        n_folds: int = 5,
        space: str | None = None,
        random_state: RandomState = None,
        **options: Any,
    ) -> Self:
        """Learn concepts from samples that have them and samples that do not.

        Parameters
        ----------
        encoder : Encoder or None
            None means that examples are features (n, d) already.
        examples : mapping of str to (positives, negatives), or to positives
            Images, or features, with and without the concept.
        negatives : images or features, optional
            For concepts with positives alone. Left out, the positives of all
            other concepts serve.
        method : {"shrunken", "mean", "svm", "logistic"}
            See :func:`conceptlab.bank.directions.fit_direction`.
        n_folds : int
            Folds of the cross-validated quality; 0 leaves it out.
        space : str, optional
            Fingerprint where `encoder` is None.
        random_state : optional
            Of the folds.
        **options
            For ``encode_image``.

        Returns
        -------
        ConceptBank
            Unit vectors with intercepts: the score is the signed distance to
            the boundary. ``meta["concepts"]`` holds ``auc`` (mean over folds,
            None where there are too few examples), ``auc_sd``, ``shrinkage``,
            ``n_positive``, ``n_negative``.

        Raises
        ------
        InputError
            Fewer than two examples of a kind (``CL-INPUT-FEW``), no
            difference between them (``CL-INPUT-ZERO``), by name.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> P, N = rng.normal(1, 1, (30, 4)), rng.normal(0, 1, (30, 4))
        >>> from conceptlab import ConceptBank
        >>> bank = ConceptBank.from_examples(None, {"bright": (P, N)}, random_state=0)
        >>> bank.meta["concepts"]["auc"][0] > 0.8
        True
        """
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
        if encoder is not None:
            _check_encoder(encoder, "encode_image")
        names = list(checked_names(list(examples)))
        seed = draw_seed(random_state)
        seen: dict[int, np.ndarray] = {}

        def features(samples: Any) -> np.ndarray:
            if id(samples) not in seen:
                rows = samples if encoder is None else encoder.encode_image(samples, **options)
                seen[id(samples)] = as_numpy(rows)
            return seen[id(samples)]

        pairs = _pair_examples(examples, negatives, features)
        vectors, intercepts = [], []
        table: dict[str, list[Any]] = {
            key: [] for key in ("auc", "auc_sd", "shrinkage", "n_positive", "n_negative")
        }
        for name, (with_it, without) in zip(names, pairs, strict=True):
            _check_examples(name, with_it, without, pairs[0][0].shape[1:])
            try:
                found = fit_direction(with_it, without, method=method, seed=seed)
            except InputError as error:
                words = str(error).rsplit(" [", 1)[0]
                raise InputError(f"Concept {name!r}: {words}", code=error.code) from error
            auc, deviation = (
                cross_validated_auc(with_it, without, method=method, n_folds=n_folds, seed=seed)
                if n_folds
                else (None, None)
            )
            vectors.append(found.vector)
            intercepts.append(found.intercept)
            row = (auc, deviation, found.shrinkage, len(with_it), len(without))
            for column, value in zip(table.values(), row, strict=True):
                column.append(value)
        dtype = np.result_type(*(pair[0].dtype for pair in pairs), np.float32)
        return cls(
            np.asarray(vectors, dtype=dtype),
            names,
            space=space if encoder is None else encoder.fingerprint,
            intercepts=np.asarray(intercepts, dtype=dtype),
            meta={
                "source": "examples",
                "method": method,
                "seed": seed,
                "encoder": None if encoder is None else encoder.name,
                "concepts": table,
            },
        )

    @classmethod
    def from_extractor(
        cls,
        extractor: Any,
        names: Sequence[str] | None = None,
        *,
        space: str | None = None,
        encoder: Encoder | None = None,
        words: Sequence[str] | None = None,
    ) -> Self:
        """Take the components of a fitted extractor, and name each by a word where asked to.

        With `words`, a concept takes the word whose vector points most nearly where its
        component points; every word is given once, so that the sum of all cosines is largest.

        Parameters
        ----------
        extractor : estimator
            One of ours, or any with ``components_``, ``cluster_centers_`` or
            ``coef_`` (and then its ``intercept_``) of shape (k, d).
        names : sequence of str, optional
            By default what ``get_feature_names_out`` gives, else ``concept0``, ...
        space : str, optional
            Fingerprint of the space that the extractor was fitted in; that of `encoder`.
        encoder : Encoder, optional
            That of the features of the fit; its text tower reads the words.
        words : sequence of str, optional
            At least k of them, all different; far more as a rule.

        Returns
        -------
        ConceptBank
            With words, ``meta["concepts"]["cosine"]`` tells how well each name fits: a low
            cosine is a name in want of a better word, not a meaning.

        Raises
        ------
        InputError
            Words without an encoder (``CL-INPUT-OPTION``), fewer words than concepts
            (``CL-INPUT-FEW``), vectors of another width (``CL-INPUT-FEATURES``).

        References
        ----------
        Rao et al., Discover-then-Name: task-agnostic concept bottlenecks via automated concept
        discovery, ECCV 2024.

        Examples
        --------
        >>> from conceptlab import ConceptBank
        >>> from conceptlab.encoders import CallableEncoder
        >>> from conceptlab.extractors import NMFConcepts
        >>> axes = {"red": [1.0, 0.0], "round": [0.0, 1.0], "both": [1.0, 1.0]}
        >>> encoder = CallableEncoder(lambda x: x, lambda texts: [axes[t] for t in texts], dim=2)
        >>> X = np.eye(2)[np.arange(20) % 2] * (1 + np.arange(20)[:, None] / 10)
        >>> found = NMFConcepts(2, random_state=0).fit(X)
        >>> sorted(ConceptBank.from_extractor(found, encoder=encoder, words=list(axes)))
        ['red', 'round']
        """
        if words is not None:
            if encoder is None or names is not None:
                raise InputError(
                    "words are read by an encoder and stand for names: from_extractor(extractor, "
                    "encoder=encoder, words=words).",
                    code="CL-INPUT-OPTION",
                )
            bare = cls.from_extractor(extractor, space=space or encoder.fingerprint)
            texts = cls.from_texts(encoder, words)
            chosen, cosines = _nearest_words(bare, texts)
            renamed = bare.rename(chosen)
            meta = renamed.meta
            columns = {**meta.get("concepts", {}), "cosine": cosines}
            return renamed._replace(meta={**meta, "encoder": encoder.name, "concepts": columns})
        if callable(getattr(extractor, "to_bank", None)):
            bank: Self = extractor.to_bank()
            bank = bank if names is None else bank.rename(names)
            return bank if space is None else bank._replace(space=space)
        for attribute in ("components_", "cluster_centers_", "coef_"):
            vectors = getattr(extractor, attribute, None)
            if vectors is not None:
                break
        else:
            check_is_fitted(extractor)
            raise InputError(
                f"{type(extractor).__name__} has no components_, cluster_centers_ or coef_ to take "
                "concepts from.",
                code="CL-INPUT-TYPE",
            )
        matrix = as_numpy(vectors)
        if names is None:
            named = getattr(extractor, "get_feature_names_out", None)
            found = list(named()) if callable(named) and attribute != "coef_" else []
            fits = len(found) == len(matrix)
            names = [str(n) for n in found] if fits else [f"concept{i}" for i in range(len(matrix))]
        offsets = getattr(extractor, "intercept_", None) if attribute == "coef_" else None
        return cls(
            matrix,
            names,
            space=space,
            intercepts=None if offsets is None else np.broadcast_to(offsets, (len(matrix),)),
            meta={"source": "extractor", "extractor": type(extractor).__name__},
        )

    @classmethod
    def from_json(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder,
        *,
        templates: Templates = None,
        **options: Any,
    ) -> Self:
        """Read names from a JSON file and encode them.

        Parameters
        ----------
        path : path-like
            A list of strings, or a mapping from class to a list of strings;
            the classes of each concept end in ``meta["concepts"]["classes"]``.
            White space around is cut, repetitions count once.
        encoder, templates, **options
            See :meth:`from_texts`.

        Returns
        -------
        ConceptBank

        Raises
        ------
        InputError
            If the file is no such JSON (``CL-INPUT-FILE``).
        """
        try:
            content = strict_json(read_plain_file(path))
        except (OSError, ValueError) as error:
            raise InputError(
                f"Cannot read concepts from {os.fspath(path)!r}: {error}. Expected JSON: "
                '["red", "round"] or {"apple": ["red", "round"]}.',
                code="CL-INPUT-FILE",
            ) from error
        table = content if isinstance(content, dict) else {"": content}
        classes: dict[str, list[str]] = {}
        for label, texts in table.items():
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                where = f"Class {label!r}" if label else "The file"
                raise InputError(
                    f"{where} in {os.fspath(path)!r} is no list of strings. Expected "
                    '["red", "round"] or {"apple": ["red", "round"]}.',
                    code="CL-INPUT-FILE",
                )
            for text in texts:
                found = classes.setdefault(text.strip(), [])
                if label not in found:
                    found.append(label)
        classes.pop("", None)
        if not classes:
            raise InputError(f"{os.fspath(path)!r} holds no concepts.", code="CL-INPUT-EMPTY")
        bank = cls.from_texts(encoder, list(classes), templates=templates, **options)
        meta = {**bank.meta, "file": Path(path).name}
        if isinstance(content, dict):
            meta["concepts"] = {"classes": list(classes.values())}
        return bank._replace(meta=meta)


def _check_encoder(encoder: Any, method: str) -> None:
    if not callable(getattr(encoder, method, None)):
        raise InputError(
            f"encoder must be an Encoder with {method}, got {type(encoder).__name__}. Load one "
            "with conceptlab.load_encoder('embedded').",
            code="CL-INPUT-TYPE",
        )


def _pair_examples(
    examples: Mapping[str, Any], negatives: Any, features: Callable[[Any], np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Encode all examples, and find samples without the concept where none are given."""
    if not examples:
        raise InputError("examples is empty. Give at least one concept.", code="CL-INPUT-EMPTY")
    given = {}
    for name, value in examples.items():
        pair = value if isinstance(value, tuple) and len(value) == 2 else (value, negatives)
        given[name] = (features(pair[0]), None if pair[1] is None else features(pair[1]))
    pairs = []
    for name, (with_it, without) in given.items():
        if without is None:
            others = [p for other, (p, _) in given.items() if other != name]
            if not others:
                raise InputError(
                    f"Concept {name!r} has no examples without it. Give (positives, negatives), or "
                    "negatives=.",
                    code="CL-INPUT-EMPTY",
                )
            without = np.concatenate(others)
        pairs.append((with_it, without))
    return pairs


def _check_examples(
    name: str, with_it: np.ndarray, without: np.ndarray, shape: tuple[int, ...]
) -> None:
    for kind, rows in (("positives", with_it), ("negatives", without)):
        if rows.ndim != 2 or rows.shape[1:] != shape:
            raise InputError(
                f"The {kind} of concept {name!r} have shape {rows.shape}; expected (n, "
                f"{shape[0] if shape else 'd'}) features. For images give an encoder.",
                code="CL-INPUT-FEATURES" if rows.ndim == 2 else "CL-INPUT-RANK",
            )
        check_finite(rows, f"the {kind} of concept {name!r}")


def _nearest_words(found: Any, texts: Any) -> tuple[list[str], list[float]]:
    """Give each concept a word of its own, so that the sum of the cosines is largest."""
    from scipy.optimize import linear_sum_assignment

    if len(texts.names) < len(found.names):
        raise InputError(
            f"{len(texts.names)} words were given for {len(found.names)} concepts. Give at least "
            "as many.",
            code="CL-INPUT-FEW",
        )
    if texts.vectors.shape[1] != found.vectors.shape[1]:
        raise InputError(
            f"Components have length {found.vectors.shape[1]}, but vectors of words "
            f"{texts.vectors.shape[1]}. Give the encoder whose features the extractor was fitted "
            "on.",
            code="CL-INPUT-FEATURES",
        )
    a, b = (
        bank.vectors / np.maximum(np.linalg.norm(bank.vectors, axis=1, keepdims=True), 1e-12)
        for bank in (found, texts)
    )
    cosines = (a @ b.T).astype(np.float64)
    rows, columns = linear_sum_assignment(-cosines)
    return [texts.names[j] for j in columns], [float(c) for c in cosines[rows, columns]]
