"""Bad inputs of every kind: what one types, what the answer must say, and what is damaged before.

The folder where it is typed holds a sound file of every kind (`tests/good_inputs.py`).
"""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load, save

from tests import good_inputs

Change = bytes | str | None | Callable[[bytes], bytes]  # a new content, nothing (removed), or what is made of the old
AUDIT = "audit --model one.safetensors --request forget.json"
BATCHES, TINY = "cifar/cifar-10-batches-py", "tiny/tiny-imagenet-200"
PHOTO = f"{TINY}/train/n00000001/images/n00000001_3.JPEG"


@dataclasses.dataclass(frozen=True)
class Bad:
    """One bad input: what is typed, a pattern of the line that answers it, and what is changed before, by file."""

    words: str
    says: str
    files: dict[str, Change] = dataclasses.field(default_factory=dict)


def swap(old: str, new: str) -> Callable[[bytes], bytes]:
    """The same text with other words in it."""

    def change(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), 1)

    return change


def first(size: int) -> Callable[[bytes], bytes]:
    """A truncated file."""
    return lambda content: content[:size]


def put(*place: Any, value: Any) -> Callable[[bytes], bytes]:
    """The same JSON with another value at this place."""

    def change(content: bytes) -> bytes:
        whole = json.loads(content)
        inner = whole
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = value
        return json.dumps(whole).encode()

    return change


def weights(name: str, value: torch.Tensor | None) -> Callable[[bytes], bytes]:
    """The same weights with another array of this name, or without it."""

    def change(content: bytes) -> bytes:
        arrays = load(content) | ({name: value} if value is not None else {})
        return save({key: array for key, array in arrays.items() if value is not None or key != name})

    return change


def picture(width: int, height: int, mode: str = "RGB") -> bytes:
    """A PNG file."""
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, "PNG")
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG file of a few bytes that says it has 3.6 thousand million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT"
    )


