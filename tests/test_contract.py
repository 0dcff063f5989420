"""The contract tests hold for every registered method, and each of them catches the fault it is there for."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from bench import cli, contract, registry
from bench.probe import Probe

METHODS = registry.names("methods")


@functools.cache
def probe(name: str) -> Probe:
    with contract.double():
        return Probe(name, registry.load("methods", name))


@pytest.mark.parametrize("test", contract.TESTS, ids=lambda test: test.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_method_keeps_the_contract(name: str, test: object) -> None:
    result = contract.run_one(probe(name), test)  # type: ignore[arg-type]
    assert result.passed, result.message


HEADER = '''"""A method with a fault."""
import copy
import torch
from pydantic import Field
from bench.interface import Method, Need, Unlearned

class Faulty(Method):
    """A method with a fault."""
    needs = Need.RETAIN
    lr: float = Field(default=0.01, description="step size")
    epochs: int = Field(default=1, description="passes")
'''
STEP = """
    def train(self, student, moved, data, ctx):
        student.train()
        for _ in range(self.epochs):
            for x, y in data.retain.batches(16, ctx.generator):
                loss = torch.nn.functional.cross_entropy(student(x), y)
                loss.backward()
                with torch.no_grad():
                    for p in moved.parameters():
                        if p.grad is not None:
                            p -= self.lr * p.grad
                            p.grad = None
        return student.eval()
