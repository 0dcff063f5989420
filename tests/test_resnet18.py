"""ResNet-18 is torchvision's, by name, size and, where torchvision can be imported, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench import layers, registry

BUILD = registry.load("architectures", "resnet18")


def test_the_papers_net() -> None:
    net = BUILD(3, 64, 200)
    assert sum(p.numel() for p in net.parameters()) == 11_279_112
    weights = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert len(weights) == 21
    assert sum(m.weight.numel() for m in weights.values()) == 11_269_312
    inputs = {name: m.weight[0].numel() for name, m in weights.items()}
    assert inputs["conv1"] == 147
    assert inputs["layer2.0.conv1"] == 576
    assert inputs["layer2.0.downsample.0"] == 64
    assert inputs["layer4.1.conv2"] == 4608
    assert inputs["fc"] == 512


def test_the_layers_that_count_are_all_but_the_shortcuts() -> None:
    net = BUILD(3, 64, 5, width=0.125).eval()
    listed = layers.published("resnet18")
    layers.require_sound(net, listed, torch.zeros(2, 3, 64, 64))
    assert len(listed) == 18
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_it_is_that_of_torchvision() -> None:
    try:
        torchvision = pytest.importorskip("torchvision")
    except RuntimeError:
        pytest.skip("torchvision does not load beside this torch")
    torch.manual_seed(0)
    ours = BUILD(3, 64, 200)
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=200)
    x = torch.randn(3, 3, 64, 64)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))
