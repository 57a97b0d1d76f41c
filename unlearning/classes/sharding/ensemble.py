"""Sharded training with slices: deletion that equals a run without the data, bit for bit."""

from __future__ import annotations

__all__ = ["ShardedEnsemble"]

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from conceptlab.arrays import ArrayLike, like_input, resolve_device
from conceptlab.errors import CheckpointError, InputError
from conceptlab.io.html import escape, table
from conceptlab.io.reading import rebuilding
from conceptlab.io.trees import clone_state
from conceptlab.parameters import OneOf, Real, Rules, Whole
from conceptlab.progress import Progress, track
from conceptlab.provenance import fingerprint
from conceptlab.seeds import RandomState, quiet_randomness
from conceptlab.training.checkpoint import resumed_seed
from unlearning.certificate import describe_parameters
from unlearning.classes.sharding.files import Parts, SlicesOnDisk, read_parts, write_parts
from unlearning.classes.sharding.shards import (
    Deletion,
    MeanOfProbabilities,
    State,
    hashed_number,
    place_samples,
    sample_ids,
)
from unlearning.classes.sharding.slices import train_slice
from unlearning.data import Samples, as_samples
from unlearning.heads import frozen, run_model

if TYPE_CHECKING:
    import pandas as pd

_RULES = Rules(
    n_shards=Whole(1),
    n_slices=Whole(1),
    epochs=Whole(1),
    batch_size=Whole(1),
    lr=Real(above=0),
    momentum=Real(least=0),
    weight_decay=Real(least=0),
    norm=OneOf("update", "frozen"),
)


