"""Runs on other processes: loky, real Dask and Ray clusters, workers that die, differ from this, or share nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from command import ROOT, TINY, FinishedRun, Place, hear, numbers

from bench import cli, cluster, engines, parcel, signals
from bench.interface import UsageError
from bench.store import Damaged, Store

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def not_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test before, in this process, may have been interrupted."""
    monkeypatch.setattr(signals, "_first", [])


@dataclasses.dataclass
class Dask:
    """A scheduler and its workers, each a process of its own, as on machines of their own."""

    folder: Path
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    def start(self, *words: str, package: Path = ROOT) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
        environment.pop("UNLEARNING_DATA", None)
        with (self.folder / "log").open("ab") as log:
            where = {"cwd": self.folder, "env": environment, "stdout": log, "stderr": log, "start_new_session": True}
            process = subprocess.Popen([BIN / "dask", *words], **where)
        self.processes.append(process)
        return process

    def worker(self, *words: str, package: Path = ROOT) -> subprocess.Popen[bytes]:
        """One that nobody restarts, but with other `words`."""
        how = ("--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder), *(words or ("--no-nanny",)))
        return self.start("worker", self.address, *how, package=package)

    def await_workers(self, count: int) -> None:
        import distributed

        with distributed.Client(self.address) as client:
            client.wait_for_workers(count, timeout=60)


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    """A scheduler without workers."""
    folder = tmp_path / "dask"
    folder.mkdir()
    found = Dask(folder)
    told = folder / "scheduler.json"
    found.start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(told))
    for _ in range(600):
        if told.exists() and told.stat().st_size:
            break
        time.sleep(0.1)
    found.address = json.loads(told.read_text())["address"]
    yield found
    for process in found.processes:
        with contextlib.suppress(ProcessLookupError):  # killed by the test
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def same(run: Place, tiny: FinishedRun) -> bool:
    """Whether all numbers but times are those of the run on forked processes, bit by bit."""
    return numbers(run.out) == numbers(tiny.out)


