"""One event, several slots: each gets its own copy, and the job ends when all branches have."""

from routilux import Flow, FlowRegistry, Routine, Runtime, immediate_policy


class Order(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("order")
        self.add_event("placed")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        self.emit("placed", **slot_data["order"][0])


class Desk(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("order")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        order = slot_data["order"][0]
        self.set_state(worker_state, order["id"], self.get_config("answer"))


flow = Flow()
flow.add_routine(Order(), "order")
for name, answer in {"billing": "invoice", "stock": "reserved", "mail": "sent"}.items():
    flow.add_routine(Desk().set_config(answer=answer), name)
    flow.connect("order", "placed", name, "order")
FlowRegistry.get_instance().register_by_name("orders", flow)

with Runtime() as runtime:
    worker = runtime.exec("orders")
    for number in (1, 2):
        runtime.post("orders", "order", "order", {"id": f"order-{number}"})
    runtime.wait_until_all_jobs_finished(timeout=30)
    for desk, state in sorted(worker.routine_states.items()):
        print(desk, state)
