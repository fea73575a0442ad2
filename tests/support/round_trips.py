"""Round trips to a PostgreSQL server, by the trace of its driver."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from xetstore.database.database import Database


def exchanges(database: Database, trace: Path, call: Callable[[], object]) -> list[str]:
    """A word for each message of a call that the server answers. A "rollback" is not waited for.

    The call uses one connection at a time, which is the one that was used last.
    """
    with database.snapshot() as connection:
        connection.value("SELECT 1")
        driver = connection.driver
    driver.settle()
    with trace.open("w") as file:
        driver.pgconn.trace(file.fileno())
        call()
        driver.settle()
        driver.pgconn.untrace()
    sent = re.findall(r"\tF\t\d+\t(Sync|Query\t \"\w+)", trace.read_text())
    return [word.rpartition('"')[2].lower() for word in sent]