def when(reached: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do something, beside the test, as soon as something is so."""

    def wait() -> None:
        while not reached():
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.hard
def test_processes_that_start_anew_make_the_same_numbers(run: Place, tiny: FinishedRun) -> None:
    finished = run.benchmark(*TINY, "--backend", "loky", jobs=2)
    assert finished.code == 0, finished.err
    assert "on 2 processes of loky, which share the store" in finished.err
    assert same(run, tiny)


@pytest.mark.slow
@pytest.mark.hard
def test_dask_workers_make_the_same_numbers_though_one_is_killed(run: Place, tiny: FinishedRun, dask: Dask) -> None:
    dask.worker(), dask.worker()
    dask.await_workers(2)
    killing = when(lambda: len(run.entries()) > 3, dask.processes[-1].kill)
    finished = run.benchmark(*TINY, "--backend", "dask", "--scheduler", dask.address)
    assert finished.code == 0, finished.err
    killing.join(1)
    assert dask.processes[-1].poll() == -signal.SIGKILL
    assert "on 2 processes of dask, which share the store" in finished.err
    assert same(run, tiny)
    assert json.loads((run.out / "run.json").read_text())["hardware"]["workers"] == "2 processes of dask"


@pytest.mark.slow
@pytest.mark.hard
def test_workers_that_share_no_store_send_the_same_numbers_back(
    run: Place, tiny: FinishedRun, dask: Dask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dask.worker(), dask.worker()
    dask.await_workers(2)
    real = cluster.terms_of
    elsewhere = str(run.folder / "not here")
    monkeypatch.setattr(cluster, "terms_of", lambda store: dataclasses.replace(real(store), folder=elsewhere))
    words = ("--store", str(run.store), "--out", str(run.out), "--backend", "dask", "--scheduler", dask.address)
    assert cli.main([*TINY, *words]) == 0
    assert "do not see the store: results are sent back" in capsys.readouterr().err
    assert not Path(elsewhere).exists()
    assert same(run, tiny)


@pytest.mark.slow
@pytest.mark.hard
def test_ray_makes_the_same_numbers_though_a_worker_is_killed(run: Place, tiny: FinishedRun) -> None:
    def actors() -> list[psutil.Process]:
        mine = psutil.Process().children(recursive=True)
        return [one for one in mine if any("PoolActor" in word for word in _words(one))]

    killing = when(lambda: len(run.entries()) > 3 and bool(actors()), lambda: actors()[0].kill())
    finished = run.benchmark(*TINY, "--backend", "ray", jobs=2)
    assert finished.code == 0, finished.err
    killing.join(1)
    assert "a worker died" in finished.err
    assert same(run, tiny)


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


@pytest.mark.slow
@pytest.mark.hard
def test_a_worker_with_other_code_is_refused_before_any_work(run: Place, dask: Dask, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("bench", "methods", "attacks"):
        shutil.copytree(ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "bench" / "loop.py").open("a") as file:
        file.write("\nSOMETHING = 1\n")
    dask.worker(), dask.worker(package=other)
    dask.await_workers(2)
    finished = run.benchmark(*TINY, "--backend", "dask", "--scheduler", dask.address)
    assert finished.code == 2
    assert "holds another version of this package" in finished.err.splitlines()[-1]
    assert "Traceback" not in finished.err
    assert not [name for name in run.entries() if name.endswith(".safetensors")]


@pytest.mark.slow
@pytest.mark.hard
def test_a_task_that_kills_every_worker_is_one_line_and_not_waited_for(
    run: Place, dask: Dask, plug_in: Callable[[str, str], str]
) -> None:
    method = plug_in("deadly.py", DEADLY)
    dask.worker("--nanny"), dask.worker("--nanny")
    dask.await_workers(2)
    words = (*TINY, "--methods", method, "--backend", "dask", "--scheduler", dask.address)
    finished = run.benchmark(*words)
    assert finished.code == 2
    assert "error: workers keep dying" in finished.err.splitlines()[-1]
    assert "Traceback" not in finished.err
    assert run.benchmark(*TINY).code == 0  # what was finished is of use


DEADLY = """
import os, sys, torch
from pathlib import Path
from bench.interface import Method, Need

class Deadly(Method):
    \"\"\"Kills the Dask worker that runs it.\"\"\"

    needs = Need.FORGET

    def unlearn(self, model, data, ctx):
        if Path(sys.argv[0]).name == "dask":
            os.kill(os.getpid(), 9)
        with torch.no_grad():
            list(model.parameters())[-1].add_(0.1)
        return model
"""


@pytest.mark.slow
@pytest.mark.hard
@pytest.mark.parametrize(
    ("backend", "name"),
    [("loky", "SIGINT"), ("loky", "SIGHUP"), ("dask", "SIGINT"), ("dask", "SIGTERM"), ("dask", "SIGHUP"),
     ("ray", "SIGINT"), ("ray", "SIGHUP")],
)  # fmt: skip
def test_a_signal_to_all_processes_is_one_line_with_nobody_left(run: Place, backend: str, name: str) -> None:
    words = (*TINY, "--store", "store", "--out", "out", "--jobs", "2", "--set", "recipe.epochs=40")
    with run.start(*words, "--backend", backend) as process:
        while not any(path.endswith(".safetensors") for path in run.entries()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, getattr(signal, name))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    first, *progress, last = err.splitlines()
    assert first.startswith(f"on 2 processes of {backend}")
    assert last == "interrupted; finished work is in the store, the same command goes on from there"
    assert [line for line in progress if not line.startswith("[")] == []
    assert psutil.wait_procs(workers, timeout=20)[1] == []


def test_only_the_command_itself_hears_a_signal_to_all_its_processes() -> None:
    script = (
        "import os, signal, subprocess, sys, time; from bench import signals; signals.listen()\n"
        "child = 'import sys; print(1, flush=True); sys.stdin.read(); print(\"lives\")'\n"
        "for name in ('SIGINT', 'SIGHUP'):\n"
        " signals.listen()\n"
        " with signals.kept_from_children():\n"
        "  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}\n"
        "  one = subprocess.Popen([sys.executable, '-c', child], **pipes); one.stdout.readline()\n"
        "  try: os.killpg(0, getattr(signal, name)); time.sleep(30)\n"
        "  except KeyboardInterrupt: print('heard', one.communicate()[0].strip())\n"
        "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(30)\n"
        "except KeyboardInterrupt: print('afterwards too')\n"
    ).replace("try: os.kill(", "signals.listen()\ntry: os.kill(")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, start_new_session=True,
        preexec_fn=hear, check=False,
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == (["heard lives", "heard lives", "afterwards too"], "")


def test_what_a_library_makes_of_sigterm_is_ctrl_c_and_ends_with_its_block() -> None:
    def end() -> None:
        with signals.kept_from_library():
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        end()
    assert signal.getsignal(signal.SIGTERM) is before


def some(broken: Callable[[], UsageError | None] = lambda: None, size: int = 2) -> cluster.Cluster:
    """A cluster that carries nothing out."""
    return cluster.Cluster("dask", size, cluster.Terms("", "", "", {}, ""), True, broken=broken)


def test_waiting_for_a_cluster_that_is_broken_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WATCH", 0.01)
    error = ModuleNotFoundError("No module named 'mine'")
    said = "cannot begin a task .ModuleNotFoundError: No module named 'mine'"
    with pytest.raises(UsageError, match=said) as caught, cluster._heard(some(lambda: engines._given_up(error))):
        time.sleep(30)
    assert caught.value.__cause__ is error


def test_nobody_is_interrupted_once_the_waiting_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WATCH", 0.01)
    asked, over, answered = threading.Event(), threading.Event(), threading.Event()

    def late() -> UsageError:
        asked.set()
        over.wait(10)
        answered.set()
        return cluster.died("too late")

    with cluster._heard(some(late)):
        assert asked.wait(10)
    over.set()
    assert answered.wait(10)
    time.sleep(0.2)  # an interrupt would come now


def test_an_interrupt_that_comes_with_the_end_of_the_waiting_is_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WATCH", 0.01)
    began, go, real = threading.Event(), threading.Event(), signals.interrupt

    def slowly() -> None:
        began.set()
        go.wait(10)
        real()

    monkeypatch.setattr(signals, "interrupt", slowly)

    def end() -> None:
        with cluster._heard(some(lambda: cluster.died("gone"))):
            assert began.wait(10)
            threading.Timer(0.2, go.set).start()

    with pytest.raises(UsageError, match="workers keep dying .gone"):
        end()


def test_a_user_who_interrupts_the_waiting_is_obeyed() -> None:
    with pytest.raises(KeyboardInterrupt), cluster._heard(some()):
        raise KeyboardInterrupt


def test_one_process_is_no_processes() -> None:
    assert some(size=1).line() == "on 1 process of dask, which share the store"
    assert some(size=2).hands() == "2 processes of dask"


def test_new_workers_do_not_ask_for_a_port_that_may_be_taken(recwarn: pytest.WarningsRecorder) -> None:
    distributed = pytest.importorskip("distributed")
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # it is taken already
            held.enter_context(socket.create_server(("127.0.0.1", 8787)))
        client = held.enter_context(engines._own_workers(distributed, 0))
        held.enter_context(client.cluster)
    assert [str(one.message) for one in recwarn if "Port" in str(one.message)] == []


def test_a_scheduler_that_never_says_a_word_is_one_line(
    run: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "SILENCE", 0.2)
    words = (*TINY, "--store", str(run.store), "--out", str(run.out))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for backend, scheduler in (("dask", f"tcp://{address}"), ("ray", address)):
            pytest.importorskip({"dask": "distributed"}.get(backend, backend))
            assert cli.main([*words, "--backend", backend, "--scheduler", scheduler]) == 2
            last = f"error: the scheduler at {scheduler} does not answer in 0.2 s; check --scheduler"
            assert capsys.readouterr().err.splitlines()[-1] == last


def test_where_nobody_listens_ray_is_not_waited_for(run: Place, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    words = (*TINY, "--store", str(run.store), "--out", str(run.out), "--backend", "ray")
    assert cli.main([*words, "--scheduler", "127.0.0.1:1"]) == 2
    assert "nobody answers at 127.0.0.1:1 (" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), None),
        (("--backend", "loky", "--jobs", "1"), "tasks go to 1 process of loky on this machine"),
        (("--backend", "dask", "--jobs", "3"), "tasks go to 3 processes of dask on this machine"),
        (
            ("--backend", "ray", "--scheduler", "head:1", "--jobs", "2"),
            "tasks go to the ray cluster at head:1, which is not asked now; the time is for 2 processes",
        ),
    ],
)
def test_a_plan_says_where_tasks_would_go_and_asks_nobody(
    words: tuple[str, ...], said: str | None, run: Place, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("distributed", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main([*TINY, "--dry-run", "--store", str(run.store), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("tasks go")] == ([said] if said else [])
    assert engines.foreseen("ray", "", 2, device="cuda", per_gpu=3).endswith(
        "3 processes of ray for every GPU of this machine"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scheduler", "tcp://127.0.0.1:1"), "--scheduler goes with --backend dask or ray"),
        (("--backend", "loky", "--scheduler", "x"), "--scheduler goes with --backend dask or ray"),
        (("--backend", "dask", "--scheduler", "nonsense://x"), "the scheduler at nonsense://x does not answer"),
        (("--backend", "dask", "--scheduler", "tcp://127.0.0.1:1"), "the scheduler at tcp://127.0.0.1:1 does not"),
        (("--per-gpu", "2"), "--per-gpu goes with --backend loky or ray, not with local"),
        (("--backend", "dask", "--per-gpu", "2"), "not with dask; start so many Dask workers for every GPU"),
        (("--backend", "loky", "--per-gpu", "2"), "but the device is cpu; add --device cuda"),
    ],
)
def test_a_scheduler_that_cannot_be_is_one_line(
    words: tuple[str, ...], said: str, run: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "WAIT", 1)
    assert cli.main([*TINY, "--store", str(run.store), "--out", str(run.out), *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_backend_that_is_not_installed_names_its_extra(
    run: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main([*TINY, "--store", str(run.store), "--out", str(run.out), "--backend", "ray"]) == 2
    assert "pip install 'unlearning-bench[ray]'" in capsys.readouterr().err


def test_a_parcel_holds_what_it_was_given_and_brings_back_what_was_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    weights = {"w": np.arange(3.0)}
    store.put("model", "a" * 24, weights, {"role": "original"})
    sent = parcel.Parcel.of(store, [("model", "a" * 24), ("prepared", "b" * 24)])
    arrived = pickle.loads(pickle.dumps(sent))
    assert arrived.has("model", "a" * 24) and not arrived.has("prepared", "b" * 24)
    assert np.array_equal(arrived.get("model", "a" * 24)[0]["w"], weights["w"])
    with pytest.raises(Damaged):
        arrived.get("prepared", "b" * 24)
    arrived.put("shadow", "c" * 24, weights, {"status": "ok"})
    assert list(arrived.made) == [("shadow", "c" * 24)]
    store.add("shadow", "c" * 24, arrived.made["shadow", "c" * 24])
    assert store.meta("shadow", "c" * 24) == {"status": "ok"}


def test_a_store_is_known_by_its_mark(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    mark = one.mark()
    assert one.marked(mark) and Store(tmp_path / "one").mark() == mark
    assert not other.marked(mark) and other.mark() != mark


@pytest.mark.parametrize(("number", "gpus", "placed"), [(1, 2, "1"), (2, 2, "0"), (7, 4, "3"), (3, 1, None)])
def test_processes_share_gpus_in_turn(
    number: int, gpus: int, placed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (cluster.PLACED, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(multiprocessing.current_process(), "_name", f"LokyProcess-{number}")
    cluster.place_on_gpu(gpus)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == placed


@pytest.mark.parametrize(
    ("given", "gpus", "number", "placed"),
    [
        ("2,GPU-8f", 2, 3, "GPU-8f"),
        ("2, 3", 2, 1, "3"),
        ("0,1,-1", 2, 2, "0"),  # CUDA sees those before the first that is none
        ("MIG-1/2/0,MIG-1/3/0", 2, 1, "MIG-1/3/0"),
        ("", 2, 1, ""),
        ("-1", 2, 1, "-1"),
        ("5", 1, 1, "5"),
    ],
)
def test_a_process_takes_no_gpu_that_was_not_given(
    given: str, gpus: int, number: int, placed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cluster.PLACED, "")
    monkeypatch.delenv(cluster.PLACED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(multiprocessing.current_process(), "_name", f"LokyProcess-{number}")
    cluster.place_on_gpu(gpus)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == placed


def test_a_gpu_in_use_before_its_process_is_given_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cluster.PLACED, "")
    monkeypatch.delenv(cluster.PLACED)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    with pytest.raises(UsageError, match="uses a GPU when it is imported"):
        cluster.place_on_gpu(2)
    assert cluster.PLACED not in os.environ


def test_a_task_has_the_surroundings_of_the_command_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARNING_DATA", "before")
    store, before = Store(tmp_path / "store"), os.getcwd()
    terms = dataclasses.replace(cluster.terms_of(store), environ={"UNLEARNING_DOWNLOAD": "1"}, cwd=str(tmp_path))
    seen, made = cluster.do(_surroundings, None, None, terms)
    assert seen == (str(tmp_path), None, "1") and made == {}
    assert (os.getcwd(), os.environ["UNLEARNING_DATA"]) == (before, "before")


def _surroundings(task: None, store: Store) -> tuple[str, str | None, str | None]:
    return os.getcwd(), os.environ.get("UNLEARNING_DATA"), os.environ.get("UNLEARNING_DOWNLOAD")


def test_a_worker_that_came_later_and_does_not_see_the_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    terms = dataclasses.replace(cluster.terms_of(store), folder=str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match="does not see the store .*elsewhere; make it like the others"):
        cluster.do(_surroundings, None, None, terms)