TYPED = [
    Bad("frobnicate", "unknown command 'frobnicate'; known: audit, check"),
    Bad("--scenario", "argument --scenario: expected one argument; see python"),
    Bad("--scenario class_removl", "did you mean class_removal?"),
    Bad("--methods ,", "no methods given; --methods takes a comma list such as pgu,scrub, or all"),
    Bad("--methods pgu,scrb", "unknown method 'scrb'; did you mean scrub?"),
    Bad("--methods ./nope.py", "no such file: ./nope.py"),
    Bad("--methods pgu+gamma=x", r"gamma: Input should be a valid number.*got 'x'"),
    Bad("--methods pgu+gama=1", "did you mean gamma?"),
    Bad("--methods pgu+gamma=0.5+gamma=0.6", "sets one thing twice; name each setting once"),
    Bad("--scenario sample_removal --methods unsir", "none of these methods can run: unsir .*--scenario"),
    Bad("--set pgu.gamma", "--set takes part.field=value, such as pgu.gamma=0.9"),
    Bad("--set pgu.gamma=2", "less than or equal to 1, got 2"),
    Bad("--set nope.gamma=2", r"unknown part in --set .* 'nope'; .*known: "),
    Bad("--set recipe.epochs=99999999999999999999", "recipe.epochs: .*less than or equal to 10000"),
    Bad("--set recipe.lr=nan", "recipe.lr: Input should be a finite number"),
    Bad("--set shadow.unlearned=1000", "only 45 shadow originals .*lower it or raise those"),
    Bad("--set scenario.removed=10", "there is no class 10: .*classes 0 to 9; choose others"),
    Bad("--set scenario.removed=0,1,2,3,4,5,6,7,8", "leaves fewer than two; remove fewer"),
    Bad("--scenario sample_removal --set scenario.count=9999", "there are 600 to choose from and some must stay"),
    Bad("--seeds 99999999999999999999", "--seeds needs between 1 and 1000 repeats"),
    Bad("--seeds 1.5", "--seeds must be a whole number from 0, got '1.5'"),
    Bad("--attacks none,loss", "a comma list such as per_example,shadow_xgboost, all or none"),
    Bad("--preset nope", "unknown preset 'nope'; known: "),
    Bad("--preset nope.toml", "cannot read the preset nope.toml: No such file"),
    Bad("--dataset digits+train=5", "train of a data set must be a whole number from 10 to 600, got 5"),
    Bad("--architecture resnet18+width=0.0001", "layer without weights; make it wider"),
    Bad("--architecture allcnn+width=999", r"training it takes \d+ GB, this machine has \d+; make it narrower"),
    Bad("--recipe fast", "digits_cnn has no recipe 'fast', only .*; give it one with --recipe FILE.toml"),
    Bad("--device gpu", "unknown device 'gpu'; use cpu, cuda, cuda:N or mps"),
    Bad("--device cuda:99", "cannot use the device cuda:99: .*--device cpu always works"),
    Bad("--device cuda:x", "cannot use the device cuda:x: .*--device cpu always works"),
    Bad("--time-limit nan", "--time-limit must be a number of seconds above 0"),
    Bad("--jobs 0", "--jobs must be at least 1, got 0"),
    Bad("--store mine.py", "cannot make the store mine.py: File exists; choose another with --store"),
    Bad("--out mine.py/x", "cannot make the results folder mine.py/x: .*; choose another with --out"),
    Bad("--out ''", "argument --out: the name of a file or folder is empty"),
    Bad("--methods " + 300 * "x" + ".py", "File name too long"),
    Bad("report " + 300 * "x", "File name too long"),
    Bad("report ''", "argument DIR: the name of a file or folder is empty"),
    Bad("report nope", "no results folder at nope; python run_benchmark.py --out nope makes one"),
    Bad("report store", "store has no records.csv .*; repeat the command that was to fill it, or name"),
    Bad("report results many", "several results folders .*; say where with --out FOLDER"),
    Bad("compare many --baseline baseline.json", "many has no records.csv .*; name one of the runs in it: a, b"),
    Bad("compare results --baseline nope.json", "no baseline at nope.json; write one with --update-baseline"),
    Bad("compare results --baseline mine.py --update-baseline", "mine.py is there and is no baseline; name another"),
    Bad("compare results --baseline results/run.json --update-baseline", "run.json is there and is no baseline"),
    Bad("leaderboard nope", "no folder at nope; leaderboard takes folders that hold results"),
    Bad("leaderboard own", "no results in or below own; python run_benchmark.py --out own makes some"),
    Bad("leaderboard results --out results", "results holds the results of a run; choose another folder with --out"),
    Bad("list nope", "unknown section 'nope'; known: architectures, "),
    Bad("list datasets --markdown", "--markdown writes the handbook of the methods: list methods --markdown"),
    Bad("check nope", "unknown method 'nope'; known: "),
    Bad("store ls --store nope", "no store at nope; --store names another"),
    Bad("store prune --keep 7y", r"--keep takes a kind \(model\), an age such as 7d, or a results folder, got '7y'"),
    Bad(f"store prune --keep {400 * '9'}d", "--keep takes a kind"),
    Bad("store prune --keep own", "no results in own; --keep takes a results folder"),
    Bad("tune --trials 0", "--trials must be at least 1, got 0"),
    Bad("tune --trials 100000000000", "--trials must be at most 10,000"),
    Bad("tune --draws 1000", "leaves 9 other draws to choose on, not 1000: change --draws"),
    Bad("tune --methods retrain", "retrain is what methods are judged by; there is nothing to tune"),
    Bad("tune --scenario sample_removal --methods unsir", "nothing to tune: unsir does not .*; name others"),
    Bad("tune --out mine.toml", "mine.toml exists; choose another file with --out, or overwrite it with --force"),
    Bad("tune --preset mine.toml --out mine.toml --force", "mine.toml is what the preset mine.toml is made of"),
    Bad("tune --preset paper-all", "tune takes one setting, but the preset paper-all has the parts"),
]
PRESET = "--preset ./mine.toml"
TUNED = "--preset tuned.toml"
PRESETS = [
    Bad(PRESET, "cannot read the preset mine.toml: 'utf-8' codec can't decode", {"mine.toml": b"\xff"}),
    Bad(PRESET, "cannot read the preset mine.toml: Invalid value", {"mine.toml": "x ="}),
    Bad(PRESET, "cannot read the preset mine.toml: it is nested too deeply", {"mine.toml": "x = " + 3000 * "["}),
    Bad(PRESET, "cannot read the preset mine.toml: Exceeds the limit", {"mine.toml": "x = " + 5000 * "9"}),
    Bad(PRESET, "did you mean recipe?", {"mine.toml": swap("[recipe]", "[reciepe]")}),
    Bad(PRESET, "each other's base; drop one", {"mine.toml": swap('"digits"', '"./mine.toml"')}),
    Bad(PRESET, "methods.*Input should be a valid", {"mine.toml": swap('["pgu"]', "5")}),
    Bad(PRESET, "--seeds must be a whole number from 0", {"mine.toml": swap("seeds = 2", 'seeds = [0, "x"]')}),
    Bad(PRESET, "--time-limit must be a number", {"mine.toml": swap("seeds = 2", "time_limit = true")}),
    Bad(PRESET, "recipe.epochs: .*valid integer", {"mine.toml": swap("epochs = 3", 'epochs = "many"')}),
    Bad(PRESET, "unknown scenario 'nope'", {"mine.toml": swap("[scenario.sample_removal]", "[scenario.nope]")}),
    Bad(PRESET, "unknown method 'pgx'; did you mean pgu?", {"mine.toml": swap("[method.pgu]", "[method.pgx]")}),
    Bad(PRESET, "unknown attack 'los'; did you mean loss?", {"mine.toml": swap("[method.pgu]", "[attack.los]")}),
    Bad(PRESET, "is a part of itself; drop it", {"mine.toml": "[[part]]\nname='a'\npreset='./mine.toml'"}),
    Bad(TUNED, "provenance.trials: .*valid integer", {"tuned.toml": swap("trials = 4\n", "trials = 'x'\n")}),
    Bad(TUNED, "provenance.commit: Field required", {"tuned.toml": swap('commit = "none"\n', "")}),
    Bad(TUNED, "unknown field of scenario 'nope'", {"tuned.toml": swap("draw_seed = 1", "nope = 1")}),
    Bad("--recipe recipe.toml", "recipe.epochs: Field required", {"recipe.toml": swap("epochs = 3", "")}),
]
REQUESTS = [
    Bad(AUDIT, "cannot read the request forget.json: Expecting value", {"forget.json": ""}),
    Bad(AUDIT, r'must be \{"forget": \[12, 7\]\} or \{"removed_classes": \[3\]\}', {"forget.json": '{"nope": [1]}'}),
    Bad(AUDIT, "must be a list of whole numbers from 0, and not empty", {"forget.json": '{"forget": [1.5]}'}),
    Bad(AUDIT, "has 1 numbers twice; list each once", {"forget.json": '{"forget": [1, 1]}'}),
    Bad(AUDIT, "there is no training sample 99999: .* 0 to 599", {"forget.json": '{"forget": [99999]}'}),
    Bad(AUDIT, "cannot read the request forget.json: maximum recursion", {"forget.json": 100_000 * "["}),
    Bad(AUDIT, "cannot read the request forget.json: No such file", {"forget.json": None}),
    Bad(f"{AUDIT} --set scenario.count=3", "the request says what must go; leave --set scenario.count=3 out"),
    Bad(f"{AUDIT} --name reference", "the name 'reference' of the row is taken; give it another with --name"),
]
WEIGHTS = [
    Bad(AUDIT, "not a whole safetensors file .*; save them with", {"one.safetensors": first(1000)}),
    Bad(AUDIT, "not a whole safetensors file", {"one.safetensors": lambda old: struct.pack("<Q", 1 << 60) + old[8:]}),
    Bad(AUDIT, "0.weight is missing; give the architecture", {"one.safetensors": weights("0.weight", None)}),
    Bad(AUDIT, "extra is not among its weights", {"one.safetensors": weights("extra", torch.zeros(1))}),
    Bad(AUDIT, r"0.weight has the shape \[3, 3\], not", {"one.safetensors": weights("0.weight", torch.zeros(3, 3))}),
    Bad(AUDIT, "int64, not torch.float32", {"one.safetensors": weights("12.bias", torch.zeros(10, dtype=torch.int64))}),
    Bad(f"{AUDIT} --architecture allcnn", "do not fit allcnn: .*; give the architecture that they were trained with"),
    Bad(f"{AUDIT} --model one.safetensors", "are the same file: one model is not two; give it once"),
    Bad(AUDIT, "cannot read the weights one.safetensors: No such file", {"one.safetensors": None}),
]  # fmt: skip
CIFAR, TINYIMAGENET = "--dataset cifar10 --data-dir cifar", "--dataset tinyimagenet --data-dir tiny"
OWN = "--dataset folder --data-dir own"
DATA = [
    Bad("--dataset cifar10", "CIFAR-10 is not in the folder data; get .* or add --download"),
    Bad(CIFAR, "data_batch_1 of CIFAR-10 has MD5 .*, published is .*; delete cifar/cifar-10-batches-py, get"),
    Bad(CIFAR, "cannot read CIFAR-10 in .*No such file.*; delete", {f"{BATCHES}/data_batch_1": None}),
    Bad(CIFAR, "has MD5 .*, published is", {BATCHES: None, "cifar/cifar-10-python.tar.gz": b"no archive"}),
    Bad(TINYIMAGENET, "no images in train/n99/images, a class that wnids.txt lists", {f"{TINY}/wnids.txt": "n99"}),
    Bad(TINYIMAGENET, "can't decode byte 0xff.*; delete", {f"{TINY}/words.txt": b"\xff"}),
    Bad(TINYIMAGENET, "val has 0 labeled images", {f"{TINY}/val/val_annotations.txt": ""}),
    Bad(TINYIMAGENET, "n00000001_3.JPEG is no image; delete", {PHOTO: b"no image"}),
    Bad(TINYIMAGENET, "n00000001_3.JPEG cannot be read", {PHOTO: first(300)}),
    Bad(TINYIMAGENET, "has 32 x 32 pixels, not 64 x 64", {PHOTO: picture(32, 32)}),
    Bad(TINYIMAGENET, "train has 10 images of n00000001, but 11 of other classes", {PHOTO: None}),
    Bad(TINYIMAGENET, "tiny-imagenet-200.zip has MD5", {TINY: None, f"{TINY}.zip": b"no archive"}),
    Bad("--dataset tinyimagenet+only=n99 --data-dir tiny", "there is no class n99, which .only= names"),
    Bad(OWN, "no folder own/train; --dataset folder --data-dir DIR takes DIR/train/CLASS", {"own/train": None}),
    Bad(OWN, "own has no folder 'test'; the layout is", {"own/test": None}),
    Bad(OWN, "train/cat/0.png is no image", {"own/train/cat/0.png": b""}),
    Bad(OWN, "train/cat/1.png cannot be read", {"own/train/cat/1.png": first(60)}),
    Bad(OWN, "has 9 x 8 pixels, but networks here take square images", {"own/train/cat/0.png": picture(9, 8)}),
    Bad(OWN, r"not 8 x 8 as .*; --dataset folder\+size=32 brings all", {"own/train/cat/1.png": picture(9, 9)}),
    Bad(OWN, "more than 8 bits a channel .*; convert it", {"own/train/cat/0.png": picture(8, 8, "I;16")}),
    Bad(OWN, "too large an image", {"own/train/cat/0.png": bomb()}),
    Bad(OWN, "own/test has a class 'bird' that own/train has no image of", {"own/test/bird/0.png": picture(8, 8)}),
    Bad(OWN, "cat/x is a folder; images lie directly in their class", {"own/train/cat/x/0.png": picture(8, 8)}),
    Bad(OWN, "images of 1 classes, at least 2 are needed", {"own/train/dog": None}),
    Bad(f"{OWN} --dataset folder+size=4", "must be a whole number from 8 to 512, got 4"),
    Bad("--dataset folder --data-dir mine.py", "no folder mine.py/train"),
]
RUN, CSV = "results/run.json", "results/records.csv"
AGAIN = r"\); run the same command again to rewrite it"
RESULTS = [
    Bad("report results", "results has no records.csv", {CSV: None}),
    Bad("report results", "records.csv is not a records file: its first line must be dataset,architecture", {CSV: ""}),
    Bad("report results", "cannot read results/records.csv: .*can't decode", {CSV: b"\xff\xfe"}),
    Bad("report results", "is truncated: its last line does not end; run the benchmark again", {CSV: first(5000)}),
    Bad("report results", "line 2 is damaged .*; run", {CSV: swap("retain,error,", "retain,error,x")}),
    Bad("report results", "first line must be", {CSV: swap("part,metric", "metric")}),
    Bad("report results", "run.json has no title" + AGAIN, {RUN: "{}"}),
    Bad("report results", "run.json is not a table", {RUN: "[]"}),
    Bad("report results", "incomplete or damaged .*No such file.*" + AGAIN, {RUN: None}),
    Bad("report results", "run.json, steps: .*valid integer.*" + AGAIN, {RUN: put("steps", value="1")}),
    Bad("report results", "run.json, methods.0.status: .*valid string", {RUN: put("methods", 0, "status", value=5)}),
    Bad("report results", "run.json, scenario: Input should be", {RUN: put("scenario", value="nope")}),
    Bad("report results", "run.json, audit.margin: .*valid number", {RUN: put("audit", "margin", value="wide")}),
    Bad("report results", "a class is above those of class_names", {RUN: put("forget_classes", value=[99])}),
    Bad("report results", r"records.csv has \d+ of 7 records", {RUN: put("records", value=7)}),
    Bad("report results", "incomplete or damaged", {"results/samples.npz": first(500)}),
    Bad("report results", "incomplete or damaged", {"results/samples.npz": b""}),
    Bad("leaderboard results", "incomplete or damaged .*" + AGAIN, {RUN: "{"}),
    Bad("store prune --keep results", "does not note its entries, .*; run its command again"),
    Bad("store prune --keep results", "incomplete or damaged", {RUN: first(900)}),
]
COMPARE = "compare results --baseline baseline.json"
BASELINES = [
    Bad(COMPARE, "is damaged .*; delete it and write it again with --update", {"baseline.json": ""}),
    Bad(COMPARE, "format 99 where 1 is known", {"baseline.json": put("format", value=99)}),
    Bad(COMPARE, "config is not a table", {"baseline.json": put("config", value=[])}),
    Bad(COMPARE, "is damaged", {"baseline.json": put("numbers", 0, "sd", value="wide")}),
    Bad(COMPARE, "a value, spread or size that cannot be", {"baseline.json": put("numbers", 0, "sd", value=-1)}),
    Bad(COMPARE, "is damaged", {"baseline.json": put("verdicts", value=[1])}),
    Bad(COMPARE, r"they differ in seed \(None, baseline 7\)", {"baseline.json": put("config", "seed", value=7)}),
    Bad(COMPARE, "is damaged", {"baseline.json": 100_000 * "["}),
]
MINE, UNLEARN = "--methods ./mine.py", "unlearn(self, model, data, ctx)"
DATASET = """from bench import registry
import dataclasses
def load():
    digits = registry.load("datasets", "digits")()
    return dataclasses.replace(digits, CHANGE)
"""
ATTACK = "from bench.attack import Attack\nclass A(Attack): ...\n"
STD, TEST = (DATASET.replace("CHANGE", text) for text in ("std=(0.0,)", "test_x=digits.test_x[:, :, :4]"))
FLAT = "from torch import nn\ndef build(channels, size, classes): return nn.Flatten()"
PLUG_INS = [
    Bad(MINE, "cannot load .*mine.py: SyntaxError", {"mine.py": swap("class Mine", "class Mine(")}),
    Bad(MINE, "must define exactly one subclass of Method; it defines none", {"mine.py": ""}),
    Bad(MINE, "cannot load .*mine.py: ModuleNotFoundError: No module named 'nope'", {"mine.py": "import nope"}),
    Bad(MINE, "cannot load .*mine.py: SystemExit", {"mine.py": "raise SystemExit(0)"}),
    Bad(MINE, r"cannot load .*mine.py", {"mine.py": b"\xff\xfe\0"}),
    Bad(MINE, r"it has no function unlearn\(self, model", {"mine.py": swap(UNLEARN, "forget(self, model)")}),
    Bad(MINE, r"unlearn must take \(self, model, data, ctx\)", {"mine.py": swap(UNLEARN, "unlearn(self, model)")}),
    Bad(MINE, "needs = 5: Input should be", {"mine.py": swap("Need.FORGET", "5")}),
    Bad(MINE, "its defaults: lr: Input should be a valid number", {"mine.py": swap("= 0.1", '= "fast"')}),
    Bad(MINE, "mine.lr: Field required", {"mine.py": swap(" = 0.1", "")}),
    Bad(f"tune {MINE}", "search = 5: .*valid dictionary", {"mine.py": swap("    lr:", "    search = 5\n    lr:")}),
    Bad(f"{MINE} --set mine.nope=1", "unknown field of mine 'nope'; known: lr"),
    Bad(f"{MINE},./more/mine.py", "two methods are called mine; rename", {"more/mine.py": good_inputs.METHOD}),
    Bad("check ./mine.py", "cannot load .*mine.py: SyntaxError", {"mine.py": "("}),
    Bad("--attacks ./odd.py", r"it has no function score\(", {"odd.py": ATTACK}),
    Bad("--dataset ./odd.py", "cannot be used: ZeroDivisionError", {"odd.py": "def load(): 1 / 0"}),
    Bad("--dataset ./odd.py", "defines no function `load`", {"odd.py": "load = 5"}),
    Bad("--dataset ./odd.py", "std must be above 0", {"odd.py": STD}),
    Bad("--dataset ./odd.py", "test_x must be of the same shape as train_x", {"odd.py": TEST}),
    Bad("--architecture ./odd_1.py", "TypeError: build.. takes 0 positional", {"odd_1.py": "def build(): ..."}),
    Bad("--architecture ./odd_2.py", r"outputs of shape \[2, 64\], not \[2, 10\]", {"odd_2.py": FLAT}),
]  # fmt: skip
EVERY = [*TYPED, *PRESETS, *REQUESTS, *WEIGHTS, *DATA, *RESULTS, *BASELINES, *PLUG_INS]
