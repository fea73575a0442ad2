"""EmbeddedHub: the names of a store in this process: accounts, repositories and all that is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from xetstore.access.tenant import DedupDomain
from xetstore.cas.index import Writer
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.snapshots.journal import note_deleted
from xetstore.errors import (
    ForbiddenError,
    RepositoryNotFoundError,
    UnauthenticatedError,
    UsageError,
)
from xetstore.hub.accounts import Accounts
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.new_repository import first_files
from xetstore.hub.queries import HubReader, HubWriter, Listing, RepositoryRow
from xetstore.hub.queries.accounts import AccountQueries
from xetstore.hub.queries.repositories import taken
from xetstore.hub.repository import Repository, require
from xetstore.hub.rights import PRIVATE, PUBLIC, Actor, Right, right_in, right_of
from xetstore.hub.tables import MIGRATIONS
from xetstore.hub.trees import TreeCache

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubOptions:
    """Choices of a store's operator: who sees a new repository, if callers without a token read public ones, and with
    which namespaces uploads share chunks.
    """

    default_visibility: str = PUBLIC
    anonymous_reads: bool = True
    dedup: DedupDomain = DedupDomain.STORE
    private_namespaces: frozenset[str] = frozenset()


class EmbeddedHub:
    """The names of a store, over the same index. Thread-safe, and safe between processes. It closes nothing.

    Every call is made for an :class:`~xetstore.hub.rights.Actor`; a repository that it may not see is as if missing.
    """

    def __init__(self, cas: EmbeddedCas, options: HubOptions = HubOptions()) -> None:
        self.cas = cas
        self.options = options
        self.now = cas.now
        cas.index.migrate(MIGRATIONS)
        self.accounts = Accounts(cas.index, cas.now)
        self.trees = TreeCache()

    @contextmanager
    def snapshot(self) -> Iterator[HubReader]:
        """Read: all questions in the block see one state of the index. Keep it short."""
        with self.cas.index.snapshot() as reader:
            yield HubReader(reader.connection)

    def change(self, work: Callable[[HubWriter, Writer], T]) -> T:
        """Write, as :meth:`Index.change <xetstore.cas.index.index.Index.change>` does: names and grants together."""
        return self.cas.index.change(lambda writer: work(HubWriter(writer.connection), writer))

    def cas_of(self, row: RepositoryRow) -> EmbeddedCas:
        """The store as a repository sees it: the files that are granted to its namespace."""
        options = self.options
        return self.cas.in_namespace(row.namespace, dedup=options.dedup, private=options.private_namespaces)

    def repository(self, actor: Actor, kind: Kind, name: str, right: Right = Right.SEE) -> Repository:
        """A repository by ``owner/name``, whatever the case, or by a name that it had before it was moved.

        Raises RepositoryNotFoundError, also where the actor may not know of it; GatedError or ForbiddenError where it
        may, but has not this right.
        """
        try:
            key = RepositoryName.parse(name, kind).key
        except UsageError:
            raise RepositoryNotFoundError from None
        with self.snapshot() as reader:
            row = reader.repository(key)
            if row is None:
                raise RepositoryNotFoundError
            return self.opened(reader, actor, row, right)

    def opened(self, reader: HubReader, actor: Actor, row: RepositoryRow, right: Right = Right.SEE) -> Repository:
        """The repository of a row, for an actor that has this right. Raises as :meth:`repository`."""
        is_accepted = row.gated is not None and actor.user_id is not None and reader.is_accepted(row.id, actor.user_id)
        held = right_of(actor, row, is_accepted=is_accepted, anonymous_reads=self.options.anonymous_reads)
        if held is None:
            raise RepositoryNotFoundError
        require(right, held, actor, row)
        return Repository(self, row, actor, held)

    def repositories(self, actor: Actor, listing: Listing) -> Sequence[RepositoryRow]:
        """A page of the repositories that an actor may see."""
        own = set(actor.orgs) | ({actor.name.lower()} if actor.name else set())
        sees_public = actor.is_known or self.options.anonymous_reads
        with self.snapshot() as reader:
            return reader.repositories(listing, own=own, is_admin=actor.is_admin, sees_public=sees_public)

    def create(
        self,
        actor: Actor,
        name: RepositoryName,
        *,
        visibility: str | None = None,
        sdk: str | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Repository:
        """Create a repository, with its first commit unless it is a bucket; ``files`` are in that, else the usual ones.

        Raises ExistsError where the name is taken by one that the actor may see, ForbiddenError where it may not create
        there, UsageError for an unknown visibility.
        """
        self.require_owner(actor, name)
        visibility = check_visibility(visibility or self.options.default_visibility)
        first = first_files(name, sdk) if files is None else files

        def add(writer: HubWriter, _: Writer) -> RepositoryRow:
            row = writer.add_repository(
                of_account(writer, actor, name),
                visibility=visibility,
                sdk=sdk,
                creator=actor.author,
                now=self.now(),
            )
            if name.kind.is_git:
                Repository(self, row, actor, Right.ADMIN).begin(writer, first)
            return row

        return Repository(self, self.change(add), actor, Right.ADMIN)

    def move(self, actor: Actor, kind: Kind, name: str, to: RepositoryName) -> Repository:
        """Give a repository another name or owner; the name before goes on to lead to it, until another takes that.

        Raises ExistsError where the new name is taken.
        """
        repository = self.repository(actor, kind, name, Right.ADMIN)
        self.require_owner(actor, to)

        def rename(writer: HubWriter, _: Writer) -> RepositoryRow:
            before = writer.kept_repository(repository.row.id)
            there = writer.repository(to.key)
            if there is not None and there.id != before.id and there.name.key == to.key:
                raise taken(to)
            name = of_account(writer, actor, to)
            writer.rename_repository(before, name)
            return replace(before, name=name)

        return Repository(self, self.change(rename), actor, repository.right)

    def update(
        self, actor: Actor, kind: Kind, name: str, *, visibility: str | None = None, gated: str | bool | None = None
    ) -> Repository:
        """Change who may read a repository; None leaves as it is, and False opens the gate."""
        repository = self.repository(actor, kind, name, Right.ADMIN)
        if gated not in (None, False, "auto", "manual"):
            raise UsageError("gated is auto, manual or false")
        chosen = None if visibility is None else check_visibility(visibility)

        def settle(writer: HubWriter, _: Writer) -> RepositoryRow:
            row = writer.kept_repository(repository.row.id)  # one setting does not undo another of the same moment
            row = replace(
                row,
                visibility=chosen or row.visibility,
                gated=row.gated if gated is None else str(gated) if gated else None,
            )
            writer.set_repository(row.id, visibility=row.visibility, gated=row.gated)
            return row

        return Repository(self, self.change(settle), actor, repository.right)

    def delete(self, actor: Actor, kind: Kind, name: str) -> None:
        """Delete a repository: its name is free, and nothing of it is read by anyone, at once.

        For a while all of it can be given back: see :func:`xetstore.hub.undeleting.undelete_repository`.
        """
        row = self.repository(actor, kind, name, Right.ADMIN).row

        def delete(writer: HubWriter, cas: Writer) -> float:
            writer.kept_repository(row.id)
            now = self.now()
            writer.delete_repository(row.id, now)
            cas.revoke_all(row.namespace, now=now)
            return now

        with self.cas.index.for_care():
            now = self.change(delete)
        note_deleted(self.cas, row.namespace, None, at=now)

    def require_owner(self, actor: Actor, name: RepositoryName) -> None:
        """Raise ForbiddenError, or UnauthenticatedError, unless an actor may create repositories of this owner."""
        if not actor.is_known:
            raise UnauthenticatedError("this needs a token")
        if (right_in(actor, name.owner) or 0) < Right.WRITE:
            raise ForbiddenError(
                f'You don\'t have the rights to create a {name.kind.word} under the namespace "{name.owner}"'
            )


def of_account(writer: HubWriter, actor: Actor, name: RepositoryName) -> RepositoryName:
    """The name with that of its owner as the account has it, which is not removed before the transaction ends.

    The admin may name an owner that has no account (yet). Raises ForbiddenError for others.
    """
    account = AccountQueries(writer.connection).account(name.owner, keep=True)
    if account is not None:
        return replace(name, owner=account.name)
    if not actor.is_admin:
        raise ForbiddenError(f'There is no account called "{name.owner}"')
    return name


def check_visibility(text: str) -> str:
    """``public`` or ``private``; ``protected`` is private. Raises UsageError."""
    if text == "protected":
        return PRIVATE
    if text not in (PUBLIC, PRIVATE):
        raise UsageError(f"{text[:80]!r} is no visibility", hint="public and private are")
    return text
