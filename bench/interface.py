"""What a plug-in author reads: the nouns of the benchmark and the classes a plug-in extends.

Importing this module loads neither torch nor any other heavy library.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.recipe import Recipe


class UsageError(Exception):
    """The user asked for something impossible; the message says what is wrong and what to do (exit code 2)."""


class UndeclaredRead(RuntimeError):
    """A method asked for data that its `needs` do not name."""


class Need(enum.Flag):
    """What a method may read. Whatever is not declared is not handed over."""

    NOTHING = 0
    FORGET = enum.auto()
    RETAIN = enum.auto()
    VALIDATION = enum.auto()
    CORRECTED = enum.auto()  # the forget set with its true labels (depoisoning)
    STATISTICS = enum.auto()  # the whole training set, in `prepare`, before any request is known
    INITIAL_WEIGHTS = enum.auto()  # the weights the original started from
    OWN_TRAINING = enum.auto()  # the method replaces the training of the original, in `prepare`

    def words(self) -> list[str]:
        """The declared needs as lower-case words, in a fixed order."""
        return [need.name.lower() for need in Need if need and need in self and need.name]


SCENARIOS = ("sample_removal", "class_removal", "incremental", "depoisoning")


@dataclass(frozen=True)
class Dataset:
    """Named arrays in memory. Images are uint8 `[n, channels, height, width]`, labels int64 `[n]`.

    `mean` and `std` hold one value per channel, in the units of the uint8 pixels; `pixel_max` is their largest value.
    `digest` is what `bench.store.fingerprint` would compute of all this, where a loader has checked it already, else
    empty. `dataclasses.replace` empties it: only `verified` sets it.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    validation_x: np.ndarray
    validation_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_max: int = 255
    digest: str = field(default="", init=False)

    def verified(self, digest: str) -> Dataset:
        """The same with its `digest`, for loaders that have compared the arrays with their checksums."""
        same = replace(self)
        object.__setattr__(same, "digest", digest)
        return same

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def images(self, part: str) -> np.ndarray:
        """The uint8 images of `train`, `validation` or `test`."""
        return np.asarray(getattr(self, f"{part}_x"))

    def labels(self, part: str) -> np.ndarray:
        """The int64 labels of `train`, `validation` or `test`."""
        return np.asarray(getattr(self, f"{part}_y"))


@dataclass(frozen=True)
class Request:
    """Which training data must go.

    Attributes:
        forget: sorted training indices to forget now, int64 `[n_forget]`.
        retain: sorted training indices to keep, int64 `[n_retain]`; data forgotten earlier is in neither.
        forgotten: everything forgotten up to and including this request; equals `forget` for a first request.
        removed_classes: classes of which every sample goes (class removal), else empty.
        poisoned: sorted training indices whose label was wrong in training (depoisoning, canaries), else empty.
            `forget` is what is known of them; the rest is in `retain`, wrong label and all.
        wrong_labels: the labels that `poisoned` carried in training, aligned with it.
        step: position in the sequence of requests, from 0.
    """

    forget: np.ndarray
    retain: np.ndarray
    forgotten: np.ndarray
    removed_classes: tuple[int, ...] = ()
    poisoned: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    wrong_labels: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    step: int = 0


@dataclass(frozen=True)
class Outputs:
    """Raw, unmasked float32 logits of one model, `[n, classes]`, in the order of the data set.

    `train` covers the whole training set; a request's forget and retain logits are rows of it.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class Record:
    """One number of one run.

    `seed` is the repeat ("0", "1", ...) or "all" for a summary over `n` repeats, whose `low` and `high` bound a 95 %
    interval. `part` says on what it was measured, `status` is "ok" or says why it is missing or to be doubted.
    """

    method: str
    seed: str
    step: int
    part: str
    metric: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0
    status: str = "ok"


class Part(Protocol):
    """One set of examples as a method sees it; every example handed out is counted.

    `rows` int64 `[n]` are the places of its examples in their data set, ascending: a request names examples by these.
    """

    @property
    def rows(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def only(self, rows: Tensor) -> Part:
        """Those of its examples that are at these places; what is read of them counts as read of this part."""
        ...

    def batches(
        self, size: int, generator: torch.Generator | None = None, *, augment: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(x, y)` once over the set: float32 `[b, c, h, w]` normalized images and int64 `[b]` labels.

        Args:
            size: batch size; the last batch may be smaller, or, rather than hold one example, larger by one.
            generator: CPU generator that shuffles (and augments); without one the order is that of the data set.
            augment: apply the recipe's training augmentation.
        """
        ...


