"""Full disks, disks that can only be read, no memory, signals, clocks that jump: a run loses nothing by them."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import ROOT, TINY, Finished, FinishedRun, Place, hear, numbers

from bench import cli, housekeeping, records, refusals, whole
from bench.store import Store

pytestmark = pytest.mark.hard

Call = Callable[..., Finished]


@pytest.fixture
def copy(tiny: FinishedRun, tmp_path: Path) -> Place:
    """A place with the store of the finished run, and no results."""
    place = Place(tmp_path)
    shutil.copytree(tiny.store, place.store)
    return place


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """The command line in this process."""

    def here(*words: str) -> Finished:
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        code = cli.main(list(words))
        return Finished(code, *capfd.readouterr())

    return here


RUN = (*TINY, "--store", "store", "--out", "out")


def drop(place: Place, *kinds: str) -> None:
    """Have these kinds of entries made anew."""
    for kind in kinds:
        shutil.rmtree(place.store / kind)


def unfinished(folder: Path) -> list[Path]:
    """Files that are not whole, and claims."""
    return [path for path in folder.rglob("*") if path.is_file() and (path.name[0] == "." or "claims" in path.parts)]


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A disk of its own, of memory, at the folder; skips where one may not be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", *options, str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


TMPFS = ("-t", "tmpfs", "-o", "size=512k", "tmpfs")


@pytest.mark.slow
def test_a_full_disk_of_the_store_is_one_line_and_room_is_all_it_needs(
    tiny: FinishedRun, tmp_path: Path, call: Call
) -> None:
    place = Place(tmp_path)
    with mounted(place.store, *TMPFS):
        finished = call(*RUN, "--jobs", "1")
        assert finished.code == 2
        last = finished.err.splitlines()[-1]
        assert last == "error: cannot write to the store store: No space left on device; finished work is kept"
        assert "Traceback" not in finished.err and unfinished(place.store) == []
        assert housekeeping.verify(Store(place.store))[1] == 0
        made = place.entries()
        assert made
        remount(place.store, "size=64m")
        assert call(*RUN, "--jobs", "1").code == 0
        assert made.items() <= place.entries().items(), "finished work is not done again"
    assert numbers(place.out) == numbers(tiny.out)


@pytest.mark.slow
def test_a_full_disk_of_the_results_is_one_line(tiny: FinishedRun, copy: Place, call: Call) -> None:
    with mounted(copy.out, "-t", "tmpfs", "-o", "size=128k", "tmpfs"):
        finished = call(*RUN)
        assert finished.code == 2
        assert "error: cannot write the results into out: No space left on device; finished work is in" in finished.err
        assert "Traceback" not in finished.err and unfinished(copy.out) == []
        remount(copy.out, "size=64m")
        assert call(*RUN).code == 0
        assert numbers(copy.out) == numbers(tiny.out)


@pytest.mark.parametrize("name", ["store", "out"])
def test_a_folder_that_can_only_be_read_is_refused_before_any_work(copy: Place, call: Call, name: str) -> None:
    with mounted(copy.folder / "disk", *TMPFS):
        remount(copy.folder / "disk", "ro")
        finished = call(*TINY, "--store", "store", "--out", "out", f"--{name}", "disk")
        assert (finished.code, finished.out) == (2, "")
        assert finished.error.endswith(f"disk is not writable; choose another with --{name}")


def test_a_store_that_can_only_be_read_is_looked_after(copy: Place, call: Call, tmp_path: Path) -> None:
    entries = len(list(copy.store.rglob("*.safetensors")))
    with mounted(copy.store, "--bind", "-o", "ro", str(copy.store)):
        assert call("store", "size").code == 0
        assert call("store", "verify").out == f"{entries} entries read, 0 damaged\n"
        finished = call("store", "prune", "--keep", "1m")
        assert (
            finished.code == 0 or finished.error == "error: cannot remove from the store store: Read-only file system"
        )
        finished = call("store", "prune", "--keep", "nothing-old", "--dry-run")
        assert finished.code == 2


def test_a_damaged_entry_of_a_store_that_can_only_be_read_is_named(copy: Place, call: Call) -> None:
    path = next((copy.store / "model").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with mounted(copy.store, "--bind", "-o", "ro", str(copy.store)):
        finished = call("store", "verify")
    assert finished.code == 2
    assert f"{path.name} is damaged (" in finished.error
    assert finished.error.endswith("and cannot be moved aside: Read-only file system")


def test_a_report_of_results_that_can_only_be_read_is_refused(tiny: FinishedRun, tmp_path: Path, call: Call) -> None:
    shutil.copytree(tiny.out, tmp_path / "out")
    with mounted(tmp_path / "out", "--bind", "-o", "ro", str(tmp_path / "out")):
        finished = call("report", "out")
    assert finished.code == 2
    assert "Read-only file system" in finished.error or "not writable" in finished.error


WRITES = (("run", RUN), ("report", ("report", "out")), ("baseline", ("compare", "out", "--baseline", "b.json",
          "--update-baseline")), ("leaderboard", ("leaderboard", "out", "--out", "board")))  # fmt: skip


@pytest.mark.parametrize("words", [words for _, words in WRITES], ids=[name for name, _ in WRITES])
def test_every_file_is_written_whole_or_not_at_all(
    tiny: FinishedRun, copy: Place, call: Call, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Where no file can get its name, no command leaves a file behind, or changes one."""
    shutil.copytree(tiny.out, copy.out)
    drop(copy, "evaluation")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in copy.folder.rglob("*") if path.is_file()}

    before = contents()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        finished = call(*words)
    assert finished.code == 2
    assert "No space left on device" in finished.err and "Traceback" not in finished.err
    assert contents() == before


