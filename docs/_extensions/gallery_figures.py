"""Collect the figures of gallery examples: ours live outside pyplot's global list."""

from typing import Any

from sphinx_gallery.scrapers import figure_rst

_SEEN: dict[str, set[int]] = {}


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save every Figure, and the Figure of every Axes, that a block gave a name to."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    seen = _SEEN.setdefault(str(block_vars["src_file"]), set())
    paths = []
    for value in list(block_vars["example_globals"].values()):
        figure = value.figure if isinstance(value, Axes) else value
        if not isinstance(figure, Figure) or id(figure) in seen:
            continue
        seen.add(id(figure))
        path = next(block_vars["image_path_iterator"])
        figure.savefig(path, dpi=100, facecolor="white")
        paths.append(path)
    return figure_rst(paths, gallery_conf["src_dir"])


def _get_sg_image_scraper() -> Any:
    return scrape
