"""What logic prints goes to its job; everybody else's text goes where it always went."""

from __future__ import annotations

import contextlib
import contextvars
import io
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routilux import output
from routilux.core.flow import Flow
from routilux.core.routine import Routine
from routilux.output import (
    RoutedStdout,
    clear_job_output,
    get_job_output,
    get_routed_stdout,
    install_routed_stdout,
    uninstall_routed_stdout,
)
from tests.support.inside import inside

FLOW = Flow("f")
FLOW.add_routine(Routine(), "r")


@contextlib.contextmanager
def installed(keep_default: bool = True) -> Iterator[tuple[RoutedStdout, io.StringIO]]:
    """The routed stdout, and the one in whose place it is."""
    real = io.StringIO()
    with contextlib.redirect_stdout(real):
        try:
            yield install_routed_stdout(keep_default), real
        finally:
            uninstall_routed_stdout()


def say(text: str, job_id: str | None = None, to: RoutedStdout | None = None) -> None:
    if job_id is None:
        print(text, end="", file=to)
        return
    with inside(FLOW, "r", job_id=job_id):
        print(text, end="", file=to)


def test_text_of_logic_goes_to_its_job_only() -> None:
    with installed() as (_, real):
        say("one ", "a")
        say("other", "b")
        say("two", "a")
        assert get_job_output("a") == "one two"
        assert get_job_output("b") == "other"
    assert real.getvalue() == ""


def test_text_outside_logic_goes_to_the_real_stdout() -> None:
    with installed() as (routed, real):
        say("hello")
        assert routed.list_jobs() == []
    assert real.getvalue() == "hello"


def test_text_outside_logic_is_dropped_if_asked_for() -> None:
    with installed(keep_default=False) as (routed, real):
        say("hello")
        uninstall_routed_stdout()
        say("again")
        say(" and again", to=routed)
    assert real.getvalue() == "again and again"


def test_reading_step_by_step_takes_and_reading_all_does_not() -> None:
    with installed():
        say("one", "a")
        assert get_job_output("a") == "one"
        assert get_job_output("a") == ""
        say("two", "a")
        assert get_job_output("a", incremental=False) == "onetwo"
        assert get_job_output("a", incremental=False) == "onetwo"
        assert get_job_output("a") == "two"


def test_a_cleared_or_unknown_job_has_no_text() -> None:
    with installed() as (routed, _):
        say("one", "a")
        clear_job_output("a")
        clear_job_output("unknown")
        assert get_job_output("a") == ""
        assert get_job_output("a", incremental=False) == ""
        assert get_job_output("unknown") == ""
        assert routed.list_jobs() == []


def test_installing_twice_is_once_and_uninstalling_puts_the_real_one_back() -> None:
    with installed() as (routed, real):
        assert install_routed_stdout() is routed
        assert get_routed_stdout() is routed
        assert id(sys.stdout) == id(routed)
        uninstall_routed_stdout()
        uninstall_routed_stdout()
        assert sys.stdout is real
        assert get_routed_stdout() is None
        assert get_job_output("a") == ""


def test_who_holds_the_routed_stdout_after_it_is_uninstalled_writes_to_the_real_one() -> None:
    with installed() as (routed, real), contextlib.redirect_stdout(io.StringIO()) as wrapper:
        uninstall_routed_stdout()
        assert sys.stdout is wrapper
        say("late", "a", to=routed)
    assert real.getvalue() == "late"


@given(st.lists(st.text(max_size=8), max_size=12), st.integers(1, 10))
def test_the_end_of_a_long_text_is_kept(pieces: list[str], most: int) -> None:
    routed = RoutedStdout(io.StringIO(), max_buffer_chars=most)
    for piece in pieces:
        say(piece, "a", to=routed)
    whole = "".join(pieces)
    assert routed.get_buffer("a") == whole[-most:]
    assert "".join(routed.pop_chunks("a")) == whole[-most:]
    assert routed.pop_chunks("a") == []


def test_chunks_are_the_pieces_that_were_written() -> None:
    routed = RoutedStdout(io.StringIO())
    say("one", "a", to=routed)
    say("two", "a", to=routed)
    assert routed.pop_chunks("a") == ["one", "two"]


def test_of_many_jobs_those_that_wrote_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_JOBS", 2)
    routed = RoutedStdout(io.StringIO())
    for job_id in ("a", "b", "a", "c"):
        say("x", job_id, to=routed)
    assert routed.list_jobs() == ["a", "c"]


def test_the_counts_are_of_what_is_kept() -> None:
    routed = RoutedStdout(io.StringIO())
    say("abc", "a", to=routed)
    say("de", "a", to=routed)
    say("f", "b", to=routed)
    routed.pop_chunks("b")
    assert routed.get_stats() == {"job_count": 2, "total_queue_items": 2, "total_buffer_chars": 6}


def test_threads_that_write_at_once_lose_nothing() -> None:
    routed = RoutedStdout(io.StringIO())
    start = threading.Barrier(4)

    def write(job_id: str) -> None:
        start.wait()
        with inside(FLOW, "r", job_id=job_id):
            for _ in range(500):
                routed.write("x")

    threads = [
        threading.Thread(target=contextvars.Context().run, args=(write, job_id))
        for job_id in ("a", "a", "b", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (routed.get_buffer("a"), routed.get_buffer("b")) == ("x" * 1000, "x" * 1000)
    assert len(routed.pop_chunks("a")) == 1000


def test_it_behaves_as_a_stdout_does() -> None:
    class Utf16(io.StringIO):
        encoding = "utf-16"
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    stream = Utf16()
    routed = RoutedStdout(stream)
    assert routed.write("abc") == 3
    routed.writelines(["d", "e"])
    routed.flush()
    assert stream.getvalue() == "abcde"
    assert stream.flushed == 1
    assert (routed.encoding, routed.isatty(), routed.writable()) == ("utf-16", False, True)
    with pytest.raises(TypeError, match="must be str, not bytes"):
        routed.write(b"x")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        routed.nope


@pytest.mark.parametrize("most", [0, -1, True, 1.5])
def test_a_buffer_has_room_for_something(most: int) -> None:
    with pytest.raises(ValueError, match="max_buffer_chars"):
        RoutedStdout(io.StringIO(), max_buffer_chars=most)