class DataView(Protocol):
    """The only road to examples. Reading a part that `needs` does not declare raises `UndeclaredRead`.

    `train` exists in `prepare` only, the others in `unlearn` only. The labels of the forget set are the ones the
    original was trained with; `corrected` is the forget set with its true labels and exists in depoisoning only.
    """

    @property
    def forget(self) -> Part: ...

    @property
    def retain(self) -> Part: ...

    @property
    def validation(self) -> Part: ...

    @property
    def corrected(self) -> Part: ...

    @property
    def train(self) -> Part: ...


State = dict[str, "Tensor"]


@dataclass
class Context:
    """What a method may know besides the data.

    Attributes:
        seed: this run's own seed; `generator` is a CPU generator drawn from it.
        recipe: how the original was trained.
        removed_classes: classes that go entirely; empty outside class removal.
        step: position of this request in its sequence.
        black, white: the normalized values of the smallest and largest pixel, per channel; images lie between.
        layers: names of the modules that "the last k layers" counts, in order; empty if the architecture lists none.
        state: what `prepare` returned or the previous request left behind; tensors by name, on `device`.
        new_model: builds a freshly initialized network, drawn from this run's seed; `new_model(1)` draws another.
        initial_model: builds the network the original started from; needs INITIAL_WEIGHTS.
        deadline: value of `time.perf_counter()` after which a method should stop, or None.
        progress: call it with a short line to tell the user where the method is.
    """

    device: str
    seed: int
    generator: torch.Generator
    recipe: Recipe
    classes: int
    scenario: str
    new_model: Callable[..., nn.Module]
    initial_model: Callable[[], nn.Module]
    removed_classes: tuple[int, ...] = ()
    step: int = 0
    black: tuple[float, ...] = ()
    white: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()
    state: State = field(default_factory=dict)
    deadline: float | None = None
    progress: Callable[[str], None] = lambda line: None


@dataclass
class Unlearned:
    """What `Method.unlearn` returns when a bare model does not say enough.

    `state` replaces the prepared state for the next request. `status` is "ok" or one word that the method's
    docstring explains. `notes` are numbers about the run, shown with it.
    """

    model: nn.Module
    state: State | None = None
    status: str = "ok"
    notes: dict[str, float] = field(default_factory=dict)


class Plugin(BaseModel):
    """Base of everything configurable by name: fields are hyper-parameters with types, ranges and a doc line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Method(Plugin):
    """An unlearning algorithm. One file, one class; the file's name is the method's name.

    Its class attributes say what it is.

    Attributes:
        needs: what it may read; anything else raises.
        supports: the scenarios it makes sense for; others are skipped with the reason.
        cite: BibTeX key in `reports/references.bib`.
        batch_norm: "train" (statistics move), "eval" (statistics fixed, scale and shift may move) or
            "frozen" (nothing of BatchNorm moves); checked.
        budget: name of the field that, set to 0, makes the method the identity; None if there is none.
        stochastic: whether another seed gives another result.
        random_by_class: draws something per class, so that renumbering classes changes it, but not its distribution.
        prepares_with: the fields that `prepare` depends on, so that changing others does not repeat it; None: all.
        identity: the no-op row, which returns the original by design.
        ceiling: no method: it uses what makes unlearning needless. Marked as such, never ranked.
        cost: one line that says what a request takes, in passes over the data; F1 is one forward pass of one example.
        search: the values that `tune` tries, by field; methods that publish some get equally many trials.
    """

    needs: ClassVar[Need] = Need.NOTHING
    supports: ClassVar[tuple[str, ...]] = SCENARIOS
    cite: ClassVar[str] = ""
    batch_norm: ClassVar[str] = "train"
    budget: ClassVar[str | None] = "epochs"
    stochastic: ClassVar[bool] = True
    random_by_class: ClassVar[bool] = False
    prepares_with: ClassVar[tuple[str, ...] | None] = None
    identity: ClassVar[bool] = False
    ceiling: ClassVar[bool] = False
    cost: ClassVar[str] = ""
    search: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def reads(self) -> Need:
        """What this instance may read: `needs`, unless a hyper-parameter asks for more or less."""
        return self.needs

    def refuses(self, scenario: str) -> str:
        """Why this instance cannot serve a scenario that the class supports; nothing if it can."""
        return ""

    def prepare(self, model: nn.Module, data: DataView, ctx: Context) -> State:
        """Compute what must be known before any request; timed and stored apart. Nothing by default."""
        return {}

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module | Unlearned:
        """Return a model that has forgotten `data.forget`. `model` is a private copy and may be changed.

        The model returned is of the original's architecture, or a `bench.ensemble.Ensemble` of such.
        """
        raise NotImplementedError
