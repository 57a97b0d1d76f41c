"""Cards of a report: a concept with its patches in their images, an image and why its answer."""

from __future__ import annotations

__all__ = ["concept_cards", "drive_table", "frame_style", "image_cards", "tools"]

from typing import Any

import numpy as np

from conceptlab.io.html import escape, photo
from conceptlab.plot.maps import blend_maps
from conceptlab.plot.style import concept_color, to_picture

_CLASSES = 12
_BARS = 5
_SEPARATOR = "\x1f"


def concept_cards(found: Any) -> str:
    """Lay out one card a concept: words, what it drives, patches beside whole images, a map."""
    mean, interval = np.asarray(found.importance.mean), np.asarray(found.importance.interval)
    signed = np.asarray(found.importance.signed).mean(axis=0)
    cards = []
    for i in (int(i) for i in found.order):
        facts = [f"importance {mean[i]:.2f} ({interval[i, 0]:.2f} to {interval[i, 1]:.2f})"]
        facts.append("raises the target" if signed[i] >= 0 else "lowers the target")
        if found.stability is not None:
            facts.append(f"stability {found.stability[i]:.2f}")
        if found.naming is not None:
            facts.append(f"words: {found.naming.told(i)}")
        if found.drives(i):
            facts.append(f"drives {found.drives(i)}")
        pairs = "".join(_pair(found, i, place) for place in range(len(found.patches[i])))
        marks = _marks(
            concept=i,
            name=found.names[i],
            classes=_SEPARATOR.join(_classes_of(found, i)),
            importance=f"{mean[i]:.6f}",
            signed=f"{signed[i]:.6f}",
            stability="0" if found.stability is None else f"{found.stability[i]:.6f}",
        )
        cards.append(
            f"<article {marks}><h3>{_swatch(i)}{escape(found.names[i])}</h3>"
            f"<p class='facts'>{escape('; '.join(facts))}</p>"
            f"<div class='pairs'>{pairs}{_where(found, i)}</div></article>"
        )
    return f"<div class='cards concepts'>{''.join(cards)}</div>"


def image_cards(found: Any, limit: int = 24) -> tuple[str, int]:
    """Lay out one card an image: what is in it where, and the signed parts of the answer.

    Parameters
    ----------
    found : Explanation
        With images.
    limit : int
        Cards at most.

    Returns
    -------
    html : str
    n : int
        How many cards there are.
    """
    rows = found.telling([int(i) for i in found.order], limit)
    cards = []
    for row in rows:
        number = int(found.shown[row])
        name, answer = found.image_name(number), found.answer(number)
        label = found.labels[number] if found.labels is not None else ""
        strong = [int(i) for i in np.argsort(-found.coefficients[number], kind="stable")[:3]]
        shown = photo(to_picture(found.images[row]), f"{name}, answered {answer}")
        if found.maps is not None:
            peaks = np.maximum(found.maps, 0).max(axis=(0, 2, 3))
            laid = blend_maps(found.images[row], found.maps[row], strong, peaks=peaks)
            listed = ", ".join(found.names[i] for i in strong)
            shown += photo(laid, f"Where in {name} the concepts {listed} are")
        told = f"{name}: answer {answer}" + (f", folder {label}" if label else "")
        effects = found.effects
        why = "" if effects is None else _why(found, row)
        used = (
            strong if effects is None else np.argsort(-np.abs(effects.contributions[row]))[:_BARS]
        )
        marks = _marks(
            image=name,
            classes=_SEPARATOR.join(dict.fromkeys(filter(None, [answer, label]))),
            concepts=_SEPARATOR.join(str(i) for i in sorted({*used, *strong})),
        )
        cards.append(
            f"<article {marks}><figure class='pair'><div class='two'>{shown}</div>"
            f"<figcaption>{escape(told)}</figcaption></figure>{why}</article>"
        )
    return f"<div class='cards images'>{''.join(cards)}</div>", len(rows)


