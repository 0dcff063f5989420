"""Shifted copies: the first is the image itself, all are where they should be, and the model is asked in peace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bench import views
from bench.architectures import digits_cnn
from bench.dataview import Images
from bench.interface import Dataset


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> Images:
    return Images(dataset, "train", "cpu")


class Pixel(nn.Module):
    """Says 1 where a pixel is at its largest, else 0."""

    def __init__(self, down: int, right: int) -> None:
        super().__init__()
        self.down, self.right = down, right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lit = x[:, 0, self.down, self.right] > 0.5
        return torch.stack([~lit, lit], dim=1).float()


def numbered(side: int = 8) -> torch.Tensor:
    """One image whose pixels are all different."""
    return torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side)


@pytest.mark.parametrize(("flips", "count"), [(False, 9), (True, 18)])
def test_there_are_nine_copies_and_their_mirror_images(flips: bool, count: int) -> None:
    copies = list(views._copies(numbered(), flips=flips))
    assert len(copies) == count
    assert len({tuple(copy.flatten().tolist()) for copy in copies}) == count
    assert all(copy.shape == (1, 1, 8, 8) for copy in copies)
    torch.testing.assert_close(copies[0], numbered(), rtol=0, atol=0)
    for plain, mirrored in zip(copies, copies[9:], strict=False):
        torch.testing.assert_close(mirrored, plain.flip(3), rtol=0, atol=0)


def test_copies_are_shifted_by_a_pixel_and_reflected_at_the_border() -> None:
    x = numbered()
    inner = {tuple(copy[0, 0, 1:-1, 1:-1].flatten().tolist()) for copy in views._copies(x, flips=False)}
    wanted = {
        tuple(x[0, 0, 1 + down : 7 + down, 1 + right : 7 + right].flatten().tolist())
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    assert inner == wanted
    assert {copy[0, 0, 0, 0].item() for copy in views._copies(x, flips=False)} >= {0.0, 9.0}, "the second row reflected"


@pytest.mark.parametrize(("side", "pixels"), [(8, 1), (16, 1), (32, 2), (64, 4)])
def test_a_shift_is_a_sixteenth_of_the_side(side: int, pixels: int) -> None:
    assert views.reach(side) == pixels
    copies = list(views._copies(numbered(side), flips=False))
    assert any(torch.equal(copy[..., pixels:, :], numbered(side)[..., :-pixels, :]) for copy in copies)


def test_predictions_are_of_the_images_asked_for(images: Images, dataset: Dataset) -> None:
    index = np.array([5, 0, 599, 5])
    found = views.predicted(Pixel(3, 3), images, index, flips=True)
    assert (found.shape, found.dtype) == ((4, 18), np.int64)
    bright = (dataset.train_x[index, 0].astype(np.float32) - dataset.mean[0]) / dataset.std[0] > 0.5
    np.testing.assert_array_equal(found[:, 0], bright[:, 3, 3])
    np.testing.assert_array_equal(found[:, 9], bright[:, 3, 4])  # mirrored
    np.testing.assert_array_equal(found[0], found[3])


@pytest.mark.parametrize("flips", [False, True])
def test_no_image_has_no_prediction(images: Images, flips: bool) -> None:
    found = views.predicted(Pixel(0, 0), images, np.empty(0, dtype=np.int64), flips=flips)
    assert found.shape == (0, 18 if flips else 9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_are_no_class(images: Images, bad: float) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(len(x), 10)
            out[0, 7] = bad
            return out

    found = views.predicted(Broken(), images, np.arange(3), flips=False)
    assert (found[0] == -1).all()
    assert (found[1:] == 0).all()


@pytest.mark.parametrize("training", [False, True])
def test_models_are_asked_in_evaluation_mode_and_left_as_they_were(images: Images, training: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(digits_cnn.build(1, 8, 10), nn.Dropout(0.9))
    for _ in range(3):  # statistics that evaluation uses and training would move
        model.train()(images.take(torch.arange(64)))
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    index = np.arange(40)
    found = views.predicted(model, images, index, flips=False)
    assert model.training is training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())
    wanted = model.eval()(images.take(torch.from_numpy(index))).argmax(dim=1)
    np.testing.assert_array_equal(found[:, 0], wanted.numpy())


@pytest.mark.parametrize("size", [1, 7, 40, 512])
def test_batches_do_not_matter(images: Images, size: int) -> None:
    torch.manual_seed(1)
    model, index = digits_cnn.build(1, 8, 10), np.arange(40)
    whole = views.predicted(model, images, index, flips=True)
    assert len(np.unique(whole)) > 1
    np.testing.assert_array_equal(views.predicted(model, images, index, flips=True, size=size), whole)
