"""Image–text encoders behind one protocol, and the cache of what they computed."""

from __future__ import annotations

from conceptlab.encoders.base import BaseEncoder, Encoder, EncoderWarning
from conceptlab.encoders.cache import EmbeddingCache, EmbeddingCacheWarning
from conceptlab.encoders.conse import ConSEEncoder
from conceptlab.encoders.functions import CallableEncoder
from conceptlab.encoders.huggingface import TransformersEncoder
from conceptlab.encoders.open_clip import OpenClipEncoder
from conceptlab.encoders.preprocess import Preprocess
from conceptlab.encoders.registry import load_encoder, register_encoder
from conceptlab.encoders.step import EncodeImages
from conceptlab.encoders.templates import TEMPLATES

__all__ = [
    "TEMPLATES",
    "BaseEncoder",
    "CallableEncoder",
    "ConSEEncoder",
    "EmbeddingCache",
    "EmbeddingCacheWarning",
    "EncodeImages",
    "Encoder",
    "EncoderWarning",
    "OpenClipEncoder",
    "Preprocess",
    "TransformersEncoder",
    "load_encoder",
    "register_encoder",
]
