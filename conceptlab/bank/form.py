"""A bank as a part of another object's file."""

from __future__ import annotations

__all__ = ["BANK_FORM"]

from typing import Any

from conceptlab.bank.core import ConceptBank
from conceptlab.io.trees import Form


def _parts(bank: ConceptBank) -> dict[str, Any]:
    return {
        "vectors": bank.vectors,
        "names": list(bank.names),
        "space": bank.space,
        "intercepts": bank.intercepts,
        "parents": None if bank.parents is None else list(bank.parents),
        "meta": bank.meta,
    }


BANK_FORM = Form("$bank", ConceptBank, _parts, lambda fields: ConceptBank(**fields))
"""For :func:`conceptlab.io.trees.pack`."""