class ShardedEnsemble(ClassifierMixin, BaseEstimator):
    """Train one model per shard of the data, slice by slice, and delete exactly.

    Each shard's model learns its slices one after the other and its state
    before each slice is kept. To delete samples, the shards that hold them go
    back to the state before the first slice concerned and learn from there
    without them. The result has the same bits as a fit that never saw the
    samples.

    Parameters
    ----------
    build : callable
        Makes a new model with new weights, without arguments.
    n_shards : int
        Models. A deletion of one sample concerns one of them; each sees less data.
    n_slices : int
        Slices of each shard; each costs the memory of one state.
    epochs : int
        Passes over a shard's data that the training should be worth. Slice
        i trains on the first i slices, ``2 epochs / (n_slices + 1)`` times
        (section V-A of the paper), at least once.
    lr : float
        Learning rate; constant within a slice.
    late_classes : sequence of int
        Classes that are likely to be deleted: their samples come in the last
        slice, so that forgetting one costs the last slice alone. They must be
        named before the fit, and must not depend on a request.
    batch_size : int
        Samples in a batch.
    momentum, weight_decay : float
        Of SGD; moments start anew with each slice.
    norm : {"update", "frozen"}
        Whether normalisation layers update their running statistics.
    augment : callable, optional
        From (images, generator) to images.
    device : str or torch.device
        Where to compute.
    random_state : int, Generator or None
        For weights, shards and orders.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Indices of the models' outputs.
    states_ : list of list of dict
        State of each shard's model before its first slice and after each slice.
    shard_, slice_ : ndarray of shape (n,), int64
        Where each sample is.
    ids_ : list of str
        sha256 of each sample with its label.
    deletions_ : list of Deletion
        The requests so far.
    seed_ : int
        To have the fit again.

    Notes
    -----
    Everything random hangs on a hash of the seed and of *one sample's own*
    content: its shard, its slice, and its place in the order of an epoch. So
    nothing that stays depends on what is deleted. Shard sizes are therefore
    even on average, not exactly. Equal samples have the same place and are
    deleted together. Exactness holds for one machine, one version of torch
    and one number of threads, as all equality of bits does.

    A class is spread over all shards, so that forgetting one costs nearly a
    whole fit unless it is in `late_classes`.

    References
    ----------
    Bourtoule et al., "Machine Unlearning", 2021 (arXiv 1912.03817), sections
    IV and V.

    Examples
    --------
    >>> X, y = torch.eye(6).repeat(4, 1), torch.arange(6).repeat(4) % 3
    >>> X = X + torch.linspace(0, 0.1, 24)[:, None]
    >>> ensemble = ShardedEnsemble(lambda: nn.Linear(6, 3), n_shards=2, n_slices=2, random_state=0)
    >>> ensemble.fit(X, y).delete((X[:1], y[:1])).n_deleted
    1
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        n_shards: int = 5,
        n_slices: int = 4,
        *,
        epochs: int = 20,
        lr: float = 0.05,
        late_classes: Sequence[int] = (),
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        norm: str = "update",
        augment: Callable[..., Any] | None = None,
        device: str | torch.device = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.build = build
        self.n_shards = n_shards
        self.n_slices = n_slices
        self.epochs = epochs
        self.lr = lr
        self.late_classes = late_classes
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.norm = norm
        self.augment = augment
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        progress: Progress = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> ShardedEnsemble:
        """Train all shards.

        Parameters
        ----------
        X : object
            Inputs; without `y`, labelled data as :func:`unlearning.as_samples`
            takes them.
        y : array-like of shape (n,), optional
            Class indices.
        progress : bool, callable or None
            See ``conceptlab.progress``.
        checkpoint : path-like, optional
            A folder. The states of finished slices are written there each minute and
            at an interruption (Ctrl-C); the same call goes on from them to the same
            bits. Removed when the fit is done.

        Returns
        -------
        ShardedEnsemble
            Itself. The data are kept in ``data_``, for deletions.

        Raises
        ------
        InputError
            Bad parameters or data; a loss that became NaN. The ensemble stays as it was.
        CheckpointError
            A folder that is damaged, or belongs to another run.
        """
        self._check_parameters()
        data = as_samples(X if y is None else (X, y), name="data")
        with self._all_or_nothing():
            return self._fit(data, progress, checkpoint)

    def _fit(
        self, data: Samples, progress: Progress, checkpoint: str | os.PathLike[str] | None
    ) -> ShardedEnsemble:
        self.seed_ = resumed_seed(self.random_state, checkpoint)
        with quiet_randomness(self.seed_):
            model = self._new_model()
            weights = fingerprint(model)
            with frozen(model), torch.no_grad():
                n_classes = int(run_model(model, next(iter(data.batches(2)))[0]).shape[1])
        as_samples(data, name="data", n_classes=n_classes)
        self.classes_ = np.arange(n_classes)
        self.deletions_: list[Deletion] = []
        self._place(data)
        self.states_: list[list[State]] = [[] for _ in range(self.n_shards)]
        kept = self._slices_on_disk(checkpoint, weights)
        self._train(list(range(self.n_shards)), progress, kept)
        return self

    def delete(
        self,
        forget: Any,
        *,
        progress: Progress = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Deletion:
        """Take samples out, as if they had never been there.

        Parameters
        ----------
        forget : object
            Labelled samples, equal to ones of the fit.
        progress : bool, callable or None
            See ``conceptlab.progress``.
        checkpoint : path-like, optional
            A folder, as in :meth:`fit`.

        Returns
        -------
        Deletion
            Its cost; also appended to ``deletions_``.

        Raises
        ------
        InputError
            ``CL-INPUT-LABELS``: a sample was not in the fit, or nothing would
            be left; the ensemble stays as it was.
        CheckpointError
            A folder that is damaged, or belongs to another run.
        """
        check_is_fitted(self)
        if self.data_ is None:
            raise InputError(
                "The ensemble was loaded without its training data, which a deletion needs. Use "
                "ShardedEnsemble.load(path, build, data=...).",
                code="CL-INPUT-EMPTY",
            )
        gone = set(sample_ids(as_samples(forget, name="forget")))
        absent = gone - set(self.ids_)
        if absent:
            raise InputError(
                f"{len(absent)} of the {len(gone)} samples to forget were not in the fit (or have "
                "another label). Give samples exactly as they were in the training data.",
                code="CL-INPUT-LABELS",
            )
        keep = np.array([line not in gone for line in self.ids_])
        if not keep.any():
            raise InputError(
                "Nothing would be left. Fit a new ensemble on other data instead.",
                code="CL-INPUT-EMPTY",
            )
        started = time.process_time()
        first = {
            int(shard): int(self.slice_[~keep & (self.shard_ == shard)].min())
            for shard in np.unique(self.shard_[~keep])
        }
        whole = self.fingerprint()
        with self._all_or_nothing():
            self.states_ = [
                states[: first[shard] + 1] if shard in first else states
                for shard, states in enumerate(self.states_)
            ]
            self._keep(keep)
            kept = self._slices_on_disk(checkpoint, whole)
            self._train(sorted(first), progress, kept)
        passes = [
            [self._passes(shard, piece) for piece in range(self.n_slices)]
            for shard in range(self.n_shards)
        ]
        seconds = round(time.process_time() - started, 3)
        deletion = Deletion.costing(first, np.array(passes), int((~keep).sum()), seconds)
        self.deletions_.append(deletion)
        return deletion

    def as_module(self) -> MeanOfProbabilities:
        """Give the ensemble as one module that returns log-probabilities."""
        check_is_fitted(self)
        members = []
        with quiet_randomness(self.seed_):
            for states in self.states_:
                model = self._new_model()
                model.load_state_dict(states[-1])
                members.append(model)
        return MeanOfProbabilities(members).eval()

    @like_input
    def predict_proba(self, X: Any) -> Any:
        """Give the mean of the shards' probabilities.

        Parameters
        ----------
        X : array-like or mapping of tensors
            Inputs without labels.

        Returns
        -------
        array of shape (n, C)
            Rows sum to 1. Like in, like out.
        """
        return self._probabilities(X)

    def _probabilities(self, X: Any) -> torch.Tensor:
        first = next(iter(X.values()), ()) if isinstance(X, dict) else X
        n = len(first) if hasattr(first, "__len__") else 0
        samples = as_samples((X, np.zeros(n, dtype=np.int64)), name="X")
        return self.as_module().probabilities(samples, resolve_device(self.device))

    def predict(self, X: Any) -> np.ndarray:
        """Give the most likely class of each input, (n,) int64."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self._probabilities(X).argmax(dim=1).numpy()])

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Give the accuracy; labelled data in `X` need no `y`."""
        from sklearn.metrics import accuracy_score

        samples = as_samples(X if y is None else (X, y), name="X")
        found = self.predict(samples.inputs)
        return float(accuracy_score(samples.y.numpy(), found, sample_weight=sample_weight))

    def to_frame(self) -> pd.DataFrame:
        """Give the deletions as a table."""
        import pandas as pd

        rows = [{**asdict(d), "shards": len(d.shards), "cost": d.cost} for d in self.deletions_]
        return pd.DataFrame(rows)

    def fingerprint(self) -> str:
        """Hash the parameters of all shards after all slices (sha256)."""
        check_is_fitted(self)
        return fingerprint([fingerprint(states[-1]) for states in self.states_])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write states and the places of the samples; not the samples.

        Parameters
        ----------
        path : path-like
            A folder.

        Returns
        -------
        pathlib.Path
        """
        check_is_fitted(self)
        return write_parts(
            path,
            Parts(
                settings=self._settings(),
                seed=self.seed_,
                n_classes=len(self.classes_),
                ids=self.ids_,
                shard=self.shard_,
                slice=self.slice_,
                deletions=self.deletions_,
                states=self.states_,
                augmented=self.augment is not None,
            ),
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        build: Callable[[], nn.Module],
        *,
        data: Any = None,
        augment: Callable[..., Any] | None = None,
    ) -> ShardedEnsemble:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The folder.
        build : callable
            The function of the fit.
        data : object, optional
            The training data that are left, in any order; needed for deletions.
        augment : callable, optional
            The function of the fit.

        Returns
        -------
        ShardedEnsemble

        Raises
        ------
        CheckpointError
            The folder is damaged, or the models of `build` do not fit.
        InputError
            ``CL-INPUT-LABELS``: `data` are not those of the fit.
        """
        parts = read_parts(path, augmented=augment is not None)
        with rebuilding(path, cls.__name__):
            ensemble = cls(build, augment=augment, random_state=parts.seed, **parts.settings)
            ensemble.seed_, ensemble.classes_ = parts.seed, np.arange(parts.n_classes)
            ensemble.ids_, ensemble.states_ = parts.ids, parts.states
            ensemble.shard_, ensemble.slice_ = parts.shard, parts.slice
            ensemble.deletions_, ensemble.data_ = parts.deletions, None
            try:
                ensemble.as_module()
            except RuntimeError as error:
                raise CheckpointError(
                    f"The models that build() makes do not fit the weights in {path}: {error}",
                    code="CL-CHECKPOINT-KIND",
                ) from error
        if data is not None:
            samples = as_samples(data, name="data")
            ensemble._check_same(samples)
            ensemble._place(samples)
        return ensemble

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Leave the ensemble as it was where something goes wrong."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _settings(self) -> dict[str, Any]:
        """Give the parameters that a file can hold, as JSON values."""
        return {
            **{name: getattr(self, name) for name in _RULES.rules},
            "late_classes": [int(c) for c in self.late_classes],
        }

    def _slices_on_disk(self, path: str | os.PathLike[str] | None, model: str) -> SlicesOnDisk:
        """Open the checkpoint of a fit or a deletion, and go on from what it holds."""
        key = {
            "parameters": {**self._settings(), **describe_parameters({"augment": self.augment})},
            "seed": self.seed_,
            "samples": fingerprint(self.ids_),
            "model": model,
        }
        kept = SlicesOnDisk(path, key, seed=self.seed_)
        if kept.found is not None:
            self.states_ = kept.found
        return kept

    def _check_same(self, samples: Samples) -> None:
        given = sample_ids(samples)
        if sorted(given) != sorted(self.ids_):
            raise InputError(
                f"data holds {len(given)} samples that are not the {len(self.ids_)} of the fit "
                "that are left. Give the training data without those that were deleted.",
                code="CL-INPUT-LABELS",
            )

    def _place(self, data: Samples) -> None:
        """Give every sample its shard and slice, by its own content."""
        self.data_: Samples | None = data
        self.ids_: list[str] = sample_ids(data)
        self.shard_, self.slice_ = place_samples(
            self.ids_,
            data.y.tolist(),
            seed=self.seed_,
            n_shards=self.n_shards,
            n_slices=self.n_slices,
            late={int(c) for c in self.late_classes},
        )

    def _keep(self, keep: np.ndarray) -> None:
        if self.data_ is None:
            return
        self.data_ = self.data_.select(torch.from_numpy(keep))
        self.ids_ = [line for line, stays in zip(self.ids_, keep, strict=True) if stays]
        self.shard_, self.slice_ = self.shard_[keep], self.slice_[keep]

    def _train(self, shards: list[int], progress: Progress, kept: SlicesOnDisk) -> None:
        """Train the slices of `shards` whose states are missing."""
        work = [
            (shard, piece)
            for shard in shards
            for piece in range(max(0, len(self.states_[shard]) - 1), self.n_slices)
        ]
        try:
            for shard, piece in track(work, description="train slices", progress=progress):
                self._train_next(shard, piece)
                kept.slice_done(self.states_)
        except KeyboardInterrupt:
            kept.write(self.states_)
            raise
        kept.remove()

    def _train_next(self, shard: int, piece: int) -> None:
        with quiet_randomness(self._seed_of("slice", shard, piece)):
            states = self.states_[shard]
            if not states:
                torch.manual_seed(self._seed_of("weights", shard, 0))
                states = [clone_state(dict(self._new_model().state_dict()))]
                torch.manual_seed(self._seed_of("slice", shard, piece))
            self.states_[shard] = [*states, self._train_slice(shard, piece, states[-1])]

    def _train_slice(self, shard: int, piece: int, state: State) -> State:
        rows = np.flatnonzero((self.shard_ == shard) & (self.slice_ <= piece))
        model = self._new_model()
        model.load_state_dict(state)
        if len(rows) == 0 or self.data_ is None:
            return state
        # Where the seeds above were used for build(), start anew: its draws must not matter.
        torch.manual_seed(self._seed_of("dropout", shard, piece))
        return train_slice(
            model.to(resolve_device(self.device)),
            self.data_,
            [self._order(rows, shard, piece, epoch) for epoch in range(self._epochs_of_slice())],
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            norm=self.norm,
            augment=self.augment,
            generator=torch.Generator().manual_seed(self._seed_of("augment", shard, piece)),
            name=f"shard {shard} became NaN or infinite in slice {piece}",
        )

    def _order(self, rows: np.ndarray, shard: int, piece: int, epoch: int) -> np.ndarray:
        """Sort rows by hashes of each sample alone."""
        what = f"order {shard} {piece} {epoch}"
        place = {row: hashed_number(self.seed_, what, self.ids_[row]) for row in rows}
        return np.array(sorted(rows, key=lambda row: (place[row], self.ids_[row])))

    def _epochs_of_slice(self) -> int:
        return max(1, round(2 * int(self.epochs) / (int(self.n_slices) + 1)))

    def _passes(self, shard: int, piece: int) -> int:
        held = int(((self.shard_ == shard) & (self.slice_ <= piece)).sum())
        return held * self._epochs_of_slice()

    def _seed_of(self, what: str, shard: int, piece: int) -> int:
        return hashed_number(self.seed_, what, f"{shard} {piece}") % (2**31)

    def _new_model(self) -> nn.Module:
        model = self.build()
        if not isinstance(model, nn.Module):
            raise InputError(
                f"build() must return a torch.nn.Module, got {type(model).__name__}.",
                code="CL-INPUT-TYPE",
            )
        return model

    def _check_parameters(self) -> None:
        if not callable(self.build):
            raise InputError(
                f"build must be a callable that makes a model, got {type(self.build).__name__}.",
                code="CL-INPUT-TYPE",
            )
        _RULES.check(self)
        if len(self.late_classes) and self.n_slices < 2:
            raise InputError(
                "late_classes needs n_slices >= 2: a last slice for them and others before it.",
                code="CL-INPUT-RANGE",
            )

    def _repr_html_(self) -> str:
        parts = [f"<p><strong>{escape(repr(self))}</strong></p>"]
        if hasattr(self, "states_"):
            rows = [
                ("Samples", len(self.ids_)),
                ("Shards x slices", f"{self.n_shards} x {self.n_slices}"),
                ("Deletions", len(self.deletions_)),
                ("sha256", self.fingerprint()[:16]),
            ]
            parts.append(table(["", ""], [(k, str(v)) for k, v in rows]))
        return "<div>" + "".join(parts) + "</div>"
