"""Runs logic: the activations of a run one after another, each seeing what the one before left.

Outcomes go to the engine one by one. Nothing is visible to others before the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

from routilux.core import context, payload
from routilux.core.activation import ActivationContext, Readers, slot_data
from routilux.core.message import Activation, Message
from routilux.core.outcome import Outcome, text_of
from routilux.core.policies import evaluate
from routilux.core.run import Run
from routilux.core.run_overlay import Overlay, Scope
from routilux.core.selection import may_run, newest
from routilux.core.slot import SlotDataPoint
from routilux.core.worker_state import WorkerState
from routilux.engine.clock import Clock
from routilux.engine.facts import Facts
from routilux.engine.inputs import Input, RunEnded
from routilux.errors import PolicyError

RUN_SECONDS = 0.05  # a run ends here, so that other routines get their turn


class Performer:
    """Runs activations; the same for every executor. `report` puts an input on the engine's queue."""

    def __init__(
        self,
        clock: Clock,
        report: Callable[[Input], None],
        readers: Callable[[Run], Readers],
        facts: Facts,
    ) -> None:
        self._clock = clock
        self._report = report
        self._readers = readers
        self._facts = facts
        self._warned: set[str] = set()

    def perform(self, run: Run) -> None:
        """Run its activations in this thread until they end, or the engine or the time asks to stop."""
        with closing(self._activations_of(run)) as begun:
            for around in begun:
                self._report(self._run_one(run, around))

    async def perform_async(self, run: Run) -> None:
        """The same for `async def` logic, as a task of the runtime's loop."""
        with closing(self._activations_of(run)) as begun:
            for around in begun:
                self._report(await self._run_one_async(run, around))

    def broke_off(self, run: Run, error: BaseException) -> None:
        """An executor met an error outside logic."""
        self._facts.report("run.failed", routine_id=run.cell.routine_id, error=error)

    def _activations_of(self, run: Run) -> Generator[ActivationContext]:
        """Each activation as it begins.

        At the end, or if this is closed, the run is given back to the engine.
        """
        try:
            overlay = Overlay(_committed(run))
            readers = self._readers(run)
            now = self._clock.monotonic()
            until = now + RUN_SECONDS
            for activation in self._chosen(run, overlay, readers):
                if run.should_stop:  # perhaps before it began: its worker was paused or taken
                    break
                run.begin(activation, now)
                yield self._begin(run, activation, overlay, readers)
                now = self._clock.monotonic()
                if now > until:
                    break
        finally:
            self._report(RunEnded(run))

    def _chosen(self, run: Run, overlay: Overlay, readers: Readers) -> list[Activation]:
        if not run.is_ask:
            return list(run.activations)
        asked = self._ask(run, overlay, readers)
        return [] if asked is None else [asked]

    def _ask(self, run: Run, overlay: Overlay, readers: Readers) -> Activation | None:
        """Ask a user's policy.

        Returns None if it declines, or fails: that is the failure of what it was shown.
        """
        messages = {m.seq: m for items in run.snapshot.values() for m in items if may_run(m.job)}
        if not messages:
            return None
        shown = Activation(list(messages.values()), newest(list(messages.values())))
        probe = _context(run, Outcome(shown, 0), overlay, readers)
        try:
            return _asked(run, messages, probe.worker_state)
        except BaseException as error:  # the user's policy: its failure is data, like that of logic
            now = self._clock.now_us()
            outcome = Outcome(shown, now, now, run)
            outcome.fail(_as_policy_error(run, error))
            self._report(outcome)
            return None

    def _begin(
        self, run: Run, activation: Activation, overlay: Overlay, readers: Readers
    ) -> ActivationContext:
        overlay.begin()
        return _context(run, Outcome(activation, self._clock.now_us(), run=run), overlay, readers)

    def _run_one(self, run: Run, around: ActivationContext) -> Outcome:
        compiled, outcome = run.cell.compiled, around.outcome
        activation = outcome.activation
        token = context.current.set(around)
        try:
            assert compiled.call is not None
            returned = compiled.call(
                slot_data(compiled, activation), activation.policy_message, around.worker_state
            )
            if returned is not None:
                self._warn_returned(run)
        # the one place where a user's exception is caught; it would end the thread
        except BaseException as error:
            around.fail(error)
        finally:
            context.current.reset(token)
        outcome.ended_at = self._clock.now_us()
        return outcome

    async def _run_one_async(self, run: Run, around: ActivationContext) -> Outcome:
        compiled, outcome = run.cell.compiled, around.outcome
        activation = outcome.activation
        token = context.current.set(around)
        try:
            assert compiled.call is not None
            await compiled.call(
                slot_data(compiled, activation), activation.policy_message, around.worker_state
            )
        except GeneratorExit:  # the loop is closed
            raise
        except BaseException as error:  # a SystemExit would end the loop of all
            around.fail(error)
        finally:
            context.current.reset(token)
        outcome.ended_at = self._clock.now_us()
        return outcome

    def _warn_returned(self, run: Run) -> None:
        """Once per routine: what logic returns is ignored."""
        routine = run.cell.routine_id
        if routine not in self._warned:
            self._warned.add(routine)
            self._facts.report("logic.returned_value", routine_id=routine)


def _committed(run: Run) -> Callable[[Scope], dict[str, str] | None]:
    worker = run.cell.worker

    def read(scope: Scope) -> dict[str, str] | None:
        kind, name = scope
        if kind == "state":
            return worker.state.get(str(name))
        assert run.running is not None
        return run.running[0].job.data  # logic reaches no other job

    return read


def _context(run: Run, outcome: Outcome, overlay: Overlay, readers: Readers) -> ActivationContext:
    worker = run.cell.worker
    return ActivationContext(run.cell.compiled, worker.flow_name, worker.worker_id, outcome, overlay, readers)


def _asked(run: Run, messages: dict[int, Message], worker_state: WorkerState) -> Activation | None:
    """Show the policy these messages. Returns the activation it chose, or None if it declined."""
    compiled = run.cell.compiled
    assert compiled.policy is not None
    slots = {name: spec.view(_points(run, name, messages)) for name, spec in compiled.slots.items()}
    chosen = evaluate(compiled.policy, slots, worker_state)
    if chosen is None:
        return None
    seqs, reason = chosen
    taken = [messages[seq] for seq in dict.fromkeys(seqs) if seq in messages]
    if not taken:
        raise PolicyError(
            f"the policy of routine {run.cell.routine_id!r} consumed only what it was not shown"
        )
    text = payload.encode(reason, root="policy_message")
    return Activation(taken, newest(taken), 1, reason, reason_text=text)


def _points(run: Run, slot: str, messages: dict[int, Message]) -> list[SlotDataPoint]:
    return [
        SlotDataPoint(data=payload.decode(m.payload), emitted_at=m.created_at / 1e6, seq=m.seq)
        for m in run.snapshot[slot]
        if m.seq in messages
    ]


def _as_policy_error(run: Run, error: BaseException) -> PolicyError:
    if isinstance(error, PolicyError):
        return error
    return PolicyError(
        f"the policy of routine {run.cell.routine_id!r} raised {type(error).__name__}: {text_of(error)}"
    )