def drive_table(found: Any) -> tuple[str, str]:
    """Give the classes by concepts as a table of colours and numbers, and which classes in words.

    Returns
    -------
    html, words : str
        Both empty where effects were not measured, or for one output.
    """
    if found.effects is None or found.effects.drives.shape[1] < 2:
        return "", ""
    drives = found.effects.drives
    n = drives.shape[1]
    answers = np.bincount(found.logits.argmax(axis=1), minlength=n)
    # Those that the images have, then those that concepts drive most.
    order = np.lexsort((-np.abs(drives).max(axis=0), -answers))
    columns = [int(c) for c in order[:_CLASSES]]
    peak = float(np.abs(drives[:, columns]).max()) or 1.0
    head = "".join(f"<th scope='col'>{escape(found.class_name(c))}</th>" for c in columns)
    body = []
    for i in (int(i) for i in found.order):
        cells = "".join(_cell(float(drives[i, c]), peak) for c in columns)
        marks = _marks(concept=i, classes=_SEPARATOR.join(_classes_of(found, i)))
        name = f"<th scope='row'>{_swatch(i)}{escape(found.names[i])}</th>"
        body.append(f"<tr {marks}>{name}{cells}</tr>")
    words = f"{len(columns)} of {n} classes" if n > len(columns) else f"All {n} classes"
    return (
        f"<div class='scroll'><table class='heat'><thead><tr><th scope='col'>concept</th>{head}"
        f"</tr></thead><tbody>{''.join(body)}</tbody></table></div>",
        words,
    )


def tools(found: Any) -> str:
    """Make the fields by which the page's script sorts and filters."""
    classes = sorted(
        {found.answer(int(i)) for i in found.shown}
        | {name for i in range(len(found.names)) for name in _classes_of(found, i)}
        | {found.labels[int(i)] for i in found.shown if found.labels is not None}
    )
    concepts = [(str(int(i)), found.names[i]) for i in found.order]
    orders = [("importance", "importance"), ("signed", "raises the target"), ("name", "name")]
    if found.stability is not None:
        orders.append(("stability", "stability"))
    return (
        "<div class='tools' role='group' hidden aria-label='Sort and filter'>"
        + _select("class", "class", [("", "all"), *((c, c) for c in classes if c)])
        + _select("concept", "concept", [("", "all"), *concepts])
        + "<label>image<input name='image' type='search' placeholder='part of its name'></label>"
        + _select("order", "concepts by", orders)
        + "<button type='button'>Show all</button><output aria-live='polite'></output></div>"
    )


def _pair(found: Any, concept: int, place: int) -> str:
    """Show a patch, and beside it the image that it is from, dimmed but for the patch."""
    patch = to_picture(found.patches[concept][place])
    name = found.names[concept]
    if concept >= len(found.places):
        return (
            f"<figure class='pair'>{photo(patch, f'Patch {place + 1} of {name}')}"
            f"<figcaption>patch {place + 1}</figcaption></figure>"
        )
    number, y, x, side = (int(v) for v in found.places[concept][place])
    known = not found.elsewhere
    source = found.image_name(number) if known else f"image {number}"
    told = f"{source}: {found.answer(number)}" if known else source
    whole = found.wholes[number]
    inside = photo(to_picture(whole), f"{source}, whole; the patch is framed")
    if side > 0:
        height, width = whole.shape[-2:]
        # The same context as the patch is shown with.
        box = frame_style(y, x, side, found.context, height, width)
        inside += f"<i style='{box}'></i>"
    seen = photo(patch, f"Patch {place + 1} in which {name} is strongest, of {source}", side=112)
    marks = _marks(image=source, classes=found.answer(number) if known else "", concepts=concept)
    return (
        f"<figure class='pair' {marks}><div class='two'>{seen}<div class='whole'>{inside}</div>"
        f"</div><figcaption>{escape(told)}</figcaption></figure>"
    )


