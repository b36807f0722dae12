"""What happens when logic raises: stop, continue, skip, retry."""

from routilux import ErrorHandler, Flow, FlowRegistry, Routine, Runtime, immediate_policy


class Fetch(Routine):
    """Fails as many times as its message says."""

    def __init__(self):
        super().__init__()
        self.add_slot("url")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        attempts = [entry for entry in worker_state.get_execution_history() if entry["error"]]
        if len(attempts) < slot_data["url"][0]["failures"]:
            raise ConnectionError("no route to host")


HANDLERS = {
    "stop": ErrorHandler("stop"),
    "continue": ErrorHandler("continue"),
    "skip": ErrorHandler("skip"),
    "retry": ErrorHandler("retry", max_retries=3, retry_delay=0.05, retry_backoff=1.0),
    "retry, too often": ErrorHandler("retry", max_retries=1, retry_delay=0.05),
    "retry, not this error": ErrorHandler("retry", retryable_exceptions=TimeoutError),
}
for number, handler in enumerate(HANDLERS.values()):
    flow = Flow()
    flow.add_routine(Fetch().set_error_handler(handler), "fetch")
    FlowRegistry.get_instance().register_by_name(f"fetch-{number}", flow)

with Runtime() as runtime:
    for number, name in enumerate(HANDLERS):
        worker = runtime.exec(f"fetch-{number}")
        job = runtime.post(f"fetch-{number}", "fetch", "url", {"failures": 2}).job
        job.wait(timeout=30)
        statuses = [entry["status"] for entry in worker.get_execution_history()]
        print(f"{name}: job {job.status}, activations {statuses}")
    print("dead letters:", sorted(letter.flow_id for letter in runtime.dead_letters()))
