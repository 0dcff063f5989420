"""Where a result was made: versions, hardware and the benchmark's own commit; and whether torch can use a device."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import __version__, registry
from bench.interface import UsageError

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "xgboost-cpu", "xgboost", "safetensors", "matplotlib")


def require_device(device: str) -> None:
    """Raise UsageError, before any work, if torch cannot use the device."""
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises many kinds here
        reason = str(error).split("\n")[0].split(". ")[0][:150]
        raise UsageError(f"cannot use the device {device}: {reason}; --device cpu always works") from error


def memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not tell."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf


def versions() -> dict[str, str]:
    """Versions of Python, of the benchmark and of what its numbers depend on."""
    found = {"python": platform.python_version(), "benchmark": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> dict[str, Any]:
    """The processor, its cores, the system, and the GPU if the device is one."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    found = {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(terse=True), "device": device}
    if device.startswith("cuda") and "torch" in sys.modules:
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def commit() -> str:
    """The commit of the benchmark's own checkout, marked when files differ from it; empty outside a checkout."""
    if not (registry.ROOT / ".git").exists():  # git would look above, and find the project that it is installed in
        return ""
    try:
        command = ["git", "-C", str(registry.ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # nosec B603 # no shell
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
