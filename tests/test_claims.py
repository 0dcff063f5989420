"""Of several processes that want an entry one makes it, the others wait; nobody waits for the dead."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from command import TINY, Place, numbers

from bench import claims, cli, whole
from bench.store import Store, key

pytestmark = pytest.mark.hard

FORK = multiprocessing.get_context("fork")
KEYS = [key(number=number) for number in range(12)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def left(store: Store) -> list[str]:
    """The names of all files of a store that are no entries."""
    return [path.name for path in store.folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"]


def together(work: Callable[..., None], *arguments: Sequence[object]) -> None:
    """Call `work` with each of the arguments in a process of its own, all at once; none may fail."""
    begin = FORK.Barrier(len(arguments))
    processes = [FORK.Process(target=work, args=(begin, *one)) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_what_is_claimed_is_nobody_elses_until_it_is_given_back(store: Store) -> None:
    with claims.claimed(store, "model", KEYS[:3]) as mine, claims.claimed(store, "model", KEYS[:4]) as rest:
        assert (mine, rest) == (KEYS[:3], KEYS[3:4])
        with claims.claimed(store, "audit", KEYS[:1]) as other:
            assert other == KEYS[:1], "another kind of entry"
        store.put("model", KEYS[0], {}, {})
    with claims.claimed(store, "model", KEYS[:3]) as again:
        assert again == KEYS[1:3], "what is there needs not be made"
    assert left(store) == []


def test_an_entry_made_while_its_claim_was_taken_is_not_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = claims._take

    def slowly(held: object, path: Path) -> bool:
        store.put("model", KEYS[0], {}, {})
        return take(held, path)  # type: ignore[arg-type]

    monkeypatch.setattr(claims, "_take", slowly)
    with claims.claimed(store, "model", KEYS[:1]) as mine:
        assert mine == []


def test_many_processes_make_every_entry_once(store: Store) -> None:
    def work(begin: threading.Barrier, number: int) -> None:
        def make(keys: list[str]) -> str:
            for one in keys:
                with (store.folder / "made").open("a") as log:
                    log.write(f"{one} {number}\n")
                time.sleep(0.01)
                store.put("model", one, {"x": np.zeros(3)}, {})
            return ""

        groups = [KEYS[at : at + size] for size in (3, 4) for at in range(0, len(KEYS), size)]  # that overlap
        begin.wait()
        for wait in (False, True):
            for group in groups[number % 2 :: 2] + groups[(number + 1) % 2 :: 2]:
                claims.carry_out(store, "model", group, make, wait=wait)
        assert all(store.has("model", one) for one in KEYS)

    together(work, *((number,) for number in range(6)))
    made = [line.split()[0] for line in (store.folder / "made").read_text().splitlines()]
    assert sorted(made) == sorted(KEYS)
    assert left(store) == ["made"]


def test_the_claim_of_a_killed_process_is_free(store: Store) -> None:
    ready = FORK.Event()

    def die() -> None:
        with claims.claimed(store, "model", KEYS[:1]):
            ready.set()
            time.sleep(60)

    process = FORK.Process(target=die)
    process.start()
    assert ready.wait(30)
    assert claims.carry_out(store, "model", KEYS[:1], lambda _: pytest.fail("it is being made"), wait=False) is None
    threading.Timer(0.3, lambda: os.kill(process.pid or 0, signal.SIGKILL)).start()

    def make(keys: list[str]) -> str:
        store.put("model", keys[0], {}, {})
        return ""

    assert claims.carry_out(store, "model", KEYS[:1], make, wait=True) == "", "waits until the other one is dead"
    process.join()
    assert store.has("model", KEYS[0]) and left(store) == []


def test_who_waits_makes_what_the_other_failed_to_make(store: Store) -> None:
    with claims.claimed(store, "trial", KEYS[:1]):
        assert claims.carry_out(store, "trial", KEYS[:1], lambda _: "never", wait=False) is None
    assert claims.carry_out(store, "trial", KEYS[:1], lambda _: "failed: why", wait=True) == "failed: why"


def test_what_is_busy_comes_last_and_what_fails_is_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    claims._say.cache_clear()
    told: list[tuple[int, bool]] = []

    def carry(numbers: Sequence[int], wait: bool) -> list[str | None]:
        told.extend((number, wait) for number in numbers)
        return [None if number == 0 and not wait else f"reason {number}" for number in numbers]

    assert claims.share_out(carry, [0, 1, 2]) == ["reason 0", "reason 1", "reason 2"]
    assert told == [(0, False), (1, False), (2, False), (0, True)]
    assert claims.share_out(carry, [0]) == ["reason 0"]
    said = "another run is at work on this store: what it is making is waited for, not made twice\n"
    assert capsys.readouterr().err == said, "once"


def test_nothing_is_timed_while_another_process_times(store: Store) -> None:
    def work(begin: threading.Barrier) -> None:
        begin.wait()
        for _ in range(3):
            with claims.clock(store):
                handle = os.open(store.folder / "timing", os.O_CREAT | os.O_EXCL)  # fails if there were two
                time.sleep(0.02)
                os.close(handle)
                (store.folder / "timing").unlink()

    together(work, (), (), ())
    assert left(store) == []


def test_runs_on_one_machine_see_each_other_and_not_the_dead(store: Store) -> None:
    ready, over = FORK.Event(), FORK.Event()

    def run() -> None:
        with claims.at_work(store):
            ready.set()
            over.wait(30)

    with claims.at_work(store):
        assert not claims.others(store)
        process = FORK.Process(target=run)
        process.start()
        assert ready.wait(30)
        assert claims.others(store)
        process.kill()
        process.join()
        assert not claims.others(store)
    assert left(store) == []


def test_what_a_killed_run_left_of_its_claims_goes(store: Store) -> None:
    claims._path(store, "x").parent.mkdir()
    claims._path(store, f"model-{KEYS[0]}").touch()
    with claims.claimed(store, "model", KEYS[1:2]), claims.at_work(store):
        assert sorted(left(store))[0] == f"model-{KEYS[1]}" and len(left(store)) == 2
    assert left(store) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_where_no_claim_can_be_written_the_entry_is_left_to_say_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(claims, "_acquired", refuse)
    with claims.at_work(store), claims.clock(store), claims.claimed(store, "model", KEYS[:2]) as mine:
        assert mine == KEYS[:2] and not claims.others(store)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_store_without_locks_is_refused_in_one_line_and_nothing_is_left(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert cli.main([*TINY, "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]) == 2
    assert re.fullmatch("error: .*store is on a file system without locks.* --store.*\n", capsys.readouterr().err)
    assert list((tmp_path / "store" / "claims").iterdir()) == []


def test_a_run_is_known_by_the_exact_name_of_its_machine(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for other, seen in (("a-2", False), ("a", True)):
        monkeypatch.setattr(platform, "node", lambda other=other: other)
        with claims.at_work(store):
            monkeypatch.setattr(claims, "_token", lambda: "another")
            monkeypatch.setattr(platform, "node", lambda: "a")
            assert claims.others(store) == seen
            monkeypatch.undo()


def test_a_run_is_seen_though_another_that_tidies_up_held_its_claim(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, acquired = iter([False, False]), claims._acquired
    monkeypatch.setattr(claims, "_acquired", lambda lock: next(answers, True) and acquired(lock))
    with claims.at_work(store):
        assert claims._held(claims._own(store)), "the claim was waited for"


def test_what_a_killed_writer_left_goes_with_the_next_file_and_what_is_being_written_stays(tmp_path: Path) -> None:
    ready = FORK.Event()

    def write() -> None:
        whole._unfinished(tmp_path)
        ready.set()
        time.sleep(60)

    process = FORK.Process(target=write)
    process.start()
    assert ready.wait(30)
    whole.write_whole(tmp_path / "a", b"a")
    assert len(list(tmp_path.glob(".writing-*"))) == 1
    process.kill()
    process.join()
    whole.write_whole(tmp_path / "b", b"b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_writers_in_one_folder_never_take_each_other_for_dead(tmp_path: Path) -> None:
    def work(begin: threading.Barrier, number: int) -> None:
        begin.wait()
        for turn in range(150):
            whole.write_whole(tmp_path / f"{turn % 3}", bytes([number]) * 1000)

    together(work, *((number,) for number in range(4)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    assert all(len(set(path.read_bytes())) == 1 and path.stat().st_size == 1000 for path in tmp_path.iterdir())


SMALL = ("--set", "shadow.train=4", "--set", "shadow.validation=2", "--set", "recipe.epochs=3", "--seeds", "2",
         "--attacks", "per_example", "--store", "store", "--jobs", "2")  # fmt: skip
KEPT = (".safetensors", ".json")  # entries, and what stages took
ONCE = ("model", "prepared", "peak", "unlearned", "shadow", "views", "attack", "audit")


@pytest.mark.slow
@pytest.mark.parametrize("others", ["pgu", "scrub"])
def test_two_runs_at_once_make_everything_once(tmp_path: Path, others: str) -> None:
    """The same command twice, and two that share models."""
    logs = {"SURVIVAL_LOG": str(tmp_path / "log"), "PYTHONPATH": str(tmp_path)}
    (tmp_path / "sitecustomize.py").write_text(LOGS)
    place = Place(tmp_path, logs)
    words = [(*SMALL, "--methods", method, "--out", out) for method, out in (("pgu", "one"), (others, "two"))]
    processes = [place.start(*one) for one in words]
    told = [process.communicate(timeout=place.patience)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    made = (tmp_path / "log").read_text().splitlines()
    once = [line for line in made if line.endswith(".safetensors") and line.split("/")[-3] in ONCE]
    assert len(once) > 20 and sorted(once) == sorted(set(once))
    assert not [path for path in place.store.rglob("*") if path.is_file() and path.suffix not in KEPT]
    assert all("another run is" in line for line in told)
    for one, out in zip(words, ("one", "two"), strict=True):
        alone = Place(tmp_path / "alone" / out)
        alone.folder.mkdir(parents=True)
        assert alone.call(*one).code == 0
        assert numbers(tmp_path / out) == numbers(alone.folder / out)


LOGS = """import os
if "SURVIVAL_LOG" in os.environ:
    replace = os.replace
    def logged(name, path):
        replace(name, path)
        handle = os.open(os.environ["SURVIVAL_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{path}\\n".encode())
        os.close(handle)
    os.replace = logged
"""
