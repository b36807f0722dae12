"""A delay and a retry are rows with a due time: they fire once, never early, also after a restart."""

import time

from routilux import ErrorHandler, Flow, FlowRegistry, Routine, Runtime, immediate_policy

started = time.time()


class Remind(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("note")
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(ErrorHandler("retry", max_retries=3, retry_delay=1.5))
        self.is_online = False

    def logic(self, slot_data, policy_message, worker_state):
        text = slot_data["note"][0]["text"]
        if text == "call the bank" and not self.is_online:
            print("first attempt: the line is busy")
            raise ConnectionError("busy")
        self.set_state(worker_state, text, "early" if time.time() - started < 1.5 else "in time")


flow = Flow()
remind = Remind()
flow.add_routine(remind, "remind")
FlowRegistry.get_instance().register_by_name("reminders", flow)

with Runtime() as runtime:
    runtime.exec("reminders", worker_id="me")
    runtime.post("reminders", "remind", "note", {"text": "water the plants"}, worker_id="me", delay=2)
    runtime.post("reminders", "remind", "note", {"text": "call the bank"}, worker_id="me")
    runtime.wait_until_all_workers_idle(timeout=30)
    runtime.shutdown(wait=False)  # now nothing runs
    print("stopped; both are rows now")

remind.is_online = True
with Runtime() as runtime:  # another process, or another machine on the same Postgres
    worker = runtime.exec("reminders", worker_id="me")
    runtime.wait_until_all_jobs_finished(timeout=30)
    for text, when in sorted(worker.get_routine_state("remind").items()):
        print(f"{text}: {when}")
    print("attempts:", sorted(entry["attempt"] for entry in worker.get_execution_history()))
