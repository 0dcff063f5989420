"""CIFAR-10 on miniature batches made here and, where it has been downloaded, on the real ones; the paper's preset."""

import functools
import hashlib
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cifar_batches import PER_BATCH, batch, dumps, pack, write

from bench import cli, config, datasets, loop, readouts, registry, training
from bench import recipe as recipe_module
from bench.datasets import cifar10, subset
from bench.interface import Dataset, UsageError

ROOT = Path(__file__).resolve().parent.parent


def same(a: Dataset, b: Dataset) -> bool:
    parts = ("train", "validation", "test")
    return all(np.array_equal(a.images(p), b.images(p)) and np.array_equal(a.labels(p), b.labels(p)) for p in parts)


def refused(root: Path, sums: dict[str, str] | None = None) -> str:
    """The one line that loading `root` ends with; it always says what to do."""
    with pytest.raises(UsageError) as caught:
        cifar10._load(root, sums)
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        cifar10.SOURCE.url,
        cifar10.SOURCE.file,
        cifar10.SOURCE.md5,
        str(root),
        "--data-dir",
        "--preset digits",
    ):
        assert part in line
    return line


def test_batches_become_images_and_labels_in_file_order(tmp_path):
    data = cifar10._load(tmp_path, write(tmp_path))
    first = batch("data_batch_1", PER_BATCH)
    assert data.train_x.shape == (5 * PER_BATCH, 3, 32, 32)
    assert data.train_x.dtype == np.uint8
    assert data.train_y.dtype == np.int64
    assert data.train_y[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    green_row_1 = first["data"][7, 1024 + 32 : 1024 + 64]
    assert np.array_equal(data.train_x[7, 1, 1], green_row_1)
    last = batch("data_batch_5", PER_BATCH)["data"][-1]
    assert np.array_equal(data.train_x[-1].ravel(), last)
    assert data.train_x.flags.writeable  # torch warns of memory it may not write to
    assert np.allclose(data.mean, [129.3105, 124.083, 112.4295])
    assert np.allclose(data.std, [51.2295, 50.592, 51.5865])


def test_the_archive_and_the_inner_folder_serve_as_well(tmp_path):
    sums = write(tmp_path / "a")
    write(tmp_path / "b")
    pack(tmp_path / "b")
    write(tmp_path / "c" / "cifar10")
    plain, packed, inner = (cifar10._load(tmp_path / name, sums) for name in "abc")
    assert same(plain, packed)
    assert same(plain, inner)


def test_missing_data_says_what_to_do(tmp_path):
    assert "is not in the folder" in refused(tmp_path / "nowhere")


def test_a_changed_batch_is_refused(tmp_path):
    sums = write(tmp_path)
    path = tmp_path / cifar10.SOURCE.folder / "data_batch_3"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    line = refused(tmp_path, sums)
    assert line.startswith("data_batch_3 ")
    assert sums["data_batch_3"] in line


def test_batches_of_ones_own_are_refused_by_load(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"data_batch_1 .*published is c99cafc152244af753f735de768cd75f"):
        cifar10.load()


def test_incomplete_folders_and_archives_are_refused(tmp_path):
    write(tmp_path / "a")
    (tmp_path / "a" / cifar10.SOURCE.folder / "test_batch").unlink()
    assert "No such file" in refused(tmp_path / "a")
    write(tmp_path / "b")
    pack(tmp_path / "b", cifar10.TRAIN)
    assert refused(tmp_path / "b").startswith("test_batch ")
    write(tmp_path / "c")
    pack(tmp_path / "c")
    whole = (tmp_path / "c" / cifar10.SOURCE.file).read_bytes()
    for wrong in (whole[: len(whole) // 2], whole[:5000] + b"\0" * 500 + whole[5500:], b"", b"<html>not found</html>"):
        (tmp_path / "c" / cifar10.SOURCE.file).write_bytes(wrong)
        line = refused(tmp_path / "c")
        if line.startswith("cannot read"):  # otherwise a batch has come out, but altered: its own checksum tells
            assert f"has MD5 {hashlib.md5(wrong).hexdigest()}, published is {cifar10.SOURCE.md5}" in line
    assert line.startswith("cannot read")


class Runs:
    """Pickles to a call that leaves a trace."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def hostile(trace: Path) -> dict[str, bytes]:
    """Pickles that would do something when loaded."""
    write_trace = f"open({str(trace)!r}, 'w').close()"
    good = batch("x", PER_BATCH)
    objects = good | {"data": np.array([[Runs(exec, write_trace)]], dtype=object)}
    return {
        "system": pickle.dumps(Runs(os.system, f"touch {trace}"), protocol=2),
        "exec": pickle.dumps(good | {"labels": Runs(exec, write_trace)}, protocol=2),
        "eval through getattr": pickle.dumps(Runs(getattr, "text", "upper"), protocol=4),
        "numpy's own file reader": b"cnumpy\nload\n(S'x'\ntR.",
        "numpy's frombuffer": b"cnumpy.core.multiarray\nfrombuffer\n(S'x'\ntR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__base__\x93.",
        "objects": dumps(objects | {"data": objects["data"].astype(object)}),
        "wide numbers": dumps(good | {"data": np.zeros((PER_BATCH, 3072))}),
        "by columns": dumps(good | {"data": np.asfortranarray(good["data"])}),
        "persistent id": b"Pelsewhere\n.",
        "extension": b"\x80\x02\x82\x01.",
        "not a pickle": b"hello",
        "empty": b" ",
        "a number": pickle.dumps(1, protocol=2),
        "no labels": dumps({"data": good["data"]}),
        "too few labels": dumps(good | {"labels": [0]}),
        "an eleventh class": dumps(good | {"labels": [10] * PER_BATCH}),
        "too few pixels": dumps(good | {"data": good["data"][:, :-1]}),
    }


@pytest.mark.parametrize("kind", hostile(Path("trace")))
def test_a_hostile_or_broken_pickle_is_refused_and_runs_nothing(kind, tmp_path):
    trace = tmp_path / "trace"
    write(tmp_path, data_batch_2=hostile(trace)[kind])
    assert refused(tmp_path).startswith("data_batch_2 ")
    assert not trace.exists()


def test_the_traps_work(tmp_path):
    trace = tmp_path / "trace"
    pickle.loads(hostile(trace)["exec"])
    assert trace.exists()


@pytest.mark.parametrize(("name", "parameters"), [("allcnn", 1_620_010), ("smallvgg", 5_681_674)])
def test_the_papers_nets(name, parameters):
    import torch

    build = registry.load("architectures", name)
    net = build(3, 32, 10)
    assert sum(p.numel() for p in net.parameters()) == parameters
    for narrow in (build(3, 32, 7, width=0.125), build(1, 8, 7, width=0.125)):
        x = torch.randn(2, *next(iter(narrow.parameters())).shape[1:2], 32, 32)
        assert narrow(x[..., :8, :8] if x.shape[1] == 1 else x).shape == (2, 7)
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    inputs = [layer.weight[0].numel() for layer in layers]
    expected = {
        "allcnn": [27, 864, 864, 1728, 1728, 1728, 1728, 192, 192],
        "smallvgg": [27, 1152, 2304, 8192, 512],
    }
    assert inputs == expected[name]
    assert sum(layer.weight.numel() for layer in layers) == {"allcnn": 1_617_312, "smallvgg": 5_677_440}[name]


@pytest.mark.parametrize(
    ("name", "epochs", "batch_size", "factor"),
    [("allcnn_code", 100, 256, 0.970487), ("allcnn_paper", 200, 250, 0.985133)],
)
def test_the_papers_schedule(name, epochs, batch_size, factor):
    recipe = recipe_module.load_recipe(name)
    assert (recipe.epochs, recipe.batch_size, recipe.nesterov) == (epochs, batch_size, name == "allcnn_paper")
    rates = np.array(loop.learning_rates(recipe, 3)).reshape(epochs, 3)
    assert np.allclose(rates, 0.01 * (0.0005 / 0.01) ** (np.arange(epochs)[:, None] / epochs), rtol=1e-12, atol=0)
    assert rates[1, 0] / rates[0, 0] == pytest.approx(factor, abs=1e-6)


def test_the_papers_preset_without_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNLEARNING_DATA", "elsewhere")  # so that what --data-dir sets is undone
    assert cli.main(["--preset", "paper-table1", "--dry-run", "--data-dir", str(tmp_path)]) == cli.USAGE
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(tmp_path) in line
    assert cifar10.SOURCE.url in line


def test_the_papers_preset_forgets_the_first_airplanes():
    settings = config.resolve("paper-table1", {})
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 600))
    (request,) = settings.scenario_settings.requests(labels, 10, settings.seed)
    assert np.array_equal(request.forget, np.flatnonzero(labels == 0)[:500])
    pgu = settings.method("pgu").model_dump()
    assert (pgu["gamma"], pgu["lr"], pgu["end_lr"], pgu["epochs"], pgu["batch_size"]) == (0.9, 0.1, 0.01, 100, 128)
    assert settings.method("eu_k").model_dump()["k"] == 3


# The real data set: place it in data/ (see bench/datasets/cifar10.py) and these run too.
HOLDS = Path(os.environ.get("UNLEARNING_DATA") or ROOT / "data")
PLACES = [HOLDS / part / name for part in (".", "cifar10") for name in (cifar10.SOURCE.folder, cifar10.SOURCE.file)]
real = pytest.mark.skipif(not any(p.exists() for p in PLACES), reason=f"CIFAR-10 is not in {HOLDS.name}/")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that links to the real one, so that nothing is written there."""
    folder = tmp_path_factory.mktemp("data")
    found = next(path for path in PLACES if path.exists())
    (folder / found.name).symlink_to(found.resolve())
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> Dataset:
    return cifar10._load(place, cifar10.MD5)


@real
def test_the_real_data_set(whole):
    assert [len(whole.labels(part)) for part in ("train", "validation", "test")] == [50_000, 5_000, 5_000]
    assert whole.train_y[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert np.flatnonzero(whole.train_y == 0)[:3].tolist() == [29, 30, 35]
    for part, size in (("train", 5_000), ("validation", 500), ("test", 500)):
        assert np.bincount(whole.labels(part)).tolist() == [size] * 10
    known = np.array([0.49139968, 0.48215841, 0.44653091])  # mean of the training pixels, widely published
    assert np.allclose(whole.train_x.mean((0, 2, 3)) / 255, known, atol=1e-6)


@real
def test_the_papers_preset_with_data(place, whole, monkeypatch, capsys):
    monkeypatch.setenv("UNLEARNING_DATA", str(place))
    assert cli.main(["--preset", "paper-table1", "--dry-run"]) == cli.OK
    out = capsys.readouterr().out
    assert "cifar10 (50000 training images), allcnn, recipe allcnn_code" in out


@real
def test_our_error_is_torchs_own_to_the_last_image(whole):
    import torch

    data = subset(whole, train=500, validation=100)
    build = functools.partial(registry.load("architectures", "allcnn"), width=0.125)
    recipe = recipe_module.load_recipe("allcnn_code", {"epochs": 2, "batch_size": 50})
    (trained,) = training.train(build, data, recipe, [training.Task(np.arange(500), data.train_y, seed=3)])
    ours = readouts.error_percent(trained.outputs.test, data.test_y)

    net = build(3, 32, 10)
    net.load_state_dict(trained.weights)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (datasets.MEAN, datasets.STD))
    x = (torch.from_numpy(whole.test_x) / 255 - mean) / std  # as torchvision's ToTensor and Normalize
    with torch.no_grad():
        predicted = torch.cat([net.eval()(some).argmax(1) for some in x.split(500)])
    wrong = int((predicted != torch.from_numpy(whole.test_y)).sum())
    assert 3000 < wrong < 4600, "the net should have learned a little"
    assert round(float(ours) * 50) == wrong
    assert ours == pytest.approx(wrong / 50, abs=1e-9)


@real
@pytest.mark.slow
def test_every_method_and_the_attack_run_on_real_photographs(run, monkeypatch):
    monkeypatch.setenv("UNLEARNING_CACHE", str(run.folder / "cache"))
    done = replace(run, patience=1500).benchmark(
        *("--dataset", "cifar10+train=2000+validation=200+test=200", "--data-dir", str(HOLDS.resolve())),
        *("--architecture", "allcnn", "--width", "0.1", "--recipe", "small", "--set", "recipe.epochs=2"),
        *("--scenario", "sample_removal", "--methods", "all", "--seeds", "1", "--set", "scenario.count=100"),
        *("--set", "shadow.train=2", "--set", "shadow.validation=1"),
        *("--time-limit", "20"),  # the second-order update's thousand products take a quarter of an hour
        jobs=2,
    )
    assert done.code == 0, done.err
    description = json.loads((run.out / "run.json").read_text())
    assert {method["name"] for method in description["methods"]} == set(registry.names("methods"))
    assert all(method["status"] == "ok" for method in description["methods"])
    rows = (run.out / "records.csv").read_text().splitlines()
    assert sum(",attack_auc," in row for row in rows) >= len(description["methods"])
