"""The smallest flow: one routine, one message, one job."""

from routilux import Flow, FlowRegistry, Routine, Runtime, immediate_policy


class Greeter(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("name")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        print(f"Hello, {slot_data['name'][0]['value']}!")


flow = Flow()
flow.add_routine(Greeter(), "greeter")
FlowRegistry.get_instance().register_by_name("hello", flow)

with Runtime() as runtime:  # a file routilux.db in this folder
    runtime.exec("hello")
    worker, job = runtime.post("hello", "greeter", "name", {"value": "world"})
    job.wait(timeout=30)
    print("job:", job.status)
