"""Predicted classes of shifted and flipped copies of the forget set: what an attacker who is told labels alone sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.dataview import Images

STEPS = (-1, 0, 1)  # shifts in each direction, in units of `reach`: 3 x 3 as in the audits of Carlini et al.


def reach(side: int) -> int:
    """Pixels of one shift: a sixteenth of the image's side."""
    return max(1, side // 16)


def predicted(model: nn.Module, images: Images, index: np.ndarray, *, flips: bool, size: int = 512) -> np.ndarray:
    """Predicted class of every copy of every image, int64 `[n, views]`; -1 where an output is not finite.

    Args:
        index: rows of `images`, int64 `[n]`.
        flips: also mirror the images, as training did: 18 views, else 9; the first is the image itself.
    """
    import torch

    was_training = model.training
    model.eval()
    rows = torch.from_numpy(index).to(images.mean.device)
    with torch.no_grad():
        found = [
            torch.stack([_classes(model(copy)) for copy in _copies(images.take(chosen), flips=flips)], dim=1)
            for chosen in rows.split(size)
        ]
    model.train(was_training)
    return torch.cat(found).cpu().numpy() if found else np.empty((0, 18 if flips else 9), dtype=np.int64)


def _classes(logits: Tensor) -> Tensor:
    return logits.argmax(dim=1).where(logits.isfinite().all(dim=1), -1)


def _copies(x: Tensor, *, flips: bool) -> Iterator[Tensor]:
    """The images `[b, c, h, w]`, then shifted by reflection at the border, then all of these mirrored."""
    import torch

    by, (height, width) = reach(x.shape[2]), x.shape[2:]
    padded = torch.nn.functional.pad(x, (by, by, by, by), mode="reflect")
    places = sorted(((down, right) for down in STEPS for right in STEPS), key=lambda place: place != (0, 0))
    for mirrored in (False, True) if flips else (False,):
        for down, right in places:
            top, left = by * (1 + down), by * (1 + right)
            copy = padded[:, :, top : top + height, left : left + width]
            yield copy.flip(3) if mirrored else copy
