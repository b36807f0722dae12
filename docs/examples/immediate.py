"""`immediate_policy`: one activation for each message, in order.

With `max_items` it takes several messages of one job at once.
"""

from routilux import Flow, FlowRegistry, Routine, Runtime, immediate_policy


class Burst(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("count")
        self.add_event("number")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        for value in range(slot_data["count"][0]["value"]):
            self.emit("number", value=value)


class Take(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("number")

    def logic(self, slot_data, policy_message, worker_state):
        self.set_state(
            worker_state,
            "taken",
            [*self.get_state(worker_state, "taken", []), [item["value"] for item in slot_data["number"]]],
        )


flow = Flow()
flow.add_routine(Burst(), "burst")
flow.add_routine(Take().set_activation_policy(immediate_policy()), "one_by_one")
flow.add_routine(Take().set_activation_policy(immediate_policy(max_items=3)), "up_to_three")
flow.connect("burst", "number", "one_by_one", "number")
flow.connect("burst", "number", "up_to_three", "number")
FlowRegistry.get_instance().register_by_name("bursts", flow)

with Runtime() as runtime:
    worker = runtime.exec("bursts")
    runtime.post("bursts", "burst", "count", {"value": 7})
    runtime.wait_until_all_jobs_finished(timeout=30)
    for name, state in sorted(worker.routine_states.items()):
        print(name, state["taken"])
