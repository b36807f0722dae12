"""A post inside your own transaction: the order and its job are stored together, or neither is."""

from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select

from routilux import Client, Flow, FlowRegistry, Routine, Runtime, immediate_policy, sqlite_engine

metadata = MetaData()
orders = Table("orders", metadata, Column("id", Integer, primary_key=True), Column("item", Text))


class Ship(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("order")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, worker_state):
        print("ships", slot_data["order"][0]["item"])


flow = Flow()
flow.add_routine(Ship(), "ship")
FlowRegistry.get_instance().register_by_name("shipping", flow)

with Runtime() as runtime:
    engine = sqlite_engine("sqlite:///routilux.db")  # Postgres: any engine on the same database
    metadata.create_all(engine)
    client = Client(engine)  # a web process would have only this: it needs no flow code and runs nothing

    with engine.begin() as transaction:
        transaction.execute(insert(orders).values(item="a kettle"))
        kettle = client.post("shipping", "ship", "order", {"item": "a kettle"}, transaction=transaction)
    kettle.job.wait(timeout=30)

    try:
        with engine.begin() as transaction:
            transaction.execute(insert(orders).values(item="a teapot"))
            teapot = client.post("shipping", "ship", "order", {"item": "a teapot"}, transaction=transaction)
            raise ValueError("the card was refused")
    except ValueError as error:
        print("rolled back:", error)

    with engine.connect() as connection:
        print("orders:", connection.scalar(select(func.count()).select_from(orders)))
    print("kettle:", kettle.status)
    print("teapot:", client.get_job(teapot.job_id))
    client.close()
    engine.dispose()
