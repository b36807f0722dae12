"""`batch_size_policy`: activations over many messages; the last, partial batch runs at the end."""

from routilux import Flow, FlowRegistry, Routine, Runtime, batch_size_policy


class Load(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("row")
        self.set_activation_policy(batch_size_policy(5))

    def logic(self, slot_data, policy_message, worker_state):
        rows = slot_data["row"]
        print(f"load {len(rows)}: {rows[0]['id']} … {rows[-1]['id']}")


flow = Flow()
flow.add_routine(Load(), "load")
FlowRegistry.get_instance().register_by_name("loading", flow)

with Runtime() as runtime:
    runtime.exec("loading")
    jobs = runtime.post_many("loading", "load", "row", [{"id": n} for n in range(1, 13)])
    runtime.wait_until_all_workers_idle(timeout=30)
    print("still waiting:", sum(job.is_running() for job in jobs))
    # Waiting for all jobs delivers a partial batch; batch_size_policy(5, max_wait=60) after a minute.
    runtime.wait_until_all_jobs_finished(timeout=30)
    print("completed:", sum(job.is_completed() for job in jobs))
