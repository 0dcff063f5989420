"""Weights and requests of one's own: what is accepted, what is refused in one line, and what an audit says of them."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Finished, Place
from safetensors.torch import save, save_file

from bench import cli, given, records, training, verdict
from bench.architectures import digits_cnn
from bench.interface import Dataset, UsageError
from bench.recipe import Recipe

Weights = dict[str, torch.Tensor]
FORGET = '{"forget": [3, 5, 8]}'
POOL = ("--set", "shadow.train=20", "--set", "shadow.validation=2", "--set", "shadow.unlearned=6", "--seeds", "2",
        "--set", "recipe.epochs=3", "--attacks", "per_example")  # fmt: skip


def trained(dataset: Dataset, recipe: Recipe, index: np.ndarray, seeds: range) -> list[Weights]:
    """Weights of digit networks trained on these rows, one for every seed."""
    tasks = [training.Task(index, dataset.train_y, seed) for seed in seeds]
    return [dict(one.weights) for one in training.train(digits_cnn.build, dataset, recipe, tasks)]


@pytest.fixture(scope="module")
def weights(dataset: Dataset) -> Weights:
    """Weights as a user saves them, untrained."""
    return training.weights_of(training.new_model(digits_cnn.build, dataset, 0))


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Runs `audit` in this process and an empty folder with the words given; returns all that it said."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int = 2) -> str:
        assert cli.main(["audit", *words]) == code
        out, err = capsys.readouterr()
        assert code == 0 or (out == "" and len(err.splitlines()) == 1 and err.startswith("error: ")), (out, err)
        return out + err

    return call


# Request files


def bomb(depth: int) -> str:
    return '{"forget": ' + "[" * depth + "]" * depth + "}"


REQUESTS = {
    "": "cannot read the request request.json: Expecting value",
    "forget 3": "cannot read the request request.json: Expecting value",
    '{"forget": [3': "cannot read the request request.json",
    bomb(100_000): "cannot read the request request.json",
    bomb(2): "forget in the request request.json must be a list of whole numbers from 0, and not empty",
    "[3, 5]": 'must be {"forget": [12, 7]} or {"removed_classes": [3]}',
    '[["forget", [3]]]': 'must be {"forget": [12, 7]} or {"removed_classes": [3]}',
    "3": 'must be {"forget": [12, 7]} or {"removed_classes": [3]}',
    "null": 'must be {"forget": [12, 7]} or {"removed_classes": [3]}',
    "{}": 'must be {"forget": [12, 7]} or {"removed_classes": [3]}',
    '{"forgets": [3]}': 'must be {"forget": [12, 7]} or {"removed_classes": [3]}',
    '{"forget": [3], "removed_classes": [3]}': 'must be {"forget": [12, 7]} or {"removed_classes": [3]}',
    '{"forget": [3], "forget": [5]}': 'must be {"forget": [12, 7]} or {"removed_classes": [3]}',
    '{"forget": []}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": 3}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": "3"}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": {"3": 5}}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": [3.0]}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": [NaN]}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": [true]}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": [3, null]}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": [-1]}': "must be a list of whole numbers from 0, and not empty",
    '{"forget": [3, 5, 3, 5]}': "has 2 numbers twice; list each once",
    '{"forget": [3, 600]}': "there is no training sample 600: the data set has samples 0 to 599",
    '{"forget": [' + "9" * 40 + "]}": "there is no training sample 9999",
    '{"forget": [' + "9" * 5000 + "]}": "cannot read the request request.json: Exceeds the limit",
    json.dumps({"forget": list(range(600))}): "cannot forget 600 samples: there are 600 to choose from and some must",
    '{"removed_classes": [3, 3]}': "has 1 numbers twice",
    '{"removed_classes": [10]}': "there is no class 10: the data set has classes 0 to 9",
    '{"removed_classes": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}': "of 10 classes leaves fewer than two; remove fewer",
    '{"removed_classes": ["eight"]}': "must be a list of whole numbers from 0, and not empty",
}  # fmt: skip


@pytest.mark.parametrize("text", REQUESTS, ids=lambda text: text[:30])
def test_a_request_that_cannot_be_is_one_line(answer: Callable[..., str], weights: Weights, text: str) -> None:
    save_file(weights, "mine.safetensors")
    Path("request.json").write_text(text)
    said = answer("--model", "mine.safetensors", "--request", "request.json", "--dry-run")
    assert REQUESTS[text] in said
    assert len(said) < 500


@pytest.mark.parametrize(
    ("path", "fault"), [("nowhere.json", "No such file or directory"), (".", "Is a directory"), ("latin", "codec")]
)
def test_a_request_that_cannot_be_read_is_one_line(answer: Callable[..., str], path: str, fault: str) -> None:
    Path("latin").write_bytes(b'{"forget": "\xff"}')
    said = answer("--model", "mine.safetensors", "--request", path)
    assert f"cannot read the request {path}" in said
    assert fault in said


def test_requests_become_changes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"forget": [7, 3]}')
    (tmp_path / "b.json").write_text('\n{"removed_classes": [8]}\n')
    assert given.request(tmp_path / "a.json") == (
        "sample_removal", ["scenario.draw=listed", "scenario.listed=[7, 3]"],
    )  # fmt: skip
    assert given.request(tmp_path / "b.json") == ("class_removal", ["scenario.removed=[8]"])


# Files of weights


def written(content: bytes) -> Callable[[Path, Weights], object]:
    return lambda path, _: path.write_bytes(content)


def saved(change: Callable[[Weights], Mapping[str, torch.Tensor]]) -> Callable[[Path, Weights], object]:
    return lambda path, weights: path.write_bytes(save(dict(change(weights))))


def header(text: str, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text.encode()


NO_FILE = "mine.safetensors is not a whole safetensors file"
MISFIT = "the weights in mine.safetensors do not fit digits_cnn"
FILES: dict[str, tuple[Callable[[Path, Weights], object], str]] = {
    "pickle": (lambda path, weights: torch.save(weights, path), NO_FILE),
    "plain pickle": (written(pickle.dumps({"a": 1})), NO_FILE),
    "empty": (written(b""), NO_FILE),
    "text": (written(b"weights\n" * 99), NO_FILE),
    "truncated": (lambda path, weights: path.write_bytes(save(weights)[:-7]), NO_FILE),
    "longer": (lambda path, weights: path.write_bytes(save(weights) + b"more"), NO_FILE),
    "header beyond the end": (written(header("{}", 1 << 20)), NO_FILE),
    "huge header": (written(header("{}", (1 << 64) - 1)), NO_FILE),
    "nested header": (written(header('{"a":' * 50_000)), NO_FILE),
    "offsets beyond the end": (
        written(header('{"a": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}')), NO_FILE,
    ),
    "overflowing shape": (
        written(header('{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}')), NO_FILE,
    ),
    "directory": (lambda path, _: path.mkdir(), "mine.safetensors is not a file"),
    "missing": (lambda path, _: None, "cannot read the weights mine.safetensors: No such file or directory"),
    "no arrays": (saved(lambda _: {}), f"{MISFIT}: 0.weight is missing"),
    "one lacks": (saved(lambda w: {k: v for k, v in w.items() if k != "12.bias"}), f"{MISFIT}: 12.bias is missing"),
    "one more": (saved(lambda w: w | {"13.weight": w["12.bias"].clone()}), f"{MISFIT}: 13.weight is not among its"),
    "nine classes": (
        saved(lambda w: w | {"12.bias": w["12.bias"][:9].clone()}), f"{MISFIT}: 12.bias has the shape [9], not [10]",
    ),
    "another width": (
        lambda path, _: path.write_bytes(save(digits_cnn.build(1, 8, 10, width=4).state_dict())),
        "has the shape [4, 1, 3, 3], not [8, 1, 3, 3]; give the architecture that they were trained with, its width",
    ),
    "whole numbers": (
        saved(lambda w: w | {"12.bias": w["12.bias"].to(torch.int8)}), f"{MISFIT}: 12.bias is torch.int8, not torch.fl",
    ),
    "complex numbers": (
        saved(lambda w: w | {"12.bias": w["12.bias"].to(torch.complex64)}), f"{MISFIT}: 12.bias is torch.complex64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_weights_that_cannot_be_are_one_line(answer: Callable[..., str], weights: Weights, kind: str) -> None:
    make, fault = FILES[kind]
    make(Path("mine.safetensors"), weights)
    Path("request.json").write_text(FORGET)
    before = sorted(Path.cwd().rglob("*"))
    assert fault in answer("--model", "mine.safetensors", "--request", "request.json", "--dry-run")
    assert sorted(Path.cwd().rglob("*")) == before


def test_misfits_are_told_before_any_training(answer: Callable[..., str], weights: Weights) -> None:
    save_file(weights, "mine.safetensors")
    Path("request.json").write_text(FORGET)
    said = answer("--model", "mine.safetensors", "--request", "request.json", "--width", "4", *POOL)
    assert "do not fit digits_cnn+width=4: 0.weight has the shape [8, 1, 3, 3], not [4, 1, 3, 3]" in said
    assert not list(Path("store").rglob("*.safetensors"))


def test_one_model_is_not_two(answer: Callable[..., str], weights: Weights) -> None:
    save_file(weights, "a.safetensors")
    save_file(weights, "b.safetensors")
    save_file(weights, "c.safetensors", metadata={"format": "pt"})
    Path("request.json").write_text(FORGET)
    request = ("--request", "request.json", "--dry-run")
    same = answer("--model", "a.safetensors", "--model", "b.safetensors", *request)
    assert "b.safetensors and a.safetensors are the same file: one model is not two" in same
    again = answer("--model", "a.safetensors", "--model", "c.safetensors", *request)
    assert "c.safetensors and a.safetensors hold the same weights: one model is not two" in again


ACCEPTED: dict[str, Callable[[Weights], Weights]] = {
    "as they are": lambda w: w,
    "float16": lambda w: {k: v.half() if v.is_floating_point() else v for k, v in w.items()},
    "bfloat16": lambda w: {k: v.bfloat16() if v.is_floating_point() else v for k, v in w.items()},
    "float64": lambda w: {k: v.double() if v.is_floating_point() else v for k, v in w.items()},
    "no counters": lambda w: {k: v for k, v in w.items() if not k.endswith("num_batches_tracked")},
    "of several devices": lambda w: {f"module.{k}": v for k, v in w.items()},
    "compiled": lambda w: {f"_orig_mod.{k}": v for k, v in w.items()},
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_weights_are_read_as_float32(tmp_path: Path, weights: Weights, dataset: Dataset, kind: str) -> None:
    file = tmp_path / "mine.safetensors"
    save_file(ACCEPTED[kind](weights), file)
    [read] = given.read([file])
    model = training.new_model(digits_cnn.build, dataset, 1)
    given._load(model, read, "digits_cnn")
    found = model.state_dict()
    assert all(found[name].dtype == value.dtype for name, value in weights.items())
    exact = kind not in ("float16", "bfloat16")
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, rtol=0 if exact else 0.01, atol=0 if exact else 1e-3)


# Names


@pytest.mark.parametrize(
    ("name", "paths", "found"),
    [
        ("", ["a/mine.safetensors"], "mine"),
        ("", ["run-1.safetensors", "run-2.safetensors"], "run"),
        ("", ["a.safetensors", "b.safetensors"], "a"),
        ("", ["same.safetensors", "x/same.safetensors"], "same"),
        ("Ours (v2), é | *b*", ["a"], "Ours (v2), é | *b*"),
        ("../../x", ["a"], "../../x"),
    ],
)
def test_the_row_is_named_after_the_files(name: str, paths: list[str], found: str) -> None:
    assert given.row_name(name, [Path(path) for path in paths], ["original", "retrain"]) == found


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (" ", "the name ' ' of the row is empty"), ("retrain", "is taken"), ("reference", "is taken"),
        ("a\nb", "cannot be printed"), ("\x1b[2J", "cannot be printed"), ("\udcff", "cannot be printed"),
        ("x" * 81, "is longer than 80"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_are_refused(name: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        given.row_name(name, [Path("a")], ["original", "retrain"])


@pytest.mark.parametrize("change", ["scenario.draw=random", "sample_removal.count=3", "class_removal.removed=[1]"])
def test_the_request_is_not_changed_by_hand(answer: Callable[..., str], change: str) -> None:
    Path("request.json").write_text(FORGET)
    said = answer("--model", "mine.safetensors", "--request", "request.json", "--set", change)
    assert f"the request says what must go; leave --set {change} out" in said


def test_a_preset_with_parts_is_refused(answer: Callable[..., str]) -> None:
    said = answer("--model", "a", "--request", "b", "--preset", "paper-all")
    assert "paper-all" in said


def test_what_is_missing_is_said(answer: Callable[..., str]) -> None:
    assert "required: --model, --request" in answer()
    assert "audit --help" in answer("--model", "a")


# Whole audits


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Place:
    """A folder with originals, models retrained without the eights, some of them wrecked, and two requests."""
    folder = tmp_path_factory.mktemp("given")
    recipe = Recipe(name="digits", lr=0.1, epochs=3, batch_size=32)
    rest = np.flatnonzero(dataset.train_y != 8)
    for name, index in {"original": np.arange(len(dataset.train_y)), "retrained": rest}.items():
        for number, one in enumerate(trained(dataset, recipe, index, range(1000, 1009))):
            save_file(one, folder / f"{name}-{number}.safetensors")
            if number == 8:
                wrecked = one | {"12.bias": torch.full((10,), float("nan"))}
                save_file(wrecked, folder / f"{name}-nan.safetensors")
    (folder / "class.json").write_text('{"removed_classes": [8]}')
    (folder / "samples.json").write_text(json.dumps({"forget": [int(i) for i in np.flatnonzero(rest % 9 == 0)]}))
    return Place(folder)


def models(name: str, *numbers: object) -> list[str]:
    return [word for number in numbers for word in ("--model", f"{name}-{number}.safetensors")]


def typed(out: str, *words: str, request: str = "class.json") -> list[str]:
    return ["audit", "--request", request, *POOL, "--store", "store", "--jobs", "1", "--out", out, *words]


def audit(place: Place, out: str, *words: str) -> Finished:
    return place.call(*typed(out, *words))


@pytest.fixture
def here(place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """The same in this process, which has imported everything."""
    monkeypatch.chdir(place.folder)

    def call(out: str, *words: str, request: str = "class.json") -> Finished:
        code = cli.main(typed(out, *words, request=request))
        return Finished(code, *capsys.readouterr())

    return call


def verdicts(place: Place, out: str) -> dict[str, verdict.Verdict]:
    found = records.load(place.folder / out)
    return verdict.verdicts(found.run, found.records)


def described(place: Place, out: str) -> dict[str, Any]:
    """What run.json says of the last row."""
    content: dict[str, Any] = json.loads((place.folder / out / "run.json").read_text())["methods"][-1]
    return content


@pytest.mark.slow
def test_one_untouched_original_leaks(place: Place) -> None:
    finished = audit(place, "one", *models("original", 0))
    assert finished.code == 0, finished.err
    found = verdicts(place, "one")
    assert found["original-0"].word == verdict.LEAKS, found
    row = described(place, "one")
    assert row["name"] == "original-0" and row["status"] == "ok"
    assert row["files"][0]["name"] == "original-0.safetensors"
    cost = finished.out.partition("## What it cost in time and data")[2].partition("\n## ")[0]
    [line] = [line for line in cost.splitlines() if line.startswith("| original-0")]
    assert {cell.strip() for cell in line.split("|")[2:-1]} == {"n/a"}
    assert "original-0: weights made elsewhere, one model; what making them read and cost is not known." in finished.out
    page = (place.folder / "one" / "report.html").read_text()
    for said in ("original-0.safetensors", row["files"][0]["sha256"], "not known", "Weights made elsewhere"):
        assert said in page
    again = place.entries()
    assert audit(place, "one", *models("original", 0)).out == finished.out
    assert place.entries() == again


@pytest.mark.slow
def test_more_retrained_models_than_repeats_do_not_leak(place: Place) -> None:
    name = "Ours | *b* <i>"
    finished = audit(place, "many", *models("retrained", *range(9)), "--name", name, "--audit", "deep")
    assert finished.code == 0, finished.err
    assert verdicts(place, "many")[name].word in (verdict.INDISTINGUISHABLE, verdict.UNCLEAR)
    found = records.load(place.folder / "many").records
    mine = {(r.metric, r.seed): r for r in found if r.method == name}
    assert mine["attack_auc:per_example", "all"].n == 5
    assert {seed for metric, seed in mine if metric == "error"} == {*map(str, range(9)), "all"}
    assert {seed for metric, seed in mine if metric == "recovered_error"} == {"0", "1", "2", "all"}
    assert not any(metric.startswith(("weight", "seconds", "samples", "peak")) for metric, _ in mine)
    assert "9 models" in described(place, "many")["summary"]
    assert "learned from 4 of them and judged the others" in finished.out
    page = (place.folder / "many" / "report.html").read_text()
    assert name not in page and "Ours | *b* &lt;i&gt;" in page
    for number, file in enumerate(described(place, "many")["files"]):
        assert file["name"] == f"retrained-{number}.safetensors" and file["sha256"] in page


@pytest.mark.slow
def test_a_model_that_diverged_has_a_row_that_says_so(place: Place, here: Callable[..., Finished]) -> None:
    finished = here("nan", *models("retrained", 0, "nan"), "--audit", "deep")
    assert finished.code == 0, finished.err
    assert verdicts(place, "nan")["retrained"].word == verdict.UNCLEAR
    assert "diverged in 1 of 2 runs" in finished.out
    assert "Traceback" not in finished.err
    alone = here("nan1", *models("original", "nan"))
    assert alone.code == 0, alone.err
    assert verdicts(place, "nan1")["original-nan"].word == verdict.UNCLEAR
    assert "diverged" in alone.out


def test_listed_samples_beside_a_method_and_without_attacks(place: Place, here: Callable[..., Finished]) -> None:
    words = (*models("original", 0, 1), "--name", "mine", "--methods", "scrub", "--attacks", "none")
    finished = here("samples", *words, request="samples.json")
    assert finished.code == 0, finished.err
    run = json.loads((place.folder / "samples" / "run.json").read_text())
    assert [row["name"] for row in run["methods"]] == ["original", "retrain", "scrub", "mine"]
    assert run["audit"] == {}
    assert run["config"]["scenario_settings"]["draw"] == "listed"


def test_a_dry_run_lists_the_models_and_writes_nothing(here: Callable[..., Finished], tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "none")
    finished = here(elsewhere, *models("retrained", 0, 1), "--dry-run", "--store", elsewhere)
    assert finished.code == 0, finished.err
    assert "evaluate retrained                       2 jobs,     0 in the store" in finished.out
    assert not Path(elsewhere).exists()


def test_results_of_other_weights_go_elsewhere(place: Place) -> None:
    from bench import benchmark, config

    resolved = config.resolve("digits", {"scenario": "class_removal"})
    files = [given.read([place.folder / f"original-{n}.safetensors"]) for n in (0, 1)]
    first, second = (benchmark.prepare_out(resolved, None, "mine", one) for one in files)
    assert first != second and first.name.startswith("audit-class_removal-")
    assert not first.exists() and not second.exists()
