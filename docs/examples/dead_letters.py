"""Dead letters: what failed permanently is kept with its error; read it, then send it again or drop it."""

from routilux import Flow, FlowRegistry, GiveUp, Routine, Runtime, immediate_policy


class Import(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("row")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        row = slot_data["row"][0]
        if "price" not in row:
            raise GiveUp("a row without a price")  # no retry would help
        worker_state.increment("import", "sum", float(row["price"]))


flow = Flow()
flow.add_routine(Import(), "import")
FlowRegistry.get_instance().register_by_name("imports", flow)

with Runtime() as runtime:
    worker = runtime.exec("imports")
    rows = [{"price": "2.50"}, {"price": "two"}, {"name": "?"}, {"price": "1.25"}]
    jobs = runtime.post_many("imports", "import", "row", rows)
    runtime.wait_until_all_jobs_finished(timeout=30)
    print("jobs:", [job.status for job in jobs])

    for letter in reversed(runtime.dead_letters()):  # newest first
        print(f"{letter.error_type}: {letter.error} - {letter.payloads}")
        if letter.error_type == "ValueError":
            letter.retry({"price": "2"})  # its job is open again
        else:
            letter.drop("nobody knows the price")

    runtime.wait_until_all_jobs_finished(timeout=30)
    print("jobs:", [job.status for job in jobs])
    print("left:", runtime.dead_letters(), "sum:", worker.get_routine_state("import")["sum"])
