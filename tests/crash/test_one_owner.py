"""Who runs a worker, where processes race for it; in one process, so that the race is always lost."""

from __future__ import annotations

from routilux.runtime import adopting
from tests.crash.support import orders, program


def test_a_worker_that_another_has_just_made_under_my_name_is_not_mine(shop: str) -> None:
    """Both have looked, neither has found it; the other is first."""
    with program.start(shop) as first, program.start(shop) as second:
        first.exec(orders.FLOW, worker_id="w")
        found = second.call(
            lambda: adopting.start(
                second.engine, orders.FLOW, "w", is_named=True, state={"split": {"n": "7"}}
            )
        )
        assert found is None
        assert "w" in first.engine.by_id
        assert "w" not in second.engine.by_id
        assert second.exec(orders.FLOW, worker_id="w").get_routine_state("split") is None
