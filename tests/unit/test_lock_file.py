"""The lock file between real processes: which process is alive, and which one may write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from routilux.errors import DatabaseReadOnlyError, DatabaseUnavailableError, ForkedRuntimeError, StateError
from routilux.store.backends.lock_file import LockFile

ROOT = Path(__file__).parents[2]

PRELUDE = """
import sys, os, time
from routilux.store.backends.lock_file import LockFile
lock = LockFile.of(sys.argv[1])
def say(word):
    print(word, flush=True)
def hear():
    return sys.stdin.readline().strip()
"""


@contextmanager
def process(script: str, database: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has the lock file as `lock`, and talks in lines."""
    child = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def hear(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def say(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdin is not None
    child.stdin.write(word + "\n")
    child.stdin.flush()


def in_child(action: object) -> int:
    """Exit status of a forked child: 0 if `action` returned True."""
    assert callable(action)
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if action() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def test_all_users_in_a_process_share_one_lock_file_object(file: Path) -> None:
    file.with_name("link.db").symlink_to(file)
    assert LockFile.of(file) is LockFile.of(str(file)) is LockFile.of(file.with_name("link.db"))
    assert (file.parent / "jobs.db-routilux-lock").exists()


def test_a_deleted_lock_file_is_made_anew(file: Path) -> None:
    first = LockFile.of(file)
    os.unlink(first.path)
    assert LockFile.of(file) is not first
    assert os.path.exists(first.path)


def test_a_lock_file_that_cannot_be_made_has_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError, match="cannot be opened"):
        LockFile.of(tmp_path / "nowhere" / "jobs.db")
    if os.geteuid() == 0:
        return  # root may write everywhere
    tmp_path.chmod(0o500)
    with pytest.raises(DatabaseReadOnlyError, match="cannot be written"):
        LockFile.of(tmp_path / "jobs.db")


def test_a_process_knows_its_own_runtimes(file: Path) -> None:
    lock = LockFile.of(file)
    assert not lock.is_alive(1)
    lock.hold_alive(1)
    assert lock.is_alive(1)
    lock.release_alive(1)
    lock.release_alive(1)
    assert not lock.is_alive(1)


def test_a_killed_process_is_dead_at_once(file: Path) -> None:
    lock = LockFile.of(file)
    with process("lock.hold_alive(7); say('held'); hear()", file) as child:
        assert hear(child) == "held"
        assert lock.is_alive(7)
        assert not lock.is_alive(8)
        child.kill()
        child.wait()
        assert not lock.is_alive(7)


def test_a_stopped_process_is_alive(file: Path) -> None:
    lock = LockFile.of(file)
    with process("lock.hold_alive(7); say('held'); hear()", file) as child:
        assert hear(child) == "held"
        child.send_signal(signal.SIGSTOP)
        assert lock.is_alive(7)


def test_a_forked_child_does_not_keep_its_dead_parent_alive(file: Path) -> None:
    script = """
lock.hold_alive(7)
if os.fork() == 0:
    hear()
    os._exit(0)
say('held')
time.sleep(600)
"""
    lock = LockFile.of(file)
    with process(script, file) as child:
        assert hear(child) == "held"
        assert lock.is_alive(7)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not lock.is_alive(7)
        say(child, "end")  # the grandchild still reads


def test_probes_and_other_users_of_the_process_leave_a_held_sign_alone(file: Path) -> None:
    lock = LockFile.of(file)
    lock.hold_alive(3)
    lock.hold_alive(5)
    assert lock.is_alone()
    LockFile.of(file)
    assert not lock.is_alive(4)
    script = "say(str([lock.is_alive(k) for k in (2, 3, 4, 5, 6)]) + str(lock.is_alone()))"
    with process(script, file) as child:
        assert hear(child) == "[False, True, False, True, False]False"
    lock.release_alive(3)
    lock.release_alive(5)


def test_a_process_is_not_alone_beside_another(file: Path) -> None:
    lock = LockFile.of(file)
    with process("lock.hold_alive(9); say('held'); hear()", file) as child:
        assert hear(child) == "held"
        assert not lock.is_alone()
    assert lock.is_alone()


def test_a_turn_is_had_by_one_process_at_a_time(file: Path) -> None:
    lock = LockFile.of(file)
    with process(
        "lock.take_turn(); say('mine'); hear(); lock.give_turn(); say('yours'); hear()", file
    ) as child:
        assert hear(child) == "mine"
        with pytest.raises(DatabaseUnavailableError, match="another process"), lock.turn(0.02):
            pass
        say(child, "give")
        assert hear(child) == "yours"
        with lock.turn(5.0):
            pass


def test_a_killed_process_gives_its_turn_back(file: Path) -> None:
    lock = LockFile.of(file)
    with process("lock.take_turn(); say('mine'); hear()", file) as child:
        assert hear(child) == "mine"
        child.kill()
        child.wait()
        with lock.turn(0.0):
            pass


def test_a_turn_waits_no_longer_than_asked_for_a_thread(file: Path) -> None:
    lock = LockFile.of(file)
    errors: list[BaseException] = []

    def want() -> None:
        try:
            with lock.turn(0.02):
                pass
        except DatabaseUnavailableError as error:
            errors.append(error)

    with lock.turn():
        thread = threading.Thread(target=want)
        thread.start()
        thread.join()
    assert "a thread of this process" in str(errors[0])
    with lock.turn(0.0):
        pass


def test_a_thread_that_has_the_turn_is_told_instead_of_waiting_for_itself(file: Path) -> None:
    lock = LockFile.of(file)
    with lock.turn():
        assert lock.is_my_turn
        with pytest.raises(StateError, match="commit it first"), lock.turn():
            pass
    assert not lock.is_my_turn


def test_processes_that_write_all_the_time_share_the_turn(file: Path) -> None:
    """Each counts its turns while the other is at it as well; without a line one had a twentieth or less."""
    script = """
say('ready'); hear(); end = time.monotonic() + 1.0; n = 0
while time.monotonic() < end:
    with lock.turn():
        time.sleep(0.0005)
    n += 1
say(n)
"""
    with process(script, file) as one, process(script, file) as two, process(script, file) as three:
        children = (one, two, three)
        for child in children:
            assert hear(child) == "ready"
        for child in children:
            say(child, "go")
        counts = [int(hear(child)) for child in children]
    assert min(counts) * 4 > max(counts), counts


def test_a_waiting_thread_is_not_overtaken_by_one_that_writes_all_the_time(file: Path) -> None:
    lock = LockFile.of(file)
    counts = [0, 0]
    start = threading.Barrier(2)

    def loop(me: int) -> None:
        start.wait()
        while sum(counts) < 2_000:
            with lock.turn():
                counts[me] += 1

    threads = [threading.Thread(target=loop, args=(me,)) for me in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(counts) * 4 > max(counts), counts


def test_a_schema_change_excludes_other_processes(file: Path) -> None:
    lock = LockFile.of(file)
    script = "\nwith lock.upgrade(): say('mine'); hear()\nsay('done'); hear()"
    with process(script, file) as child:
        assert hear(child) == "mine"
        with pytest.raises(DatabaseUnavailableError), lock.upgrade(0.02):
            pass
        with lock.turn(1.0):  # the two are apart
            pass
        say(child, "give")
        assert hear(child) == "done"
        with lock.upgrade(1.0):
            pass


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_not_use_the_locks_of_its_parent(file: Path) -> None:
    lock = LockFile.of(file)

    def use() -> bool:
        for verb in (lock.take_turn, lambda: lock.hold_alive(1), lambda: lock.is_alive(1)):
            try:
                verb()
            except ForkedRuntimeError:
                continue
            return False
        return LockFile.of(file) is not lock

    assert in_child(use) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_give_back_the_turn_of_its_parent(file: Path) -> None:
    lock = LockFile.of(file)

    def use() -> bool:
        lock.give_turn()
        try:
            LockFile.of(file).take_turn(0.02)
        except DatabaseUnavailableError:
            return True
        return False

    with lock.turn():
        assert in_child(use) == 0
