"""The page of audit_errors.py: confusion matrices, other tests, kinds of models."""

from collections import Counter

from unlearning.audit.rates import interval
from unlearning.audit.verdict import judge

WORDS = ("removed", "suppressed", "not forgotten", "damaged", "undecided")
WAYS = ("two references", "one reference", "no reference")
SAME = {
    *(f"mask, features x {k}" for k in ("1/10", "1/3", "3")),
    *("mask, unequal gains", "mask, units in another order", "mask, order and gains"),
    *("mask, inner units scaled", "order and gains"),
}
"""Kinds that are the function of another kind in other units."""
ERRORS = (
    ("suppressed", "removed"),
    ("removed", "suppressed"),
    ("removed", "undecided"),
    ("suppressed", "undecided"),
)
RULES = {
    "membership, confidence": "the share called non-members is within 0.1 of a retrained model's",
    "membership, neighbours": "at most 0.05 more answers are told from the first retrained "
    "model's than of the second's (the idea of MIA-NN, 2506.20893)",
    "linear probe": "recall at most 0.05 above both retrained models'",
    "IDI, linear form": "the information on the class in the last and the middle layer is nearer "
    "to the retrained models' than to the original's (2405.17878)",
    "restoration, linear form": "mapped linearly to the original's features, the class is named "
    "by the original's head as in the retrained models, not as in the original (2602.18505)",
    "RULER's M2, by its abstract": "samples of the class lie where they lie in a retrained model, "
    "not where they lie in the original (2605.27569)",
    "RULER's M4, by its abstract": "the class hangs together as in the retrained models, not as "
    "in the original (2605.27569; the paper needs no retrained model, a line does)",
}
"""Other tests, and when each says *removed*; lines that papers do not give lie half-way."""


def others(own, values):
    """Give the word of every other test on a model."""
    first, second, before = (values[k] for k in ("retrained", "retrained_b", "before"))
    pair = (first, second)
    near = min(abs(own["mia_confidence"] - v["mia_confidence"]) for v in pair)
    found = {
        "membership, confidence": near <= 0.1,
        "linear probe": own["probe_recall"] <= max(v["probe_recall"] for v in pair) + 0.05,
    }
    if "information" in own:
        found["membership, neighbours"] = own["mia_neighbours"] <= second["mia_neighbours"] + 0.05
        for name, key in (
            ("IDI, linear form", "information"),
            ("restoration, linear form", "restored"),
            ("RULER's M4, by its abstract", "cohesion"),
        ):
            found[name] = own[key] <= (before[key] + max(v[key] for v in pair)) / 2
        nearest = min(own["places_retrained"], own["places_retrained_b"])
        found["RULER's M2, by its abstract"] = nearest <= own["places_before"]
    return {name: "removed" if passed else "suppressed" for name, passed in found.items()}


def judged(setting):
    """Give a row for each planted model of a setting: its truth and the words."""
    values, sizes = setting["values"], setting["sizes"]
    first, second = values["retrained"], values["retrained_b"]
    given = {"before": values["before"], "mask": values["mask"], "sizes": sizes}
    ways = ({"reference": first, "second": second}, {"reference": first}, {})
    for name, own in values.items():
        truth, _, kind = name.partition(": ")
        if not kind or (truth == "removed" and kind in SAME):
            continue
        yield {
            **{key: setting[key] for key in ("data", "network", "seed")},
            "truth": truth,
            "kind": kind,
            "words": {
                way: judge(own, **given, **beside).word
                for way, beside in zip(WAYS, ways, strict=True)
            },
            "others": others(own, values),
        }


def share(k, n):
    """Write a count with its exact 95 % interval."""
    low, high = interval(k, n)
    return f"{k} of {n} ({100 * low:.1f} to {100 * high:.1f} %)"


def matrix(rows, way):
    """Write a confusion matrix and the rates of error."""
    lines = [
        "| in truth | models | " + " | ".join(WORDS) + " |", "|---|---|" + "---|" * len(WORDS)
    ]  # fmt: skip
    for truth in ("suppressed", "removed"):
        mine = [r for r in rows if r["truth"] == truth]
        count = Counter(r["words"][way] for r in mine)
        cells = [str(count[w]) for w in WORDS]
        lines.append(f"| {truth} | {len(mine)} | " + " | ".join(cells) + " |")
    lines.append("")
    for truth, word in ERRORS:
        mine = [r for r in rows if r["truth"] == truth]
        k = sum(r["words"][way] == word for r in mine)
        low, high = interval(k, len(mine))
        lines.append(
            f"- {truth}, called {word}: {k} of {len(mine)} "
            f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        )
    return [*lines, ""]


