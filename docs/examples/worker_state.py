"""Worker state: each routine has its part; it is stored with each activation and survives a restart."""

from routilux import Flow, FlowRegistry, Routine, Runtime, immediate_policy


class Average(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("number")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        value = slot_data["number"][0]["value"]
        if value < 0:
            worker_state.increment("average", "count", 1000)  # discarded with the activation
            raise ValueError("negative")
        state = worker_state.get_routine_state("average", {"count": 0, "sum": 0})
        state["count"] += 1
        state["sum"] += value
        worker_state.update_routine_state("average", state)


flow = Flow()
flow.add_routine(Average(), "average")
FlowRegistry.get_instance().register_by_name("averages", flow)

with Runtime() as runtime:
    worker = runtime.exec("averages", worker_id="everyone")  # a name, so that it is found again
    for value in (1, 2, -1, 3):
        runtime.post("averages", "average", "number", {"value": value}, worker_id="everyone")
    runtime.wait_until_all_jobs_finished(timeout=30)
    print("first run: ", worker.get_routine_state("average"))

with Runtime() as runtime:
    worker = runtime.exec("averages", worker_id="everyone")
    runtime.post("averages", "average", "number", {"value": 4}, worker_id="everyone").job.wait(timeout=30)
    print("second run:", worker.get_routine_state("average"))
    print("history:   ", [entry["status"] for entry in worker.get_execution_history("average")])
