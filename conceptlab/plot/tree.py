"""The tree of concepts that the recursion found."""

from __future__ import annotations

__all__ = ["concept_tree"]

from typing import TYPE_CHECKING, Any

from conceptlab.plot.style import concept_color, new_axes, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def concept_tree(tree: Any, *, ax: Axes | None = None) -> Axes:
    """Draw concepts as nodes, one column a layer, late layers on the left.

    Parameters
    ----------
    tree : ConceptTree
        The fitted tree of a :class:`~conceptlab.CRAFT`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Notes
    -----
    The area of a node is its importance; a ring marks a concept that was found
    to mix two things and was refactorised at the earlier layer.

    Examples
    --------
    >>> from torch import nn
    >>> from conceptlab import CRAFT, SplitModel
    >>> body = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU())
    >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> images = np.random.default_rng(0).random((8, 3, 16, 16), dtype=np.float32)
    >>> craft = CRAFT(SplitModel(model, at="0"), 3, patches="none", random_state=0)
    >>> axes = concept_tree(craft.fit(images, target=0).tree_)
    """
    layers = list(dict.fromkeys([tree.layer, *(node.layer for node in tree.walk())]))
    height = max(2.2, 0.36 * sum(1 for node in tree.walk() if not node.children))
    ax = new_axes(ax, 2.4 + 2.2 * len(layers), height)
    place = 0.0
    heights: dict[int, float] = {}

    def settle(node: Any) -> float:
        nonlocal place
        if node.children:
            value = sum(settle(child) for child in node.children) / len(node.children)
        else:
            value, place = -place, place + 1.0
        heights[id(node)] = value
        return value

    for root in tree.roots:
        settle(root)
    largest = max([max(node.importance, 0.0) for node in tree.walk()], default=1.0) or 1.0

    def draw(node: Any, color: str) -> None:
        x, y = layers.index(node.layer), heights[id(node)]
        for child in node.children:
            cx, cy = layers.index(child.layer), heights[id(child)]
            middle = (x + cx) / 2
            ax.plot([x, middle, middle, cx], [y, y, cy, cy], color=color, alpha=0.5, zorder=1)
            draw(child, color)
        area = 30 + 240 * max(node.importance, 0.0) / largest
        ring = "#222222" if node.children else "white"
        ax.scatter([x], [y], s=area, color=color, edgecolor=ring, linewidth=1.5, zorder=2)
        ax.annotate(
            f"{shorten(node.name, 24)}  {node.importance:.2f}",
            (x, y),
            xytext=(11, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            zorder=3,
        )

    for index, root in enumerate(tree.roots):
        draw(root, concept_color(index))
    ax.set_xlim(-0.25, len(layers) - 0.15)
    ax.set_ylim(-max(place, 1.0) + 0.4, 0.6)
    ax.set_yticks([])
    ax.set_xticks(range(len(layers)), layers)
    ax.set_xlabel("layer (earlier layers to the right)")
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax
