"""What an unlearning run gives back."""

from __future__ import annotations

__all__ = ["Outcome", "UnlearnResult"]

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from conceptlab.errors import CheckpointError
from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.html import escape, table
from conceptlab.io.reading import rebuilding
from conceptlab.io.trees import pack, unpack
from conceptlab.models.session import model_copy
from conceptlab.provenance import fingerprint

if TYPE_CHECKING:
    import pandas as pd

_KIND = "UnlearnResult"


class Outcome:
    """What results of every kind of forgetting share.

    Attributes
    ----------
    history : list of dict
        Rows of the training.
    details : dict
        Facts of the method.
    warnings : list of str
        What the user of the run was told.
    """

    history: list[dict[str, Any]]
    details: dict[str, Any]
    warnings: list[str]

    def to_frame(self) -> pd.DataFrame:
        """Give the history as a table."""
        import pandas as pd

        return pd.DataFrame(self.history)


@dataclass(eq=False)
class UnlearnResult(Outcome):
    """The model after a request, with how it came about.

    Attributes
    ----------
    model : torch.nn.Module
        A new model, in the mode and on the device of the one that was given.
    history : list of dict
        A row for each epoch: stage, epoch, steps, lr, seconds, loss, ...
    certificate : dict
        Method, parameters, seed, versions, sha256 of the model before and
        after, digests of the data, forgotten classes, steps, CPU seconds, why
        it stopped. JSON values.
    details : dict
        Facts of the method, such as its concepts or labels.
    warnings : list of str
        What the user of the run was told: a rewinding, a class that is not
        forgotten, concepts that are not claimed.

    Examples
    --------
    >>> import torch
    >>> from unlearning import LogitMask
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> X, y = torch.eye(4), [0, 1, 2, 1]
    >>> result = LogitMask().unlearn(model, forget=(X[:1], y[:1]), retain=(X[1:], y[1:]))
    >>> result.certificate["classes_forgotten"], result.stopped
    ([0], 'done')
    """

    model: nn.Module
    history: list[dict[str, Any]]
    certificate: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.certificate["seed"])

    @property
    def stopped(self) -> str:
        """Why the run ended: ``"done"``, ``"max_steps"``, ``"nan: rewound"``, ..."""
        return str(self.certificate["stopped"])

    @property
    def classes(self) -> list[int]:
        """The forgotten labels."""
        return list(self.certificate["classes_forgotten"])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write weights, history, certificate and details as a bundle.

        Parameters
        ----------
        path : path-like
            A folder.

        Returns
        -------
        pathlib.Path
        """
        values, arrays = pack(
            {
                "state": dict(self.model.state_dict()),
                "history": self.history,
                "details": self.details,
                "warnings": self.warnings,
            }
        )
        return write_bundle(
            path, Bundle(_KIND, {"certificate": self.certificate, "values": values}, arrays)
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: nn.Module) -> UnlearnResult:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
            The folder.
        model : torch.nn.Module
            A model of the same architecture; it is copied, never changed.

        Returns
        -------
        UnlearnResult

        Raises
        ------
        CheckpointError
            The weights do not fit the model, or are not those of the certificate.
        """
        bundle = read_bundle(path, _KIND)
        with rebuilding(path, _KIND):
            values = unpack(bundle.data["values"], bundle.tensors)
            state, history, details = values["state"], values["history"], values["details"]
            warned = list(values.get("warnings", []))
            certificate = dict(bundle.data["certificate"])
            digest = certificate["sha256_after"]
        loaded = model_copy(model)
        try:
            loaded.load_state_dict(state)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"The weights in {path} do not fit this {type(model).__name__}: {error}. Give a "
                "model of the same architecture.",
                code="CL-CHECKPOINT-KIND",
            ) from error
        if fingerprint(loaded) != digest:
            raise CheckpointError(
                f"{path}: with these weights the model is not the one of the certificate; its "
                "modules differ in name or settings. Give the model that was unlearned.",
                code="CL-CHECKPOINT-KIND",
            )
        return cls(loaded, history, certificate, details, warned)

    def __repr__(self) -> str:
        facts = self.certificate
        return (
            f"UnlearnResult({facts['method']}, classes {facts['classes_forgotten']}, "
            f"{facts['steps']} steps, {facts['cpu_seconds']} CPU s, {facts['stopped']})"
        )

    def _repr_html_(self) -> str:
        facts = self.certificate
        rows = [
            ("Method", facts["method"]),
            ("Forgotten classes", ", ".join(map(str, facts["classes_forgotten"]))),
            ("Samples to forget / to keep", f"{facts['n_forget']} / {facts['n_retain']}"),
            ("Steps", str(facts["steps"])),
            ("CPU seconds", str(facts["cpu_seconds"])),
            ("Ended", facts["stopped"]),
            ("Seed", str(facts["seed"])),
            ("Model before (sha256)", facts["sha256_before"][:16]),
            ("Model after (sha256)", facts["sha256_after"][:16]),
        ]
        plain = [(k, v) for k, v in self.details.items() if isinstance(v, bool | int | float | str)]
        rows += [
            (k.replace("_", " "), f"{v:.4g}" if isinstance(v, float) else str(v)) for k, v in plain
        ]
        parts = [f"<p><strong>{escape(repr(self))}</strong></p>"]
        parts += [f"<p>{escape(message)}</p>" for message in self.warnings]
        parts.append(table(["", ""], rows))
        if self.history:
            last = self.history[-8:]
            columns = list(dict.fromkeys(key for row in last for key in row))
            parts.append(table(columns, [[row.get(key, "") for key in columns] for row in last]))
        shown = (v for v in self.details.values() if hasattr(v, "_repr_html_"))
        parts += [str(value._repr_html_()) for value in shown]
        return "<div>" + "".join(parts) + "</div>"
