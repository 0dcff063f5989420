"""PGU: unlearn by gradient steps that are orthogonal to what the retained data sends through each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need, Part, State, Unlearned
from methods import _layers
from methods._grams import input_grams
from methods._pgu_run import Moving, descend
from methods._projection import outside, rank, spectrum, trust_region
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "gram."


class PGU(Method):
    """Projected-gradient unlearning (Hoang et al., WACV 2024): section 3.2, equations 1 to 5.

    `prepare` sums r r^T over the inputs r of every convolution and linear layer on the training set. At a request the
    same sum over the forget set is subtracted, which leaves that of the retained data, and the directions that hold
    `gamma` of its singular values span the core gradient space M. Each step on the forget set moves a weight matrix by
    G - G M M^T, so outputs on retained data change little. Biases and BatchNorm never move. In depoisoning the last
    linear layer also scales its inputs inside M (TRGP). The returned state is without the forgotten data.

    When it ends: sample removal, as soon as forget accuracy is below validation accuracy, with the nearer of the last
    two models; class removal, at chance accuracy; depoisoning, after the last epoch. Status `too_fast`: that held
    before the first step, the model is unchanged; `not_converged`: it never held, the last model; `guard`: validation
    accuracy (in class removal that of the retained classes) fell by more than `max_drop` points, the epoch before;
    `late`: the deadline passed, the last model.

    Defaults: the paper's section 4; offset and batch size from the authors' code. gamma is 0.9 for AllCNN and
    ResNet-18, 0.95 for SmallVGG. The code uses learning rates 0.1 to 0.01 for AllCNN and 0.1 to 0.05 in depoisoning,
    batch 100 for class removal, and gamma 0.95 for ResNet-18's `conv1` and `layer2.0.conv1`.

    Deviations from the paper: equation 1 has the sign of the entropy term reversed; the loss is a batch mean.

    Deviations from the code: statistics are never augmented, patches have the layer's stride, rank is the paper's
    (`stride`, `rank_rule` restore the code's); a symmetric eigensolver, which clamps negative eigenvalues
    (`notes.clamped`, their largest share) instead of taking their absolute value; all of `epochs` train, the code's
    first only evaluates; without convergence the last model, not the untouched one; class removal ends at chance,
    guarded by validation data, where the code reads retained data; depoisoning subtracts the poison's statistics where
    the code reads the clean data, is guarded by validation, not test, data, and scales all of M, the code its last 400
    directions (`trainable_tail`); the forget set is shuffled, in the code for class removal only; in incremental
    removal the rule looks at the current request's forget set, not at all forgotten so far, which is gone.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.VALIDATION | Need.STATISTICS
    cite: ClassVar[str] = "hoang2024pgu"
    prepares_with: ClassVar[tuple[str, ...] | None] = ("stride",)
    batch_norm: ClassVar[str] = "frozen"
    cost: ClassVar[str] = (
        "n_train F1 once; (2 n_forget + n_validation) F1, and at most epochs x (4 n_forget + n_validation) F1; "
        "Gram matrices and their eigenvectors on top"
    )
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "gamma": (0.5, 0.7, 0.8, 0.9, 0.95),  # small layers need less: their singular values fall slowly
        "lr": (0.02, 0.05, 0.1, 0.2, 0.5),
        "batch_size": (10, 32, 128),  # a small forget set is one step of 128
        "epochs": (30, 100),
    }

    gamma: float = Field(default=0.9, ge=0, le=1, description="share of the spectrum to protect; 1 freezes the layers")
    layer_gamma: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={}, description="gamma of single layers, by module name"
    )
    rank_rule: Literal["paper", "fewer"] = Field(
        default="paper",
        description="smallest rank that reaches gamma, or the code's count of those that do not exceed it",
    )
    spectrum: Literal["sigma", "sigma2"] = Field(default="sigma", description="what gamma is a share of")
    stride: Literal["true", "unit"] = Field(default="true", description="stride of the patches behind the statistics")
    entropy_weight: float = Field(
        default=0.2, ge=-100, le=100, description="weight of the entropy: maximized; in depoisoning minimized"
    )
    offset: float | None = Field(
        default=None, ge=0, le=1, description="epsilon in the loss; none: 0.05, depoisoning 0.1"
    )
    lr: float = Field(default=0.05, gt=0, le=10, description="learning rate of the first epoch")
    end_lr: float = Field(default=0.01, gt=0, le=10, description="nominal learning rate after the last epoch")
    epochs: int = Field(default=100, ge=0, le=100_000, description="most passes over the forget set")
    batch_size: int = Field(default=128, ge=1, le=100_000, description="examples per step")
    shuffle: bool = Field(default=True, description="draw the order of the forget set anew in every epoch")
    dropout: bool = Field(default=True, description="leave dropout active during the steps")
    max_drop: float = Field(default=5.0, ge=0, le=100, description="points of validation accuracy that may be lost")
    best_validation: bool = Field(default=False, description="depoisoning: keep the epoch of best validation accuracy")
    trainable_tail: int | None = Field(
        default=None, ge=1, description="depoisoning: scale only that many of the weakest core directions; none: all"
    )

    def prepare(self, model: nn.Module, data: DataView, ctx: Context) -> State:
        """The Gram matrices of the training set, float64, as `gram.<layer>`."""
        grams = input_grams(model, data.train, stride=self.stride)
        return {PREFIX + name: gram for name, gram in grams.items()}

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after the projected steps, and the state of the data that is left.

        Raises ValueError for an empty forget set, a state without Grams, or a layer of `layer_gamma` that is not there.
        """
        require_forget(data)
        retained = self._retained(model, data.forget, ctx)
        moving, notes = self._moving(model, retained, ctx)
        with _layers.only_moving(model, [weight for weight, _ in moving]):
            status, epochs = descend(self, model, data, ctx, moving)
        state = {PREFIX + name: gram for name, gram in retained.items()}
        return Unlearned(model.eval(), state=state, status=status, notes=notes | {"epochs": epochs})

    def _retained(self, model: nn.Module, forget: Part, ctx: Context) -> dict[str, Tensor]:
        grams = input_grams(model, forget, stride=self.stride)
        if missing := [name for name in grams if PREFIX + name not in ctx.state]:
            raise ValueError(f"pgu needs the statistics of `prepare`; there are none for the layer {missing[0]}")
        if strange := [name for name in self.layer_gamma if name not in grams]:
            raise ValueError(f"pgu.layer_gamma: no layer {strange[0]}; layers: {', '.join(grams)}")
        return {name: ctx.state[PREFIX + name].to(gram.device) - gram for name, gram in grams.items()}

    def _moving(self, model: nn.Module, retained: dict[str, Tensor], ctx: Context) -> tuple[Moving, dict[str, float]]:
        """The weights that move, with what projects their gradients; and the ranks, for the record."""
        moving: Moving = []
        notes = {"clamped": 0.0}
        linear = [name for name in retained if isinstance(model.get_submodule(name), torch.nn.Linear)]
        for name, gram in retained.items():
            gamma = self.layer_gamma.get(name, self.gamma)
            if gamma == 1:
                continue  # rounding would leave it almost frozen
            sigma, vectors, clamped = spectrum(gram)
            k = rank(sigma, gamma, rule=self.rank_rule, power=2 if self.spectrum == "sigma2" else 1)
            weight = model.get_submodule(name).get_parameter("weight")
            if ctx.scenario == "depoisoning" and [name] == linear[-1:]:
                update = trust_region(vectors, k, weight, self.trainable_tail)
            else:
                update = outside(vectors, k, weight)
            moving.append((weight, update))
            notes |= {f"rank.{name}": k, "clamped": max(notes["clamped"], clamped)}
        return moving, notes