"""
# What a published implementation or a careless author does, and the contract test that must catch it.
FAULTS = {
    "optimizer built on the teacher": (
        "changes_weights",
        "    def unlearn(self, model, data, ctx):\n        return self.train(model, copy.deepcopy(model), data, ctx)\n",
    ),
    "reads the forget set undeclared": (
        "reads_what_it_declares",
        "    def unlearn(self, model, data, ctx):\n"
        "        next(data.forget.batches(4))\n        return self.train(model, model, data, ctx)\n",
    ),
    "swallows the refusal": (
        "reads_what_it_declares",
        "    def unlearn(self, model, data, ctx):\n        try:\n            data.forget\n"
        "        except Exception:\n            pass\n        return self.train(model, model, data, ctx)\n",
    ),
    "never reads what it declares": (
        "reads_what_it_declares",
        "    def unlearn(self, model, data, ctx):\n        with torch.no_grad():\n"
        "            next(model.parameters()).add_(1.0)\n        return model\n",
    ),
    "draws from a generator of its own": (
        "repeats_itself",
        "    def unlearn(self, model, data, ctx):\n        own = torch.Generator()\n        own.seed()\n"
        "        with torch.no_grad():\n            for p in model.parameters():\n"
        "                p.add_(torch.randn(p.shape, generator=own) * 0.1)\n"
        "        return self.train(model, model, data, ctx)\n",
    ),
    "leaves a hook": (
        "leaves_no_trace",
        "    def unlearn(self, model, data, ctx):\n        model[0].register_forward_hook(lambda *a: None)\n"
        "        return self.train(model, model, data, ctx)\n",
    ),
    "leaves weights frozen": (
        "leaves_no_trace",
        "    def unlearn(self, model, data, ctx):\n        model = self.train(model, model, data, ctx)\n"
        "        return model.requires_grad_(False)\n",
    ),
    "diverges": (
        "outputs_are_finite",
        "    def unlearn(self, model, data, ctx):\n        self.train(model, model, data, ctx)\n"
        "        with torch.no_grad():\n            next(model.parameters()).fill_(float('nan'))\n        return model\n",
    ),
    "drops the head's rows": (
        "outputs_are_finite",
        "    def unlearn(self, model, data, ctx):\n        self.train(model, model, data, ctx)\n"
        "        model[-1].weight = torch.nn.Parameter(model[-1].weight[:2])\n"
        "        model[-1].bias = torch.nn.Parameter(model[-1].bias[:2])\n        return model\n",
    ),
    "moves statistics with a zero budget": (
        "zero_budget_is_identity",
        "    def unlearn(self, model, data, ctx):\n        model.train()\n        with torch.no_grad():\n"
        "            model(next(data.retain.batches(16))[0])\n        return self.train(model, model, data, ctx)\n",
    ),
    "knows class 0 by its number": (
        "knows_no_class_by_number",
        "    def unlearn(self, model, data, ctx):\n        with torch.no_grad():\n            model[-1].bias[0] += 1.0\n"
        "        return self.train(model, model, data, ctx)\n",
    ),
    **{
        f"takes class {c} for another": (
            "knows_no_class_by_number",
            "    def unlearn(self, model, data, ctx):\n        for x, y in data.retain.batches(16):\n"
            f"            y = torch.where(y == {c}, {(c + 5) % 10}, y)\n"
            "            torch.nn.functional.cross_entropy(model(x), y).backward()\n"
            "        with torch.no_grad():\n            for p in model.parameters():\n"
            "                p -= self.lr * p.grad\n                p.grad = None\n        return model\n",
        )
        for c in (0, 4, 5, 8, 9)
    },
    **{
        f"does nothing where class {c} goes": (
            "knows_no_class_by_number",
            f"    def unlearn(self, model, data, ctx):\n        if {c} in ctx.removed_classes:\n            return model\n"
            "        return self.train(model, model, data, ctx)\n",
        )
        for c in (0, 9)
    },
    "moves BatchNorm against its word": (
        "treats_batch_norm_as_declared",
        "    batch_norm = 'eval'\n"
        "    def unlearn(self, model, data, ctx):\n        return self.train(model, model, data, ctx)\n",
    ),
    "crashes in class removal": (
        "serves_every_scenario",
        "    def unlearn(self, model, data, ctx):\n        assert not ctx.removed_classes, 'not here'\n"
        "        return self.train(model, model, data, ctx)\n",
    ),
    "has a hyper-parameter nobody explains": (
        "declares_itself",
        "    secret: int = 3\n"
        "    def unlearn(self, model, data, ctx):\n        return self.train(model, model, data, ctx)\n",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_caught(fault: str, tmp_path: Path) -> None:
    expected, body = FAULTS[fault]
    path = tmp_path / "faulty.py"
    path.write_text(HEADER + STEP + body)
    with contract.double():
        faulty = Probe("faulty", registry.load("methods", str(path)))
    result = contract.run_one(faulty, getattr(contract, expected))
    assert not result.passed, f"{expected} let a method pass that {fault}"
    assert result.message


def test_faultless_method_passes(tmp_path: Path) -> None:
    path = tmp_path / "sound.py"
    path.write_text(
        HEADER + STEP + "    def unlearn(self, model, data, ctx):\n        return self.train(model, model, data, ctx)\n"
    )
    failed = [r.line() for r in contract.check("sound", registry.load("methods", str(path))) if not r.passed]
    assert not failed


BUDGETS = {
    "no field": ("", "budget names 'epochs', which is no field; set budget = None if nothing turns the method off"),
    "not 0": (
        '    epochs: int = Field(default=1, ge=1, description="passes")\n',
        "budget names 'epochs', which cannot be 0: faulty.epochs: Input should be greater than or equal to 1, got 0",
    ),
}


@pytest.mark.parametrize("fault", BUDGETS)
def test_a_budget_that_cannot_be_set_to_0_is_told_in_a_line(fault: str, tmp_path: Path) -> None:
    field, told = BUDGETS[fault]
    path = tmp_path / "faulty.py"
    body = "    def unlearn(self, model, data, ctx):\n        return self.train(model, model, data, ctx)\n"
    path.write_text(HEADER[: HEADER.index("    epochs")] + field + STEP.replace("self.epochs", "1") + body)
    results = contract.check("faulty", registry.load("methods", str(path)))
    assert {r.test: r.message for r in results}["zero budget is identity"] == told


def test_check_names_the_method_and_the_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "peeking.py"
    path.write_text(
        HEADER.replace("Need.RETAIN", "Need.FORGET")
        + STEP
        + "    def unlearn(self, model, data, ctx):\n        next(data.forget.batches(4))\n"
        "        return self.train(model, model, data, ctx)\n"
    )
    assert cli.main(["check", str(path)]) == 1
    assert "method peeking reads retain data but does not declare Need.RETAIN" in capsys.readouterr().out