def test_no_room_for_the_table_on_the_screen_is_one_line(call: Call) -> None:
    with subprocess.Popen(
        [sys.executable, str(ROOT / "run_benchmark.py"), "list", "methods"],
        stdout=os.open("/dev/full", os.O_WRONLY), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        err = process.communicate()[1]
    assert process.returncode == 2
    assert err.startswith("error: cannot write or read: No space left on device") and len(err.splitlines()) == 1


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "later"),
    {
        "model": ("evaluation", "audit"),
        "prepared": ("unlearned", "evaluation"),
        "peak": (),
        "unlearned": ("evaluation",),
        "shadow": ("audit",),
        "attack": ("audit",),
        "evaluation": (),
        "audit": (),
    }.items(),
)
def test_a_flipped_bit_in_any_kind_of_entry_is_named_and_made_again(
    tiny: FinishedRun, copy: Place, call: Call, kind: str, later: tuple[str, ...]
) -> None:
    """What is made of the entry later is gone, or else it is not read."""
    path = min((copy.store / kind).rglob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    damage(path)
    drop(copy, *later)
    finished = call(*RUN)
    assert finished.code == 0, finished.err
    assert f"store: {path.name} is damaged (" in finished.err
    assert numbers(copy.out) == numbers(tiny.out)
    assert (copy.store / "damaged" / path.name).is_file() and path.is_file()
    assert housekeeping.verify(Store(copy.store))[1] == 0


@pytest.mark.slow
def test_a_clock_that_jumps_by_years_changes_no_number(
    tiny: FinishedRun, copy: Place, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(copy, "unlearned", "evaluation")
    jumps = iter(range(10**9))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + (-1) ** next(jumps) * 40 * 365 * 86_400.0)
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    finished = call(*RUN)
    assert finished.code == 0, finished.err
    assert numbers(copy.out) == numbers(tiny.out)
    spent = [r.value for r in records.load(copy.out).records if r.metric in records.TIMES]
    assert spent and all(0 <= value < 60 for value in spent), "measured by another clock"


def test_entries_of_the_future_are_kept_and_told_as_of_today(copy: Place, call: Call) -> None:
    later = time.time() + 5 * 365 * 86_400
    paths = list(copy.store.rglob("*.safetensors"))
    for path in paths:
        os.utime(path, (later, later))
    ages = [line.split("|")[4].strip() for line in call("store", "ls").out.splitlines()[2:]]
    assert set(ages) == {"0.0"}
    assert call("store", "prune", "--keep", "1m").out.startswith(f"removed 0 of {len(paths)} entries")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "out of memory; finished work"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "cannot write or read x: Read-only file system"),
        (RuntimeError("size mismatch"), ""),
        (FileNotFoundError(errno.ENOENT, "No such file"), ""),
    ],
)
def test_only_what_the_machine_refuses_is_one_line(error: OSError, line: str) -> None:
    assert refusals.reason(error).startswith(line) and bool(refusals.reason(error)) == bool(line)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_too_little_memory_for_training_is_one_line(run: Place, jobs: int) -> None:
    script = (
        "import resource, sys; from bench import cli, pool; train = pool._train\n"
        "def starved(*arguments):\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28,) * 2)\n"
        "    import torch; torch.zeros(2**29); train(*arguments)\n"
        "pool._train = starved; sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, *RUN, "--jobs", str(jobs)]
    done = subprocess.run(
        command, cwd=run.folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: out of memory; finished work is in the store")
    assert "Traceback" not in done.stderr


def wait_for_entry(place: Place, process: subprocess.Popen[str]) -> None:
    while not any(path.endswith(".safetensors") for path in place.entries()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def require_over(process: subprocess.Popen[str], limit: float = 60) -> tuple[str, str]:
    """What an ended command printed; none of its workers is left."""
    out, err = process.communicate(timeout=limit)
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return out, err
        time.sleep(0.05)
    pytest.fail("workers are left")


INTERRUPTED = "interrupted; finished work is in the store, the same command goes on from there"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "early", "SIGHUP", "twice", "SIGINT SIGTERM", "alone"])
def test_signals_end_a_run_in_one_line_with_nobody_left(run: Place, how: str) -> None:
    words = (*RUN, "--jobs", "2", "--set", "recipe.epochs=8")  # long enough to be met at work
    with run.start(*words) as process:
        if how == "early":
            time.sleep(0.7)  # while libraries load
        else:
            wait_for_entry(run, process)
        names = {"twice": ["SIGINT", "SIGINT"], "alone": ["SIGINT"], "early": ["SIGTERM"]}.get(how, how.split())
        for name in names:
            (os.kill if how == "alone" else os.killpg)(process.pid, getattr(signal, name))
        _, err = require_over(process)
    assert process.returncode == 130
    told = [line for line in err.splitlines() if not line.startswith("[")]
    # A closed terminal also ends a helper of joblib's, which joblib then misses: nobody reads that.
    assert (told if how != "SIGHUP" else told[-1:]) == [INTERRUPTED], err
    assert "Traceback" not in err
    assert housekeeping.verify(Store(run.store))[1] == 0


def test_a_second_signal_ends_what_does_not_end(tmp_path: Path) -> None:
    script = (
        "import sys, time; from bench import signals; signals.listen()\n"
        "print(flush=True)\n"
        "try:\n time.sleep(60)\nexcept KeyboardInterrupt:\n print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=hear,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for pause in (0.0, 0.7):
            process.stdout.readline()
            time.sleep(pause)
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "interrupted again: ended at once; finished work is in the store\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_heard_whatever_is_being_done(name: str) -> None:
    """Python ignores what is raised while an object is deleted; a block that is held is finished first."""
    script = (
        "import os, signal, time; from bench import signals; signals.listen()\n"
        f"def end(*_): os.kill(os.getpid(), signal.{name}); time.sleep(0.01)\n"
        "class Deleted: __del__ = end\n"
        "try:\n x = Deleted(); del x; time.sleep(30); print('never heard')\n"
        "except KeyboardInterrupt:\n print('heard', flush=True)\n"
        "signals.listen()\n"
        "try:\n with signals.held():\n  end(); print('held')\n print('not heard')\n"
        "except KeyboardInterrupt:\n print('heard')\n"
        "with signals.held(): print('once')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, preexec_fn=hear
    )
    assert (done.stdout.split(), done.stderr) == (["heard", "held", "heard", "once"], "")


def test_an_ignored_hangup_stays_ignored() -> None:
    script = (
        "import os, signal; from bench import signals; signal.signal(signal.SIGHUP, signal.SIG_IGN); signals.listen()\n"
        "os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-", "2>&1 | head -1", "| head -1", ">/dev/full"])
def test_a_run_needs_nobody_to_read_what_it_says(copy: Place, tiny: FinishedRun, closed: str) -> None:
    """Without a stream, its number must not go to a file that is then written to."""
    drop(copy, "evaluation")
    command = f"set -o pipefail; {sys.executable} {ROOT / 'run_benchmark.py'} {' '.join(RUN)} {closed}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=copy.folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert numbers(copy.out) == numbers(tiny.out)
    assert (copy.out / "report.html").is_file()
    assert housekeeping.verify(Store(copy.store))[1] == 0


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            whole.write_whole(tmp_path / "x", b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("victim", ["busy", "idle"])
def test_a_killed_worker_is_never_waited_for(tmp_path: Path, victim: str) -> None:
    """An idle worker dies with the lock of the queue of tasks, which the pool's own end waits for."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kill_worker.py"), victim, str(tmp_path / "busy")],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("a worker process was killed") and len(done.stderr.splitlines()) == 1
