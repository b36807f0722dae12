"""Workers share nothing; the jobs of one worker share its state; a job's data is its own."""

from routilux import Flow, FlowRegistry, Routine, Runtime, get_current_job, immediate_policy


class Visit(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("guest")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        worker_state.increment("visit", "guests")
        get_current_job().set_data("guest", slot_data["guest"][0]["name"])


flow = Flow()
flow.add_routine(Visit(), "visit")
FlowRegistry.get_instance().register_by_name("house", flow)

with Runtime() as runtime:
    north = runtime.exec("house", worker_id="north")
    south = runtime.exec("house", worker_id="south")
    guests = {"Ada": "north", "Alan": "north", "Grace": "south"}
    jobs = [
        runtime.post("house", "visit", "guest", {"name": name}, worker_id=house).job
        for name, house in guests.items()
    ]
    runtime.wait_until_all_jobs_finished(timeout=30)
    print("north:", north.get_routine_state("visit"))
    print("south:", south.get_routine_state("visit"))
    print("jobs: ", [job.data for job in jobs])
