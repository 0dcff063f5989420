"""AllCNN, eight convolutions with BatchNorm and a linear head, for 32 x 32 images: 1,620,010 parameters.

The net of the PGU paper's Table 1, after Golatkar et al. (CVPR 2020) rather than Springenberg et al. (2015): average
pooling and a linear layer instead of a last convolution to the classes, and no dropout.
"""

from __future__ import annotations

from torch import nn

LAYERS = ("0", "3", "6", "9", "12", "15", "18", "21", "26")


def build(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """Seven 3 x 3 convolutions, the third and sixth of stride 2, a 1 x 1 convolution, average pooling, a linear head.

    Args:
        channels: channels of the input.
        size: height and width of the input; any, it is halved twice and then averaged over.
        classes: outputs of the head.
        width: factor on the 96 and 192 channels.
    """
    narrow, wide = int(96 * width), int(192 * width)

    def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(channels, narrow),
        *block(narrow, narrow),
        *block(narrow, wide, stride=2),
        *block(wide, wide),
        *block(wide, wide),
        *block(wide, wide, stride=2),
        *block(wide, wide),
        *block(wide, wide, kernel=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(wide, classes),
    )
