"""AccessRequests: the users who asked for the files of gated repositories, and those who may have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from xetstore.cas.index import Index
from xetstore.errors import NotFoundError, RepositoryNotFoundError, UsageError
from xetstore.hub.accounts import PAGE_ROWS, require_account
from xetstore.hub.queries.access_requests import (
    AccessRequest,
    AccessRequestChanges,
    AccessRequestQueries,
    Status,
)
from xetstore.hub.queries.accounts import AccountKind, AccountQueries

__all__ = ["AccessRequest", "AccessRequests", "Status"]

AUTO: Final = "auto"

T = TypeVar("T")


class AccessRequests:
    """Requests of a store. A caller of these has seen to it that who asks may see the repository, and who decides
    has its settings; :func:`~xetstore.hub.rights.right_of` goes by what was decided.

    Repositories are named by their ids. ``clock`` is in unix seconds.
    """

    def __init__(self, index: Index, clock: Callable[[], float] | None = None) -> None:
        self._index = index
        self._clock = clock or index.clock

    def ask(self, repository_id: int, user: str) -> Status:
        """Ask for the files of a gated repository: who asks an ``auto`` one is accepted at once.

        A request that was decided on stays so. Raises RepositoryNotFoundError, NotFoundError for the user, and
        UsageError if the repository is not gated.
        """
        now = self._clock()

        def work(changes: AccessRequestChanges) -> Status:
            gate = changes.kept_gate(repository_id)
            if gate is None:
                raise RepositoryNotFoundError
            if gate[0] is None:
                raise UsageError("the files of this repository need not be asked for")
            user_id = self._user_id(changes, user)
            status = Status.ACCEPTED if gate[0] == AUTO else Status.PENDING
            if changes.add_access_request(repository_id, user_id, status, now):
                return status
            before = changes.access_status(repository_id, user_id) or status
            if before is Status.PENDING and status is Status.ACCEPTED:
                changes.set_access_status(repository_id, user_id, status)
                return status
            return before

        return self._change(work)

    def decide(self, repository_id: int, user: str, status: Status, *, has_asked: bool = False) -> None:
        """Accept or reject a user, or take that back.

        A user may be accepted without a request. Raises NotFoundError for one who has none in every other case, and in
        this one too if ``has_asked``.
        """
        now = self._clock()

        def work(changes: AccessRequestChanges) -> None:
            if changes.kept_gate(repository_id) is None:
                raise RepositoryNotFoundError
            user_id = self._user_id(changes, user)
            if changes.set_access_status(repository_id, user_id, status):
                return
            if has_asked or status is not Status.ACCEPTED:
                raise NotFoundError(f"{user} has not asked for the files of this repository")
            if not changes.add_access_request(repository_id, user_id, status, now):  # asked just now
                changes.set_access_status(repository_id, user_id, status)

        self._change(work)

    def list(
        self, repository_id: int, status: Status, after: tuple[float, int] | None = None, limit: int = PAGE_ROWS
    ) -> Sequence[AccessRequest]:
        """At most ``limit`` requests in a state, the oldest first, behind the one of that place."""
        with self._index.snapshot() as reader:
            return AccessRequestQueries(reader.connection).access_requests(repository_id, status, after, limit)

    def of(self, repository_id: int, user_id: int) -> AccessRequest | None:
        """The request of a user; None if it has not asked."""
        with self._index.snapshot() as reader:
            return AccessRequestQueries(reader.connection).access_request(repository_id, user_id)

    def status(self, repository_id: int, user_id: int) -> Status | None:
        """The state of the request of a user; None if it has not asked."""
        with self._index.snapshot() as reader:
            return AccessRequestQueries(reader.connection).access_status(repository_id, user_id)

    def _user_id(self, changes: AccessRequestChanges, user: str) -> int:
        return require_account(AccountQueries(changes.connection), user, AccountKind.USER, keep=True).id

    def _change(self, work: Callable[[AccessRequestChanges], T]) -> T:
        return self._index.change(lambda writer: work(AccessRequestChanges(writer.connection)))
