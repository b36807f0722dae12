"""An event of one routine is connected to a slot of the next."""

from routilux import Flow, FlowRegistry, Routine, Runtime, immediate_policy


class Double(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("number")
        self.add_event("doubled")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        number = slot_data["number"][0]["value"]
        self.emit("doubled", value=2 * number)  # stored in this activation's commit


class Show(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("number")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        print(slot_data["number"][0])


flow = Flow()
flow.add_routine(Double(), "double")
flow.add_routine(Show(), "show")
flow.connect("double", "doubled", "show", "number")
FlowRegistry.get_instance().register_by_name("doubling", flow)

with Runtime() as runtime:
    runtime.exec("doubling")
    for value in (1, 2, 3):  # one job each; a slot is read in the order of its messages
        runtime.post("doubling", "double", "number", {"value": value})
    runtime.wait_until_all_jobs_finished(timeout=30)
    print("jobs:", [job.status for job in runtime.list_jobs()])
