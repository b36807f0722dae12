"""`all_slots_ready_policy`: logic gets one message of each slot, as long as every slot has one."""

from routilux import Flow, FlowRegistry, Routine, Runtime, all_slots_ready_policy


class Pair(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("left")
        self.add_slot("right")
        self.set_activation_policy(all_slots_ready_policy())

    def logic(self, slot_data, policy_message, worker_state):
        print(slot_data["left"][0]["value"], "+", slot_data["right"][0]["value"])


flow = Flow()
flow.add_routine(Pair(), "pair")
FlowRegistry.get_instance().register_by_name("pairs", flow)

with Runtime() as runtime:
    runtime.exec("pairs", worker_id="dancers")
    for value in ("a", "b", "c"):
        runtime.post("pairs", "pair", "left", {"value": value}, worker_id="dancers")
    for value in (1, 2):
        runtime.post("pairs", "pair", "right", {"value": value}, worker_id="dancers")
    runtime.wait_until_all_workers_idle(timeout=30)
    print("waits for a partner:", sum(job.is_running() for job in runtime.list_jobs()))
    runtime.shutdown(wait=False)  # without this, the end of the block would wait for that job

with Runtime() as runtime:
    runtime.post("pairs", "pair", "right", {"value": 3}, worker_id="dancers")
    runtime.wait_until_all_jobs_finished(timeout=30)
