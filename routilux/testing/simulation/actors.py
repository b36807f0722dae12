"""The clients and operators of a world. They post in the process of a runtime or outside of it."""

from __future__ import annotations

import json
from typing import Any

from routilux.engine.acceptance import NotOwned, fingerprint
from routilux.engine.commands import Command, command_of
from routilux.engine.inputs import CommandIn, Post, PostIn, Receipt
from routilux.errors import PostInDoubt
from routilux.runtime import inbox_writer
from routilux.runtime.validation import encode_payload
from routilux.store.errors import PASSING, classify
from routilux.testing.simulation.checks.dead_letters import Letter
from routilux.testing.simulation.process import Process
from routilux.testing.simulation.stage import Stage
from routilux.testing.simulation.tables import ENDED

DELAYS_S = (0, 0, 0, 0.5, 20, 4000)
PATIENCE_S = 10.0  # how long a post waits for room in a full slot
DIRECT = 0  # with this number a command goes to the owner directly
Body = dict[str, Any]
VERBS = ("cancel_job", "pause_job", "pause_job", "resume_job", "resume_job")


class Clients:
    """Steps are methods. The number that each takes decides its details."""

    def __init__(self, world: Stage) -> None:
        self._world = world
        self._sent_at_last: set[Letter] = set()
        self._once: dict[str, None] = {}  # jobs that are not posted again
        self._asked: list[tuple[Process, str, str, Receipt]] = []  # process, verb, job or worker, answer

    def post(self, number: int) -> None:
        """Post a new job, due now or later."""
        world = self._world
        count = len(world.model.posted)
        if count < world.scene.most_jobs:
            world.model.posted[f"j{count}"] = world.scene.data(count)
            self._send(f"j{count}", number, DELAYS_S[number // 5 % len(DELAYS_S)])

    def post_again(self, number: int) -> None:
        """Post a job again: a client is not sure that it was accepted."""
        if self._world.model.posted:
            job_id = list(self._world.model.posted)[number % len(self._world.model.posted)]
            if job_id not in self._once:
                self._send(job_id, number // 2)

    def post_once(self, number: int) -> None:
        """Post a new job with a generated id. Without an answer the client does not know it: no retry."""
        world = self._world
        count = len(world.model.posted)
        job_id = f"g{count}"
        worker_id = self._worker_of(job_id)
        owners = [p for p in world.running() if not p.is_paused and p.owns(worker_id)]
        if count < world.scene.most_jobs and owners:
            world.model.posted[job_id] = world.scene.data(count)
            self._once[job_id] = None
            text = encode_payload(None, world.model.posted[job_id], 1 << 20)
            self._put(owners[number % len(owners)], worker_id, Post(job_id, text), number // 11 % 2 > 0)

    def operate(self, number: int) -> None:
        """An operator ends, pauses or resumes a job. A refused command changes nothing."""
        process = self._world.alive(number)
        if process is not None and self._world.model.posted:
            verb = VERBS[number // 3 % len(VERBS)]
            paused = [job_id for job_id, status in self._world.model.jobs.items() if status == "paused"]
            jobs = paused if verb == "resume_job" and paused else list(self._world.model.posted)
            if verb != "resume_job" and number // 7 % 2:  # one that is running, if there is any
                jobs = process.jobs_under_way() or jobs
            job_id, body = jobs[number // 17 % len(jobs)], Body()
            if verb == "cancel_job" and (status := ENDED[number // 19 % len(ENDED)]) != "cancelled":
                verb, body = "complete_job", {"status": status, "error": None, "result": None}
            for _ in range(1 + number // 5 % 2):  # two operators, or a double click
                self._demand(process, verb, self._worker_of(job_id), job_id, number // 13, body)

    def pause_worker(self, number: int) -> None:
        """An operator pauses a worker."""
        workers = self._world.workers()
        self._ask_of_worker("pause_worker", workers[number // 3 % len(workers)], number)

    def resume_worker(self, number: int) -> None:
        """An operator resumes a worker: a paused one, if there is any."""
        workers = list(self._world.model.pauses.paused.values()) or self._world.workers()
        self._ask_of_worker("resume_worker", workers[number // 3 % len(workers)], number)

    def cancel_worker(self, number: int) -> None:
        """An operator cancels a worker, for the rest of this world."""
        workers = self._world.workers()
        self._ask_of_worker("cancel_worker", workers[number // 3 % len(workers)], number)

    def _ask_of_worker(self, verb: str, worker_id: str, number: int) -> None:
        process = self._world.alive(number)
        if process is not None:
            for _ in range(1 + number // 5 % 2):
                self._demand(process, verb, worker_id, None, number // 7)

    def dead_letter(self, number: int) -> None:
        """An operator sends a dead letter again, sometimes with another payload, or drops it."""
        process, letters = self._world.alive(number), self._world.model.letters
        if process is not None and letters.dead:
            letter = sorted(letters.dead)[number // 3 % len(letters.dead)]
            for _ in range(1 + number // 5 % 2):
                self._settle(process, letter, number // 11)

    def signal(self, number: int) -> None:
        """Send a running job one more message, with the data of its post."""
        world, target = self._world, self._world.scene.signals
        process = world.alive(number)
        jobs = [job_id for job_id, status in world.model.jobs.items() if status not in ENDED]
        if process is not None and number // 5 % 2:  # one that is running, if there is any
            jobs = process.jobs_under_way() or jobs
        if process is not None and target is not None and jobs:
            job_id = jobs[number // 3 % len(jobs)]
            text = encode_payload(None, world.model.posted[job_id], 1 << 20)
            world.model.signals.asked[job_id] += 1
            body = {"routine": target[0], "slot": target[1], "payload": text}
            self._demand(process, "signal", self._worker_of(job_id), job_id, number // 7, body)

    def insist(self) -> None:
        """Post again what has no answer, resume what is paused, send dead letters again for the last time."""
        world = self._world
        unsure = (
            world.model.posted.keys()
            - self.refused()
            - world.model.acknowledged
            - {job_id for _, _, job_id, _ in self._asked}
        )
        for job_id in sorted(unsure):
            self._send(job_id, 0)
        paused = [job_id for job_id, status in world.model.jobs.items() if status == "paused"]
        letters = sorted(world.model.letters.dead.keys() - self._sent_at_last)
        for process in world.running():
            for worker_id in list(world.model.pauses.paused.values()):
                self._demand(process, "resume_worker", worker_id, None, DIRECT)
            for job_id in paused:
                self._demand(process, "resume_job", self._worker_of(job_id), job_id, DIRECT)
            for letter in letters:
                if process.owns(letter.worker_id):
                    self._sent_at_last.add(letter)
                    self._settle(process, letter, DIRECT)

    @property
    def are_waiting(self) -> bool:
        """An accepted post is not a job yet, an answer is missing, or something is still paused."""
        model = self._world.model
        is_paused = model.pauses.paused or "paused" in model.jobs.values()
        is_posting = model.posted.keys() - self.refused() - model.jobs.keys()
        return bool(self._asked or is_posting or is_paused)

    def refused(self) -> set[str]:
        """Posts that may be missing: not posted again, or cancelled with their worker before it took them."""
        model = self._world.model
        ended, unsure = model.cancels.ids, model.posted.keys() - model.acknowledged
        return {id for id in unsure if id in self._once or self._worker_of(id) in ended}

    def take_answers(self) -> None:
        model = self._world.model
        for entry in list(self._asked):
            _, verb, name, receipt = entry
            if not receipt.is_done:
                continue
            self._asked.remove(entry)
            self._world.observer.event("answer", verb, name, receipt.error is None)
            if receipt.error is not None:
                self._take_error(verb, name, receipt.error)
                continue
            match verb:
                case "post":
                    model.acknowledged.add(name)
                case "cancel_job" | "complete_job":
                    model.told_ended.add(name)
                case "signal":
                    model.signals.told[name] += 1
                case "pause_worker" if name not in model.cancels.asked:
                    model.pauses.acknowledge(name)
                case "cancel_worker":
                    model.cancels.acknowledge(name)

    def _take_error(self, verb: str, name: str, error: BaseException) -> None:
        """A client that is told that nothing is stored may rely on that."""
        if isinstance(error, (PostInDoubt, NotOwned)) or classify(error) in PASSING:
            return
        if verb == "post" and name in self._once:
            self._world.model.refusals.told[name] = f"{type(error).__name__}: {error}"
        elif verb == "signal":
            self._world.model.signals.refuse(name)

    def forget(self, process: Process) -> None:
        """This process is dead: its answers will not come."""
        self._asked = [entry for entry in self._asked if entry[0] is not process]

    def _send(self, job_id: str, number: int, delay_s: float = 0) -> None:
        world = self._world
        flow, (routine, slot) = world.scene.flow, world.scene.entry
        text = encode_payload(None, world.model.posted[job_id], 1 << 20)
        due_at = world.clock.now_us() + round(delay_s * 1e6) if delay_s else None
        post = Post(job_id, text, None, due_at, fingerprint(flow, routine, slot, text))
        worker_id = self._worker_of(job_id)
        process = world.alive(number)
        when = f", due in {delay_s:g} s" if delay_s else ""
        if process is not None and process.owns(worker_id) and number % 3:
            self._put(process, worker_id, post, number // 11 % 2 > 0, when)
        elif process is not None:
            world.observer.event("post outside", process.number, worker_id, job_id, due_at)
            world.say(f"process {process.number} posts {job_id} for the owner of {worker_id}{when}")
            world.act(process, lambda: self._post_outside(process, (flow, routine, slot), post, worker_id))

    def _put(self, process: Process, worker_id: str, post: Post, is_patient: bool, when: str = "") -> None:
        world, receipt = self._world, Receipt()
        deadline = world.clock.monotonic() + PATIENCE_S if is_patient else None
        entry = PostIn(world.scene.flow, worker_id, *world.scene.entry, [post], receipt, deadline)
        process.put(entry)
        self._asked.append((process, "post", post.job_id, receipt))
        world.observer.event("post", process.number, worker_id, post.job_id, post.due_at, is_patient)
        world.say(f"process {process.number} posts {post.job_id} to its worker {worker_id}{when}")

    def _post_outside(
        self, process: Process, names: tuple[str, str, str], post: Post, worker_id: str
    ) -> None:
        """Post through the inbox."""
        try:
            limit = self._world.room
            inbox_writer.post_to_owner(process, names, [post], worker_id, limit)  # type: ignore[arg-type]
        except Exception:  # the client is told, and posts again at the end
            return
        self._world.model.acknowledged.add(post.job_id)

    def _settle(self, process: Process, letter: Letter, number: int) -> None:
        letters = self._world.model.letters
        body: dict[str, Any] = {"seq": letter.seq}
        if number % 4 == 3:
            letters.asked_to_drop.add(letter)
            self._demand(process, "drop_dead", letter.worker_id, None, number // 4, body)
            return
        letters.asked_to_send.add(letter)
        if number % 4 == 1:  # the same payload as another text
            body["payload"] = json.dumps(json.loads(letters.dead[letter].payload), indent=1)
        self._demand(process, "retry_dead", letter.worker_id, None, number // 4, body)

    def _demand(
        self,
        process: Process,
        verb: str,
        worker_id: str,
        job_id: str | None,
        number: int,
        body: Body | None = None,
    ) -> None:
        """Send a command for a worker: directly to its owner, or through the inbox."""
        world = self._world
        is_direct = process.owns(worker_id) and number % 4 != 3
        world.counts["operate"] += 1
        command = command_of(verb, worker_id, job_id, body or {})
        body = command.body
        if verb in ("cancel_job", "complete_job") and job_id is not None:
            world.model.asked_to_end.add((job_id, body.get("status", "cancelled")))
        way = "" if is_direct else f" for the owner of {worker_id}"
        facts = (process.number, worker_id, job_id, sorted(body.items()))
        world.observer.event(verb if is_direct else f"{verb} outside", *facts)
        world.model.pauses.ask(verb, worker_id)
        if verb == "cancel_worker":
            world.model.cancels.asked[worker_id] = None
        world.say(f"process {process.number}: {verb} {job_id or body.get('seq', worker_id)}{way}")
        if is_direct:
            receipt = Receipt()
            process.put(CommandIn(command, receipt))
            self._asked.append((process, verb, job_id or worker_id, receipt))
        else:
            world.act(process, lambda: self._demand_outside(process, command))

    def _demand_outside(self, process: Process, command: Command) -> None:
        try:
            inbox_writer.ask(process.store, command, self._world.scene.flow, self._world.clock.now_us())
        except Exception:  # the operator is told
            return

    def _worker_of(self, job_id: str) -> str:
        workers = self._world.workers()
        return workers[int(job_id[1:]) % len(workers)]
