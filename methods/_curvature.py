"""A network at fixed weights as a function of some of its parameters: gradients and curvature products over data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part

Curvature = Literal["ggn", "identity", "hessian"]


class Linearized:
    """The logits of `model` as a function of a flat vector of parameters, around the weights that it has now.

    Only `names` may move, by default all parameters; the rest and all buffers (BatchNorm's statistics) are constants,
    and the model is put into evaluation mode, without which per-sample derivatives do not exist. Later changes of the
    model's chosen weights do not move the point. Everything is a sum over examples, never a mean, and batch sums are
    added up in float64, so that the size of a batch does not matter.

    Attributes:
        names: the parameters that may move, in the order in which the vector holds them.
        flat: their values `[P]`.
    """

    def __init__(self, model: nn.Module, names: Sequence[str] | None = None) -> None:
        """Raises ValueError for an empty choice of parameters, or a name that the model does not have."""
        self.model = model.eval()
        self.names = [name for name, _ in model.named_parameters()] if names is None else list(names)
        own = self._parameters()
        self.flat = torch.cat([p.detach().flatten() for p in own])
        pieces = self._split(self.flat)
        self._leaves = [piece.view_as(p).requires_grad_() for piece, p in zip(pieces, own, strict=True)]

    def gradient(self, part: Part, size: int = 256) -> Tensor:
        """Sum over `part` of the gradient of cross-entropy with the labels that it hands out, `[P]`; one pass."""
        total = torch.zeros_like(self.flat, dtype=torch.float64)
        for x, y in part.batches(size):
            loss = torch.nn.functional.cross_entropy(self._logits(x, self._leaves), y, reduction="sum")
            total += _flat(torch.autograd.grad(loss, self._leaves, materialize_grads=True))
        return total.to(self.flat.dtype)

    def product(self, part: Part, v: Tensor, curvature: Curvature = "ggn", size: int = 256) -> Tensor:
        """The curvature matrix of `part` times `v`, `[P]`, without ever forming the matrix; one pass.

        With J the Jacobian of an example's logits and p their softmax, the matrix is the sum over examples of
        J^T (diag(p) - p p^T) J ("ggn", Gauss-Newton of cross-entropy), of J^T J ("identity", of squared error; the
        neural tangent kernel's), or the Hessian of cross-entropy ("hessian", which may be indefinite).

        Raises ValueError for a `v` of another length, or another curvature.
        """
        total = torch.zeros_like(self.flat, dtype=torch.float64)
        for x, y in part.batches(size):
            total += self.batch_product(x, y, v, curvature)
        return total.to(self.flat.dtype)

    def batch_product(self, x: Tensor, y: Tensor, v: Tensor, curvature: Curvature = "ggn") -> Tensor:
        """The same for the examples `x` with labels `y` alone."""
        if v.shape != self.flat.shape:
            raise ValueError(f"expected a vector of {len(self.flat)} numbers, got {tuple(v.shape)}")
        if curvature not in get_args(Curvature):
            raise ValueError(f"curvature must be one of {', '.join(get_args(Curvature))}, got {curvature!r}")
        tangents = [t.view_as(leaf) for t, leaf in zip(self._split(v.to(self.flat.dtype)), self._leaves, strict=True)]
        return self._hessian(x, y, tangents) if curvature == "hessian" else self._gauss(x, tangents, curvature)

    def jacobian(self, x: Tensor) -> Tensor:
        """The Jacobian of every example's logits, `[n, C, P]`: one backward pass an example and class."""
        found: Tensor | None = None  # filled in place: a list of rows would need the space twice
        for at, image in enumerate(x.split(1)):
            logits = self._logits(image, self._leaves)[0]
            each = torch.eye(len(logits), dtype=logits.dtype, device=logits.device)
            rows = torch.autograd.grad(logits, self._leaves, each, is_grads_batched=True, materialize_grads=True)
            found = logits.new_empty(len(x), len(logits), len(self.flat)) if found is None else found
            torch.cat([row.flatten(1) for row in rows], 1, out=found[at])
        assert found is not None, "no example"
        return found

    def pullback(self, x: Tensor, u: Tensor, size: int = 256) -> Tensor:
        """Sum over examples of J^T u, `[P]`, for `u` `[n, C]`."""
        total = torch.zeros_like(self.flat, dtype=torch.float64)
        for images, cotangents in zip(x.split(size), u.split(size), strict=True):
            logits = self._logits(images, self._leaves)
            total += _flat(torch.autograd.grad(logits, self._leaves, cotangents, materialize_grads=True))
        return total.to(self.flat.dtype)

    def put(self, flat: Tensor) -> None:
        """Write the weights `[P]` into the model."""
        with torch.no_grad():
            for p, piece in zip(self._parameters(), self._split(flat), strict=True):
                p.copy_(piece.view_as(p))

    def _gauss(self, x: Tensor, tangents: list[Tensor], curvature: Curvature) -> Tensor:
        """One batch's J^T L J v: forward mode carries the tangent along with the logits, then one backward pass.

        The backward pass runs after the dual level has closed. Inside, autograd would carry tangents through it as
        well, at twice the cost, and import torch's compiler for it.
        """
        forward = torch.autograd.forward_ad
        with forward.dual_level():
            duals = [forward.make_dual(leaf, t) for leaf, t in zip(self._leaves, tangents, strict=True)]
            logits, moved = forward.unpack_dual(self._logits(x, duals))
        assert moved is not None, "the logits depend on none of the chosen parameters"
        u = moved.detach()
        if curvature == "ggn":
            p = logits.detach().softmax(1)
            u = p * (u - (p * u).sum(1, keepdim=True))
        return _flat(torch.autograd.grad(logits, self._leaves, u, materialize_grads=True))

    def _hessian(self, x: Tensor, y: Tensor, tangents: list[Tensor]) -> Tensor:
        loss = torch.nn.functional.cross_entropy(self._logits(x, self._leaves), y, reduction="sum")
        slopes = torch.autograd.grad(loss, self._leaves, create_graph=True, materialize_grads=True)
        along = torch.stack([(g * t).sum() for g, t in zip(slopes, tangents, strict=True)]).sum()
        return _flat(torch.autograd.grad(along, self._leaves, materialize_grads=True))

    def _logits(self, x: Tensor, values: Sequence[Tensor]) -> Tensor:
        """The logits with the chosen parameters at `values`; nothing else is differentiated."""
        fixed = {name: p.detach() for name, p in self.model.named_parameters()}
        logits: Tensor = torch.func.functional_call(
            self.model, fixed | dict(zip(self.names, values, strict=True)), (x,)
        )
        return logits

    def _parameters(self) -> list[Tensor]:
        known: dict[str, Tensor] = dict(self.model.named_parameters())
        if strange := [name for name in self.names if name not in known]:
            raise ValueError(f"no parameter {strange[0]}; parameters: {', '.join(known)}")
        if not self.names:
            raise ValueError("no parameter may move; name at least one")
        return [known[name] for name in self.names]

    def _split(self, flat: Tensor) -> list[Tensor]:
        return list(flat.split([p.numel() for p in self._parameters()]))


def _flat(pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat([piece.detach().flatten() for piece in pieces])
