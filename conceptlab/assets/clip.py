"""The embedded image-text model: configuration, vocabulary, loading."""

from __future__ import annotations

__all__ = ["PREPROCESS", "build", "learn_merges", "load_clip", "tokenizer_of", "vocabulary_words"]

import gzip
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors

from conceptlab.errors import DependencyError
from conceptlab.io.files import read_bundle
from conceptlab.io.reading import rebuilding, strict_json
from conceptlab.seeds import quiet_randomness

WEIGHTS, CONFIG, MERGES = "open_clip_model.safetensors", "open_clip_config.json", "bpe.txt.gz"
PREPROCESS: dict[str, Any] = {
    "size": 64,
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
BYTE_SYMBOLS = 2 * 256  # each byte inside a word and at its end
SPECIAL_TOKENS = 2


def model_config(n_merges: int) -> dict[str, Any]:
    """Give open_clip's ``model_cfg`` for a vocabulary of `n_merges` merges."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
        "text_cfg": {
            "context_length": 40,
            "vocab_size": BYTE_SYMBOLS + n_merges + SPECIAL_TOKENS,
            "width": 96,
            "heads": 4,
            "layers": 2,
        },
    }


def vocabulary_words() -> list[str]:
    """List the words of captions, each as often as it should weigh.

    Words about pictures in general are added, so that prompts which the
    captions do not use are still a token a word.
    """
    from conceptlab.datasets import captions, world

    pools: list[Iterable[str]] = list(world.FAMILIES.values())
    for table in (captions.WORDS, captions.PLACES, captions.GROUNDS):
        pools.extend(table.values())
    pools += [captions.FRAMES, captions.NOUNS, _GENERAL.split(), [s.name for s in world.SPECIES]]
    words: list[str] = []
    for pool in pools:
        for phrase in pool:
            words.extend(w for w in phrase.replace("{}", " ").split() if w.isalpha())
    return sorted(set(words))


_GENERAL = """
the and or with without in on at of to from no not any some one two three four many black white
grey gray brown golden bright dark light colour color colored coloured texture pattern shape
size left right top bottom middle background foreground texture textured round pointed curved
straight thin thick filled hollow cropped blurry good bad photo photograph picture image drawing
painting sketch rendering close up wearing hat snowy grassy sandy rectangle oval line dot stripe
spot check animal person
"""


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges until each word is one token.

    The most frequent pair is merged first; ties go by the alphabet, so that
    the same words always give the same merges.

    Parameters
    ----------
    words : iterable of str
        Plain lower-case words.

    Returns
    -------
    list of (str, str)
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for s in spelled for pair in itertools.pairwise(s))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for symbols in spelled:
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i : i + 2] = ["".join(best)]
                i += 1


def merges_file(merges: list[tuple[str, str]]) -> bytes:
    """Write merges in the form that open_clip's tokenizer reads, byte for byte the same."""
    lines = ["#version: conceptlab", *(" ".join(pair) for pair in merges)]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def tokenizer_of(path: str | Path, context_length: int) -> Any:
    """Make open_clip's ``SimpleTokenizer`` from a file of merges."""
    return _open_clip().SimpleTokenizer(bpe_path=str(path), context_length=context_length)


def build(config: dict[str, Any]) -> Any:
    """Build ``open_clip.CLIP`` from a ``model_cfg``, as ``create_model`` does.

    The initial weights draw from torch's global generator.
    """
    return _open_clip().CLIP(**config)


def load_clip(folder: Path, kind: str) -> tuple[Any, dict[str, Any], Any]:
    """Check and load a bundle; see :func:`conceptlab.assets.embedded_open_clip`."""
    bundle = read_bundle(folder, kind)
    with rebuilding(folder, kind):
        config = strict_json(bundle.files[CONFIG])
        with quiet_randomness():
            model = build(config["model_cfg"])
        state = {name: t.float() for name, t in load_tensors(bundle.files[WEIGHTS]).items()}
        model.load_state_dict(state)
        model.visual.preprocess_cfg = dict(config["preprocess_cfg"])
        context = config["model_cfg"]["text_cfg"]["context_length"]
        return model.eval(), dict(config["preprocess_cfg"]), tokenizer_of(folder / MERGES, context)


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise DependencyError(
            "The embedded encoder needs open_clip. Install it with: pip install open_clip_torch"
        ) from error
    return open_clip
