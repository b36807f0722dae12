"""The job: metadata from the post, data and traces on the way, a result at the end."""

from routilux import Flow, FlowRegistry, Routine, Runtime, get_current_job, immediate_policy


class Stage(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("document")
        self.add_event("done")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        document = slot_data["document"][0]
        job = get_current_job()
        job.trace("stage", self.get_config("name"), {"length": len(document["text"])})
        job.increment("stages")
        job.set_data("reader", job.metadata["reader"])
        self.emit("done", **document)


class Finish(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("document")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        job = get_current_job()
        job.complete(result={"stages": job.get_data("stages"), "text": slot_data["document"][0]["text"]})


flow = Flow()
flow.add_routine(Stage().set_config(name="spelling"), "spelling")
flow.add_routine(Stage().set_config(name="grammar"), "grammar")
flow.add_routine(Finish(), "finish")
flow.connect("spelling", "done", "grammar", "document")
flow.connect("grammar", "done", "finish", "document")
FlowRegistry.get_instance().register_by_name("review", flow)

with Runtime() as runtime:
    runtime.exec("review")
    worker, job = runtime.post(
        "review", "spelling", "document", {"text": "To be"}, job_id="hamlet", metadata={"reader": "Ada"}
    )
    print("result:", job.result(timeout=30))
    print("data:  ", dict(sorted(job.data.items())))
    for line in job.trace_log:
        print("trace: ", line["action"], line["details"])
    # The same post again is the same job: nothing is stored, nothing runs twice.
    again = runtime.post("review", "spelling", "document", {"text": "To be"}, job_id="hamlet").job
    print("again: ", again.job_id, again.status, "- jobs:", len(runtime.list_jobs()))
