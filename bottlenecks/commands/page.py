"""The HTML page of ``conceptlab bottleneck``."""

from __future__ import annotations

__all__ = ["bottleneck_page"]

from collections.abc import Mapping, Sequence
from typing import Any

from bottlenecks.explaining import Contributions
from bottlenecks.intervention import InterventionCurve
from conceptlab.io.html import page, picture, section, table


def bottleneck_page(
    model: Any,
    why: Contributions,
    pictures: Sequence[Any],
    titles: Sequence[str],
    facts: Mapping[str, Any],
    curves: Mapping[str, InterventionCurve],
) -> str:
    """Lay a fitted bottleneck out as a self-contained page.

    Parameters
    ----------
    model : Bottleneck
    why : Contributions
        Of m images.
    pictures : sequence of m arrays (3, H, W)
    titles : sequence of m str
        What stands above each.
    facts : mapping
        accuracy (by method), controls (accuracy of random concepts by kind), nec, sparsity,
        concepts, active, encoder, n_train, n_test, notes.
    curves : mapping of str to InterventionCurve
        By policy; may be empty.

    Returns
    -------
    str
    """
    accuracy = facts["accuracy"]
    kinds = ", ".join(f"{kind} {share:.1%}" for kind, share in facts["controls"].items())
    parts = [
        section(
            "Is it good?",
            table(("classifier", "accuracy"), accuracy.items()),
            text=f"On {facts['n_test']} images that were held out. The dense probe uses all "
            "concepts; random concepts mean nothing, with as many of them a class: what the best "
            f"of them reach, names do not explain. By kind: {kinds}.",
        ),
        section(
            "What speaks for each class",
            picture(model.plot("weights", top=40), "weights by class and concept"),
            text=f"A class uses {facts['nec']:.3g} of {facts['concepts']} concepts on average; "
            f"{facts['sparsity']:.0%} of the activations are exactly zero.",
        ),
    ]
    if curves:
        from conceptlab.plot.bottlenecks import intervention_plot

        drawn = {name: (curve.steps, curve.accuracy) for name, curve in curves.items()}
        axes = intervention_plot(
            drawn,
            n_samples=next(iter(curves.values())).n_samples,
            baseline=accuracy["all concepts, dense"],
        )
        parts.append(
            section(
                "What if concepts were set right?",
                picture(axes, "accuracy against concepts set to the truth"),
                text="Concepts are set to what the image really shows, one after the other; each "
                "policy chooses the order. Bands are two standard errors.",
            )
        )
    parts += [
        section(title, picture(_reasons(why, i, image), f"reasons for {title}"))
        for i, (image, title) in enumerate(zip(pictures, titles, strict=True))
    ]
    lead = (
        f"{facts['n_train']} images to fit, encoder {facts['encoder']}; "
        f"accuracy {accuracy['bottleneck']:.1%} through {len(facts['active'])} concepts."
    )
    return page("Classified through concepts", " ".join([lead, *facts["notes"]]), parts)


def _reasons(why: Contributions, i: int, image: Any) -> Any:
    from conceptlab.plot.style import bare, new_figure, to_picture

    figure = new_figure(9.6, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.6))
    left.imshow(to_picture(image))
    bare(left)
    why.plot(i, top=6, ax=right)
    return figure
