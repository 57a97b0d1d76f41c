"""The tree of concepts: roots at the cut layer, children at earlier layers."""

from __future__ import annotations

__all__ = ["ConceptNode", "ConceptTree"]

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from conceptlab.errors import unknown_name
from conceptlab.explanation.mixing import MixingTest
from conceptlab.importance.sufficiency import Decision

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(eq=False)
class ConceptNode:
    """One concept: a direction at a layer, what it weighs, and where it shows best.

    Attributes
    ----------
    name : str
        ``"concept 3"`` for a root, ``"concept 3.0"`` for its first child.
    layer : str
        The layer whose activations `vector` lives in.
    vector : numpy.ndarray of shape (n_channels,)
        The row of W.
    importance : float
        Global total Sobol index, measured with the head of `layer`; NaN before
        importances are estimated.
    interval : tuple of float
        Confidence interval of `importance`.
    patches : numpy.ndarray of shape (n_patches,)
        Rows of ``CRAFT.patches_``, the strongest first.
    coefficients : numpy.ndarray of shape (n_patches,)
        The concept's coefficient in each of `patches`.
    test : MixingTest or None
        The outcome of the mixing test; None where no earlier layer was left.
    children : list of ConceptNode
        What the concept was split into.
    decision : Decision or None
        Whether the children carry the model's decision at their layer.
    """

    name: str
    layer: str
    vector: np.ndarray
    importance: float = float("nan")
    interval: tuple[float, float] = (float("nan"), float("nan"))
    patches: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    coefficients: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    test: MixingTest | None = None
    children: list[ConceptNode] = field(default_factory=list)
    decision: Decision | None = None

    def walk(self) -> Iterator[ConceptNode]:
        """Go through the node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def depth(self) -> int:
        """Number of levels below the node."""
        return 1 + max(child.depth for child in self.children) if self.children else 0


@dataclass(eq=False)
class ConceptTree:
    """All concepts of a fitted :class:`~conceptlab.CRAFT`.

    Attributes
    ----------
    layer : str
        The layer of the roots.
    roots : list of ConceptNode
        The concepts at that layer, in the order of ``components_``.
    power : tuple of int, or None
        Where nothing was split: in how many made mixtures, half and half of two concepts'
        patches, the test saw two things, and of how many.
    looked_at : str or None
        Where nothing was split: the layer at which concepts were tested.
    """

    layer: str
    roots: list[ConceptNode]
    power: tuple[int, int] | None = None
    looked_at: str | None = None

    def walk(self) -> Iterator[ConceptNode]:
        """Go through all nodes, parents before children."""
        for root in self.roots:
            yield from root.walk()

    def __len__(self) -> int:
        """Count all nodes."""
        return sum(1 for _ in self.walk())

    def __getitem__(self, name: str) -> ConceptNode:
        """Find a node by name."""
        for node in self.walk():
            if node.name == name:
                return node
        raise unknown_name("concept", name, [node.name for node in self.walk()])

    @property
    def depth(self) -> int:
        """Number of levels below the roots; 0 when nothing was split."""
        return max((root.depth for root in self.roots), default=0)

    def unsplit(self) -> str:
        """Say what it means that nothing was split; empty where something was, or untested."""
        tested = [root for root in self.roots if root.test is not None]
        if self.depth or not tested:
            return ""
        words = "No concept was split"
        words += "." if self.looked_at is None else f" (looked at in {self.looked_at})."
        if self.power is not None:
            seen, made = self.power
            words += (
                f" The test would have seen a half-and-half mixture of two of these concepts in "
                f"{seen} of {made} cases."
            )
        nearest = sorted(tested, key=lambda root: -root.test.separation if root.test else 0.0)[:3]
        listed = ", ".join(
            f"{root.name} (p = {root.test.p_value:.2g})" for root in nearest if root.test
        )
        return f"{words} Nearest to two things: {listed}."

    def rename(self, names: Sequence[str]) -> None:
        """Give the roots other names, and their children with them."""
        for root, name in zip(self.roots, names, strict=True):
            for node in root.walk():
                node.name = name + node.name[len(root.name) :] if node is not root else node.name
            root.name = name

    def rank(self, values: np.ndarray, intervals: np.ndarray) -> None:
        """Give the roots their importances (k,) and confidence intervals (k, 2)."""
        for root, value, (low, high) in zip(self.roots, values, intervals, strict=True):
            root.importance, root.interval = float(value), (float(low), float(high))

    def to_frame(self) -> pd.DataFrame:
        """Give one row a node: name, parent, layer, importance, and the mixing test.

        ``sufficient`` and ``necessary`` say of a node's children whether they alone give the
        model's answers at their layer, and how far its probability falls without them.
        """
        import pandas as pd

        rows = []

        def add(node: ConceptNode, parent: str | None) -> None:
            test = node.test
            rows.append(
                {
                    "concept": node.name,
                    "parent": parent,
                    "layer": node.layer,
                    "importance": node.importance,
                    "low": node.interval[0],
                    "high": node.interval[1],
                    "cluster_index": test.cluster_index if test else float("nan"),
                    "p_value": test.p_value if test else float("nan"),
                    "separation": test.separation if test else float("nan"),
                    "balance": test.balance if test else float("nan"),
                    "n_children": len(node.children),
                    "sufficient": node.decision.sufficient if node.decision else float("nan"),
                    "necessary": node.decision.necessary if node.decision else float("nan"),
                }
            )
            for child in node.children:
                add(child, node.name)

        for root in self.roots:
            add(root, None)
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Give the tree as JSON values, with vectors and patches as lists."""
        data: dict[str, Any] = {
            "layer": self.layer,
            "roots": [_as_dict(root) for root in self.roots],
        }
        if self.power is not None:
            data["power"] = list(self.power)
        return data if self.looked_at is None else {**data, "looked_at": self.looked_at}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ConceptTree:
        """Build a tree from what :meth:`to_dict` gave."""
        power = data.get("power")
        return cls(
            data["layer"],
            [_from_dict(root) for root in data["roots"]],
            None if power is None else (int(power[0]), int(power[1])),
            data.get("looked_at"),
        )

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the tree; see :func:`conceptlab.plot.concept_tree`."""
        from conceptlab.plot import concept_tree

        return concept_tree(self, ax=ax)

    def __str__(self) -> str:
        """Draw the tree with text."""
        lines = []

        def add(node: ConceptNode, indent: int) -> None:
            mark = f", split (p = {node.test.p_value:.1g})" if node.test and node.children else ""
            lines.append(
                f"{'  ' * indent}{node.name} [{node.layer}] importance {node.importance:.3f}{mark}"
            )
            if node.decision is not None:
                lines.append(f"{'  ' * (indent + 1)}{node.decision.short()}")
            for child in node.children:
                add(child, indent + 1)

        for root in self.roots:
            add(root, 0)
        lines += filter(None, [self.unsplit()])
        return "\n".join(lines)


def _as_dict(node: ConceptNode) -> dict[str, Any]:
    test = node.test
    return {
        "name": node.name,
        "layer": node.layer,
        "dtype": str(np.asarray(node.vector).dtype),
        "vector": np.asarray(node.vector, dtype=np.float64).tolist(),
        "importance": _number(node.importance),
        "interval": [_number(value) for value in node.interval],
        "patches": np.asarray(node.patches).tolist(),
        "coefficients": np.asarray(node.coefficients, dtype=np.float64).tolist(),
        "test": {**asdict(test), "labels": test.labels.tolist()} if test else None,
        "children": [_as_dict(child) for child in node.children],
        **({"decision": node.decision.to_dict()} if node.decision else {}),
    }


def _from_dict(data: dict[str, Any]) -> ConceptNode:
    test, dtype = data["test"], data.get("dtype", "float64")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"a concept's vector cannot be of dtype {dtype!r}")
    low, high = (_float(value) for value in data["interval"])
    return ConceptNode(
        name=data["name"],
        layer=data["layer"],
        vector=np.asarray(data["vector"], dtype=dtype),
        importance=_float(data["importance"]),
        interval=(low, high),
        patches=np.asarray(data["patches"], dtype=np.int64),
        coefficients=np.asarray(data["coefficients"], dtype=dtype),
        test=MixingTest(**{**test, "labels": np.asarray(test["labels"])}) if test else None,
        children=[_from_dict(child) for child in data["children"]],
        decision=Decision.from_dict(data["decision"]) if data.get("decision") else None,
    )


def _number(value: float) -> float | None:
    return None if value != value else float(value)


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)
