"""Several events, one slot: the messages of all events wait in one line."""

from routilux import Flow, FlowRegistry, Routine, Runtime, immediate_policy


class Sensor(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("reading")
        self.add_event("measured")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        self.emit("measured", sensor=self.get_config("name"), celsius=slot_data["reading"][0]["celsius"])


class Log(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("entry")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        entry = slot_data["entry"][0]
        worker_state.increment("log", entry["sensor"], entry["celsius"])
        worker_state.increment("log", "entries")


flow = Flow()
flow.add_routine(Log(), "log")
for name in ("kitchen", "cellar"):
    flow.add_routine(Sensor().set_config(name=name), name)
    flow.connect(name, "measured", "log", "entry")
FlowRegistry.get_instance().register_by_name("sensors", flow)

with Runtime() as runtime:
    worker = runtime.exec("sensors")
    for kitchen, cellar in ((21, 12), (23, 11)):
        runtime.post("sensors", "kitchen", "reading", {"celsius": kitchen})
        runtime.post("sensors", "cellar", "reading", {"celsius": cellar})
    runtime.wait_until_all_jobs_finished(timeout=30)
    for key, value in sorted(worker.get_routine_state("log").items()):
        print(key, value)
