"""Tell a forgotten class from a suppressed one.

:func:`audit` measures a model beside its original, a logit mask, and retrained models, and
gives a :class:`Report` with a verdict. The measures work on arrays as well:
:func:`js_divergence`, :func:`modified_entropy`, :func:`non_member_share`, ...
"""

from __future__ import annotations

from conceptlab._lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, __file__)
