"""Processes that die in the middle of a call: as ``worker``, with the calls of ``model_store``."""

from __future__ import annotations

from tests.faults import worker
from tests.faults.model_store import CALLS, GRACE
from tests.faults.worker import Says, Wait
from xetstore.cas import EmbeddedCas
from xetstore.testing import FakeClock, FaultPlan


def model(_: Wait, *, store: str, now: float, namespace: str, verb: str, files: list[int], die_at: int) -> Says:
    """Make one call, and die at an operation of its disk; tell that it came to its end, if it does."""
    with FaultPlan(fail_at=die_at, crash=True).installed() as plan:
        cas = EmbeddedCas.open(store, clock=FakeClock(now))
        cas.grace = GRACE
        CALLS[verb](cas.in_namespace(namespace), files)
        plan.disarm()
        yield {"done": True}
        cas.close()


worker.CALLS.update(model=model)


if __name__ == "__main__":
    worker.main()
