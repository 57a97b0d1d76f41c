"""Small models of many shapes, for the tests of cutting."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SmallCNN(nn.Module):
    """In-place ReLU right after the layer, functional operations in the head."""

    def __init__(self, n_classes: int = 3, channels: int = 6) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(0.5)
        )
        self.last = nn.Conv2d(channels, 2 * channels, 1)
        self.fc = nn.Linear(2 * channels, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x - self.mean))  # type: ignore[operator]
        x = self.relu(self.last(self.block(x)))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Skip(nn.Module):
    """A value goes round ``body``; ``after`` is where the two join."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)
        self.after = nn.ReLU()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.after(self.body(x) + x).mean((2, 3)))


class Answers(nn.Module):
    """Wraps a model so that it returns something else than a tensor."""

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, x: torch.Tensor) -> object:
        y = self.model(x)
        return {"dict": {"scores": y, "aux": x}, "tuple": (x, y), "map": x, "text": "no"}[self.kind]


def small_vit(n_classes: int = 4) -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        num_classes=n_classes,
    )
    nn.init.normal_(model.heads.head.weight)
    return model


def small_bert(n_labels: int = 3) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=n_labels,
    )
    return BertForSequenceClassification(config)
