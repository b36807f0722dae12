"""A diamond: split into two branches, joined again per job.

    split ──▶ count ──┐
      └─────▶ shout ──┴─▶ report

`all_slots_ready_policy(by_job=True)` pairs messages of the same job, whichever branch is faster.
"""

from routilux import (
    Flow,
    FlowRegistry,
    Routine,
    Runtime,
    all_slots_ready_policy,
    get_current_job,
    immediate_policy,
)


class Step(Routine):
    """Applies its function to a text and emits the result."""

    def __init__(self):
        super().__init__()
        self.add_slot("text")
        self.add_event("done")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        self.emit("done", value=self.get_config("function")(slot_data["text"][0]["value"]))


class Report(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("words")
        self.add_slot("loud")
        self.set_activation_policy(all_slots_ready_policy(by_job=True))

    def logic(self, slot_data, policy_message, worker_state):
        words, loud = slot_data["words"][0]["value"], slot_data["loud"][0]["value"]
        get_current_job().complete(result=f"{loud} ({words} words)")


flow = Flow()
flow.add_routine(Step().set_config(function=str.strip), "split")
flow.add_routine(Step().set_config(function=lambda text: len(text.split())), "count")
flow.add_routine(Step().set_config(function=str.upper), "shout")
flow.add_routine(Report(), "report")
flow.connect("split", "done", "count", "text")
flow.connect("split", "done", "shout", "text")
flow.connect("count", "done", "report", "words")
flow.connect("shout", "done", "report", "loud")
FlowRegistry.get_instance().register_by_name("diamond", flow)

print("warnings:", flow.validate())
with Runtime() as runtime:
    runtime.exec("diamond")
    texts = ["  a rose is a rose ", "hello", " so much depends upon"]
    jobs = [runtime.post("diamond", "split", "text", {"value": text}).job for text in texts]
    for job in jobs:
        print(job.result(timeout=30))
