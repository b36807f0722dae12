"""A client posts, reads and controls from another process, and runs nothing itself."""

from __future__ import annotations

import subprocess
import sys

from routilux import Client, Flow, FlowRegistry, Runtime
from tests.flows.flows import GOOD, Seen, Step, chain, known_flow, running
from tests.support.looking import rows, stored
from tests.support.waiting import eventually


def test_what_a_client_posts_while_nothing_runs_is_done_by_the_next_runtime(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    known_flow(database, registry)
    with Client(database) as client:
        named = client.post(*GOOD, {"n": 1}, "w", metadata={"k": 1})
        loose = client.post(*GOOD, {"n": 2})
        many = client.post_many(*GOOD, [{"n": n} for n in range(3, 1003)], worker_id="w")
        late = client.post(*GOOD, {"n": 0}, "w", delay=3600)
        jobs = [named.job, loose.job, *many]
        assert (named.worker, named.status, named.metadata) == (None, "pending", {"k": 1})
        assert client.get_job(loose.job_id).worker_id is None
        assert len(client.list_jobs(limit=5000, status="pending")) == 1003
        assert not named.job.wait(0.05)
        view = "SELECT count(*) FROM routilux_job_history WHERE status = 'pending'"
        assert rows(database, view) == [(1003,)]
        with running(database, registry) as runtime:
            assert runtime.get_job(named.job_id) is not None
            assert all(job.wait(30) for job in jobs)
            assert (loose.job.status, loose.job.worker_id) == ("completed", "w")
            assert late.status == "pending"
    assert [item["n"] for item in seen.items] == [*range(1, 1003)]


def test_a_runtime_that_has_no_worker_starts_one_for_a_clients_post(database: str) -> None:
    seen = Seen()
    registry = chain(Step(seen))
    with Runtime(1, database=database, registry=registry):
        pass  # the flow is known now, no worker is
    with Client(database) as client:
        job = client.post(*GOOD, {"n": 1}).job
        assert stored(database)["workers"] == 0
        with Runtime(1, database=database, registry=registry):
            assert job.wait(10)
            assert job.status == "completed"
            assert job.worker_id is not None


def test_a_client_reads_and_controls(database: str) -> None:
    seen = Seen()
    with running(database, chain(Step(seen))) as runtime, Client(database) as client:
        client.pause_worker("w", "lunch")
        worker = runtime.exec("f", worker_id="w")
        eventually(lambda: worker.status == "paused")
        first, second, third = client.post_many(*GOOD, [{"n": 1}, {"n": 2}, {"n": 3}], worker_id="w")
        eventually(lambda: stored(database)["inbox"] == 0)
        client.pause_job(first.job_id)
        client.cancel_job(second.job_id, "not needed")
        assert second.wait(10)
        assert (second.status, second.error) == ("cancelled", "not needed")
        client.resume_worker("w")
        assert third.wait(10)
        eventually(lambda: first.status == "paused")
        client.resume_job(first.job_id)
        assert first.wait(10)
        client.cancel_worker("w", "over")
        eventually(lambda: worker.status == "cancelled")
    assert [item["n"] for item in seen.items] == [3, 1]


def test_a_post_from_another_process(database: str) -> None:
    seen = Seen()
    program = (
        "import sys\nfrom routilux import Client\nwith Client(sys.argv[1]) as client:\n"
        "    job = client.post('f', 's0', 'input', {'n': 1}, job_id='theirs').job\n"
        "    print(job.wait(20), job.status)\n"
    )
    with running(database, chain(Step(seen))) as runtime:
        done = subprocess.run(
            [sys.executable, "-c", program, database], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.split() == ["True", "completed"], done.stderr
        assert runtime.get_job("theirs").status == "completed"
    assert seen.items == [{"n": 1}]


def test_two_runtimes_of_two_flows_post_to_each_other(database: str) -> None:
    """A post for a worker that another runtime owns goes through the inbox,
    and its handle follows the job.
    """
    seen = Seen()
    mine = chain(Step(Seen()))
    theirs = FlowRegistry()
    flow = Flow("g")
    flow.add_routine(Step(seen), "s0")
    theirs.register_by_name("g", flow)
    mine.register_by_name("g", flow)
    with Runtime(1, database=database, registry=theirs) as other:
        other.exec("g", worker_id="far")
        with running(database, mine) as runtime:
            posted = runtime.post("g", "s0", "input", {"n": 1}, "far")
            assert runtime.wait_until_all_jobs_finished(20)
            assert (posted.status, posted.worker_id) == ("completed", "far")
            assert runtime.exec("g", worker_id="far").get_routine_state("s0") == {"seen": 1}
    assert seen.items == [{"n": 1}]
