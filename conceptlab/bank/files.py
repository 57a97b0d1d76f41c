"""Banks as folders of safetensors and JSON."""

from __future__ import annotations

__all__ = ["load_bank", "save_bank"]

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from conceptlab.io.files import Bundle, read_bundle, write_bundle
from conceptlab.io.reading import rebuilding

if TYPE_CHECKING:
    from conceptlab.bank.core import ConceptBank

Bank = TypeVar("Bank", bound="ConceptBank")
_KIND = "ConceptBank"


def save_bank(bank: ConceptBank, path: str | os.PathLike[str]) -> Path:
    """Write a bank; see :meth:`conceptlab.ConceptBank.save`."""
    tensors = {"vectors": bank.vectors}
    if bank.intercepts is not None:
        tensors["intercepts"] = bank.intercepts
    data = {
        "names": list(bank.names),
        "space": bank.space,
        "parents": None if bank.parents is None else list(bank.parents),
        "meta": bank.meta,
    }
    return write_bundle(path, Bundle(_KIND, data, tensors))


def load_bank(cls: type[Bank], path: str | os.PathLike[str]) -> Bank:
    """Read a bank of any space; see :meth:`conceptlab.ConceptBank.load`."""
    bundle = read_bundle(path, _KIND)
    with rebuilding(path, "bank"):
        return cls(
            bundle.tensors["vectors"],
            bundle.data["names"],
            space=bundle.data["space"],
            intercepts=bundle.tensors.get("intercepts"),
            parents=bundle.data["parents"],
            meta=bundle.data["meta"],
        )
