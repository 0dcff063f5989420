"""SmallVGG, three convolutions and two linear layers, for 32 x 32 images: 5,681,674 parameters.

The net of the PGU paper's Tables 3 and 4, as in its authors' code: biases everywhere, BatchNorm after the ReLU, and in
the third block before the pooling where the first two have it after.
"""

from __future__ import annotations

from torch import nn

LAYERS = ("0", "4", "8", "14", "17")


def build(channels: int, size: int, classes: int, width: float = 1.0, dropout: float = 0.5) -> nn.Module:
    """Three 3 x 3 convolutions of 128, 256 and 512 channels, each pooled by 2, then two linear layers.

    Args:
        channels: channels of the input.
        size: height and width of the input; a multiple of 8, halved three times.
        classes: outputs of the head.
        width: factor on the 128, 256 and 512.
        dropout: share of the inputs of the first linear layer that is dropped in training.
    """
    first, second, third, hidden = (int(base * width) for base in (128, 256, 512, 512))
    side = size // 8
    return nn.Sequential(
        *(nn.Conv2d(channels, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(first)),
        *(nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(second)),
        *(nn.Conv2d(second, third, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(third), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Dropout(dropout),
        *(nn.Linear(third * side * side, hidden), nn.ReLU(), nn.BatchNorm1d(hidden)),
        nn.Linear(hidden, classes),
    )