def by_data(rows):
    """Write the errors of every set of images."""
    heads = [f"{t}, called {w}" for t, w in ERRORS[:3]]
    lines = ["| images | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for data in dict.fromkeys(r["data"] for r in rows):
        cells = []
        for truth, word in ERRORS[:3]:
            mine = [r for r in rows if r["truth"] == truth and r["data"] == data]
            cells.append(share(sum(r["words"][WAYS[0]] == word for r in mine), len(mine)))
        lines.append(f"| {data} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def beside(rows):
    """Write the errors of other tests."""
    lines = [
        "| judged by | suppressed, called removed | removed, called suppressed |", "|---|---|---|"
    ]  # fmt: skip
    told = [(name, lambda r, n=name: r["others"].get(n)) for name in RULES]
    for title, word in [*told, ("the audit", lambda r: r["words"][WAYS[0]])]:
        cells = []
        for truth, wrong in ERRORS[:2]:
            mine = [r for r in rows if r["truth"] == truth and word(r)]
            cells.append(share(sum(word(r) == wrong for r in mine), len(mine)) if mine else "-")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return [*lines, "", *(f"- *{name}* says removed where {rule}." for name, rule in RULES.items())]


def by_kind(rows):
    """Write the words of every kind of model."""
    networks = list(dict.fromkeys(r["network"] for r in rows))
    lines = ["| in truth | kind | " + " | ".join(networks) + " |"]
    lines.append("|---|---|" + "---|" * len(networks))
    for truth in ("suppressed", "removed"):
        for kind in dict.fromkeys(r["kind"] for r in rows if r["truth"] == truth):
            cells = []
            for network in networks:
                count = Counter(
                    r["words"][WAYS[0]]
                    for r in rows
                    if (r["network"], r["truth"], r["kind"]) == (network, truth, kind)
                )
                cells.append(", ".join(f"{w} {n}" for w, n in count.most_common()))
            lines.append(f"| {truth} | {kind} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def developed(rows):
    """Tell of the settings on which the lines of the verdict were mended."""
    if not rows:
        return []
    cells = []
    for truth, word in ERRORS[:3]:
        mine = [r for r in rows if r["truth"] == truth]
        told = share(sum(r["words"][WAYS[0]] == word for r in mine), len(mine))
        cells.append(f"{truth}, called {word}: {told}")
    places = {(r["data"], r["network"], r["seed"]) for r in rows}
    return [
        f"Another {len(places)} settings, of scenes and photos, are in no table of this page: on "
        "them it was seen that a layer which retrained models explain to 99 % still tells, that "
        "retrained models may be better on the rest than the original ever was, and that without a "
        f"reference 0.98 is too low a line. After that they give: {'; '.join(cells)}.", "",
    ]  # fmt: skip


def page(settings):
    """Write the tables."""
    seen = [row for s in settings if s.get("developed") for row in judged(s)]
    settings = [s for s in settings if not s.get("developed")]
    rows = [row for setting in settings for row in judged(setting)]
    kinds = {t: {r["kind"] for r in rows if r["truth"] == t} for t in ("suppressed", "removed")}
    once = [r for r in rows if r["kind"] not in SAME]
    places = {(r["data"], r["network"], r["seed"]) for r in rows}
    wrong = {
        (r["data"], r["network"], r["seed"])
        for r in rows
        if (r["truth"], r["words"][WAYS[0]]) in ERRORS[:2]
    }
    seconds = sum(s.get("seconds", 0) for s in settings)
    lines = [
        "# How often the audit is wrong", "",
        "Models whose truth is known, judged by the audit. *Suppressed* in truth: "
        f"{len(kinds['suppressed'])} kinds of masks of every parametrisation, edits of the last "
        "layer, noise, projections and few steps of relabelling, all made from the original. "
        f"*Removed* in truth: {len(kinds['removed'])} kinds of honest training without the class, "
        "with other seeds, rates, lengths and sizes, each trained on its own. Networks: "
        f"{', '.join(dict.fromkeys(r['network'] for r in rows))}; images: "
        f"{', '.join(dict.fromkeys(r['data'] for r in rows))}. {len(places)} settings (network, "
        "images, class, seed), each with its own original and two references of its own: models of "
        "a setting share these, and are not independent of each other. Made by "
        f"`docs/results/audit_errors.py` (scenes and photos: {seconds} CPU s), without relearning, "
        "which decides nothing.", "",
    ]  # fmt: skip
    for way in WAYS:
        lines += [f"## With {way}", "", *matrix(rows, way)]
    mine = [r for r in once if r["truth"] == "suppressed"]
    k = sum(r["words"][WAYS[0]] == "removed" for r in mine)
    lines += [
        "## By images", "", "With two references.", "", *by_data(rows),
        f"{len(kinds['suppressed'] & SAME)} kinds of masks are another one in other units, the "
        f"same function. Counted once, {share(k, len(mine))} suppressed models are called removed. "
        f"Settings with a wrong word of either kind: {len(wrong)} of {len(places)}.", "",
        *developed(seen),
        "## Beside other tests", "", "With two references.", "", *beside(rows), "",
        "## By network and kind", "", "With two references, over all images.", "", *by_kind(rows),
        "## What it does not say", "",
        "The planted models keep features that a linear map finds again, or were never trained "
        "on the class. A method that turns features over by a map that is not linear, or that "
        "hides the class in another layer than the last and the middle one, is not among them. "
        "The networks are small, and on the photos they are right in a third of the cases only: "
        "what is hardly known is hardly told from what was never seen.", "",
    ]  # fmt: skip
    return "\n".join(lines)
