"""Named directions in one encoder's space: the currency of the package."""

from __future__ import annotations

from conceptlab.bank.core import ConceptBank
from conceptlab.bank.scorer import BankScorer

__all__ = ["BankScorer", "ConceptBank"]
