"""NamesCopier: accounts and repositories of one store into another one, once its objects and grants are there."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from xetstore.cas.check import Problem
from xetstore.cas.copying.files import FileCopier
from xetstore.cas.copying.run import TICK_SECONDS, Run
from xetstore.cas.lease import COLLECT, Lease
from xetstore.hub.copying.accounts import AccountCopier
from xetstore.hub.copying.repositories import RepositoryCopier
from xetstore.hub.copying.rows import NamesTally, TwoStores
from xetstore.hub.tables import MIGRATIONS

_NO_ID: Final = ""


@dataclass(slots=True)
class NamesCopier:
    """Copies names, for :func:`~xetstore.cas.copying.copy_store.copy_store`, which calls it when all else is copied.

    A row that names a file is written when the target grants it: so each name in the copy has its files, at every
    moment, whatever is killed. Accounts and repositories that came from the source follow it. ``tokens`` of users come
    along if that is True. With ``since_last`` histories are read of those repositories alone that were changed.

    ``tally`` is what was added to the target, or would be; ``problems`` are what could not be copied.
    """

    since_last: bool = False
    tokens: bool = False
    tally: NamesTally = field(default_factory=NamesTally)
    problems: dict[str, Problem] = field(default_factory=dict)

    def __call__(self, run: Run, files: FileCopier) -> None:
        """Copy the names. Raises AccessDeniedError for old tables in a source that cannot be written to."""
        if not run.source.index.version_of(MIGRATIONS):
            return  # a store that never had names
        run.source.index.migrate(MIGRATIONS)
        if not run.is_dry:
            run.target.index.migrate(MIGRATIONS)
        with run.source.index.snapshot() as reader:
            source_id = reader.store_id() or _NO_ID
        with ExitStack() as stack:
            lease = None if run.is_dry else stack.enter_context(_alone(run))
            stores = TwoStores(
                run,
                source_id,
                has_target=run.target.index.version_of(MIGRATIONS) > 0,
                tally=self.tally,
                problems=self.problems,
                lease=lease,
            )
            repositories = RepositoryCopier(stores, files, since_last=self.since_last)
            accounts = AccountCopier(stores)
            # Those that are gone first: others may have their names by now.
            repositories.set_aside_gone()
            accounts.remove_gone()
            refused = accounts.copy(tokens=self.tokens)
            repositories.copy_all(refused)


def _alone(run: Run) -> Lease:
    """The right to collect in the target, once no other runner has it."""
    while (lease := Lease.take(run.target.index, COLLECT)) is None:
        run.cancellation.wait(TICK_SECONDS)
    return lease
