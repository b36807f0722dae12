"""Your own rows, exactly once: `self.write()` puts them into the commit of the activation."""

import sqlite3

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert

from routilux import ErrorHandler, Flow, FlowRegistry, Routine, Runtime, immediate_policy, sqlite_engine

metadata = MetaData()
payments = Table(
    "payments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("who", Text),
    Column("cents", Integer),
)
metadata.create_all(sqlite_engine("sqlite:///routilux.db"))


class Pay(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("bill")
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(ErrorHandler("retry", retry_delay=0.05))
        self.calls = 0

    def logic(self, slot_data, policy_message, worker_state):
        bill = slot_data["bill"][0]
        self.calls += 1
        self.write(insert(payments).values(who=bill["who"], cents=bill["cents"]))
        worker_state.increment("pay", "total", bill["cents"])
        if bill["who"] == "Bob" and self.calls == 2:
            raise ConnectionError("after the row was written")  # neither row nor total counts


flow = Flow()
pay = Pay()
flow.add_routine(pay, "pay")
FlowRegistry.get_instance().register_by_name("payments", flow)

with Runtime() as runtime:
    worker = runtime.exec("payments")
    runtime.post_many(
        "payments", "pay", "bill", [{"who": who, "cents": 100} for who in ("Ada", "Bob", "Cyd")]
    )
    runtime.wait_until_all_jobs_finished(timeout=30)
    print("logic ran", pay.calls, "times")
    print("state:", worker.get_routine_state("pay"))

with sqlite3.connect("routilux.db") as connection:
    for row in connection.execute("SELECT who, sum(cents), count(*) FROM payments GROUP BY who ORDER BY who"):
        print("row:", row)