def frame_style(y: int, x: int, side: int, context: float, height: int, width: int) -> str:
    """Say as CSS which part of an image :func:`conceptlab.models.crop` shows."""
    wide = round(side * context)
    top = min(max(y - (wide - side) // 2, 0), max(height - wide, 0))
    left = min(max(x - (wide - side) // 2, 0), max(width - wide, 0))
    spans = (left / width, top / height, min(wide / width, 1.0), min(wide / height, 1.0))
    return "left:{:.2%};top:{:.2%};width:{:.2%};height:{:.2%}".format(*spans)


def _where(found: Any, concept: int) -> str:
    """Show the concept's map over the image, of those shown, that holds most of it."""
    if found.maps is None or not len(found.shown):
        return ""
    row = int(found.coefficients[found.shown, concept].argmax())
    number = int(found.shown[row])
    name = found.image_name(number)
    peaks = np.maximum(found.maps, 0).max(axis=(0, 2, 3))
    laid = blend_maps(found.images[row], found.maps[row], [concept], peaks=peaks)
    drawn = photo(laid, f"Map of {found.names[concept]} over {name}, which holds most of it")
    plain = photo(to_picture(found.images[row]), f"{name}, answered {found.answer(number)}")
    return (
        f"<figure class='pair'><div class='two'>{plain}{drawn}</div><figcaption>where it is, in "
        f"the image with most of it: {escape(name)}</figcaption></figure>"
    )


def _why(found: Any, row: int) -> str:
    """Show what an image's answer is made of; the parts add up to it."""
    effects, number = found.effects, int(found.shown[row])
    parts = effects.contributions[row]
    order = np.argsort(-np.abs(parts), kind="stable")
    lines: list[tuple[str, float, str]] = [
        (found.names[i], float(parts[i]), _swatch(int(i))) for i in order[:_BARS]
    ]
    if len(order) > _BARS:
        lines.append(
            (f"the other {len(order) - _BARS} concepts", float(parts[order[_BARS:]].sum()), "")
        )
    if abs(float(effects.together[row])) > 5e-3:
        lines.append(("what concepts do in company only", float(effects.together[row]), ""))
    lines.append(("without any concept", float(effects.without[row]), ""))
    peak = max(abs(value) for _, value, _ in lines) or 1.0
    body = "".join(
        f"<tr><th scope='row'>{mark}{escape(name)}</th><td class='n'>{value:+.2f}</td>"
        f"<td style='width:35%'><span class='bar{' less' if value < 0 else ''}' "
        f"style='width:{abs(value) / peak:.0%}'></span></td></tr>"
        for name, value, mark in lines
    )
    target = found.class_name(int(found.target[number]))
    total = f"{float(effects.outputs[row]):+.2f}"
    return (
        f"<table class='bars'><caption class='facts'>Why {escape(target)}</caption><tbody>{body}"
        f"<tr class='sum'><th scope='row'>output for {escape(target)}</th>"
        f"<td class='n'>{total}</td><td></td></tr></tbody></table>"
    )


def _classes_of(found: Any, concept: int) -> list[str]:
    """Name the classes that a concept belongs to: those it raises most."""
    if found.effects is None:
        return []
    row = found.effects.drives[concept]
    least = 0.25 * float(row.max())
    best = [int(c) for c in np.argsort(-row, kind="stable")[:3]]
    return [found.class_name(c) for c in best if row[c] > 0 and row[c] >= least]


def _cell(value: float, peak: float) -> str:
    ink = "var(--mark)" if value >= 0 else "var(--less)"
    share = min(abs(value) / peak, 1.0)
    ground = f"color-mix(in srgb, {ink} {0.75 * share:.0%}, transparent)"
    return f"<td style='background:{ground}'>{value:+.2f}</td>"


def _marks(**values: Any) -> str:
    return " ".join(f"data-{name}='{escape(value)}'" for name, value in values.items())


def _swatch(concept: int) -> str:
    return f"<span class='swatch' style='background:{concept_color(concept)}'></span>"


def _select(name: str, label: str, options: list[tuple[str, str]]) -> str:
    listed = "".join(f"<option value='{escape(v)}'>{escape(t)}</option>" for v, t in options)
    return f"<label>{escape(label)}<select name='{name}'>{listed}</select></label>"
