"""AccountCopier: users, organizations, members and tokens of one store into another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from xetstore.batches import batches
from xetstore.database.connection import Row
from xetstore.hub.copying.rows import TwoStores
from xetstore.hub.queries import HubReader, HubWriter
from xetstore.hub.queries.accounts import AccountChanges
from xetstore.hub.queries.copying import ACCOUNTS, MEMBERS, PAGE_ROWS, TOKENS

_NAME: Final = 1
_NAME_KEY: Final = 2
"""Places in a row of accounts."""
_USER: Final = 1
"""Place in a row of tokens, and of members behind the organization."""


class AccountCopier:
    """Copies accounts, which keep their ids: those are random. To be called by one thread."""

    def __init__(self, stores: TwoStores) -> None:
        self._stores = stores

    def remove_gone(self) -> None:
        """Remove accounts of the target that came from the source, and are not there any more.

        One that has repositories in the target stays, without its tokens and memberships.
        """
        stores, behind = self._stores, 0
        while stores.source_id and stores.has_target and not stores.run.is_dry:
            with stores.target() as reader:
                page = reader.copied_accounts(stores.source_id, behind)
            with stores.source() as reader:
                there = {row[0] for row in reader.with_values(ACCOUNTS, "id", page)}
            for number in page:
                if number not in there:
                    stores.change(lambda writer, gone=number: self._remove(writer, gone))  # type: ignore[misc]
            if len(page) < PAGE_ROWS:
                return
            behind = page[-1]

    def _remove(self, writer: HubWriter, number: int) -> None:
        changes = AccountChanges(writer.connection)
        writer.lock_out(self._stores.source_id, number)
        for row in writer.with_values(ACCOUNTS, "id", [number]):
            if changes.first_repository(row[_NAME]) is None:
                changes.remove(number)

    def copy(self, *, tokens: bool) -> set[str]:
        """Copy accounts and members, and tokens too where that is asked for.

        Returns the name keys, in lower case, that another account has in the target: those are problems.
        """
        stores = self._stores
        refused: set[str] = set()
        for page in batches(stores.rows(ACCOUNTS, {}), PAGE_ROWS):
            refused |= self._copy_page(page)
        stores.mirror(MEMBERS, {}, {}, admit=self._whose_accounts_are_there, may_go=self._of_the_source)
        if tokens:
            stores.tally.tokens += stores.mirror(
                TOKENS, {}, {}, admit=self._whose_users_are_there, may_go=self._whose_users_are_of_the_source
            )
        return refused

    def _copy_page(self, page: Sequence[Row]) -> set[str]:
        stores = self._stores
        taken: set[str] = set()
        there: dict[int, Row] = {}
        if stores.has_target:
            with stores.target() as reader:
                there = {row[0]: row for row in reader.with_values(ACCOUNTS, "id", [row[0] for row in page])}
                named = reader.with_values(ACCOUNTS, "name_key", [row[_NAME_KEY] for row in page])
            ids = {row[_NAME_KEY]: row[0] for row in page}
            taken = {row[_NAME_KEY] for row in named if row[0] != ids[row[_NAME_KEY]]}
        for row in page:
            if row[_NAME_KEY] in taken:
                stores.report(
                    f"account {row[_NAME]}", "the target has another account of this name; it and its repositories stay"
                )
        right = [row for row in page if row[_NAME_KEY] not in taken]
        new = [row for row in right if there.get(row[0]) != row]
        stores.tally.accounts += len(new)
        if not stores.run.is_dry:
            stores.change(lambda writer: self._write(writer, new, [row[0] for row in right]))
        return taken

    def _write(self, writer: HubWriter, rows: Sequence[Row], ids: Sequence[int]) -> None:
        writer.put_rows(ACCOUNTS, {}, rows)
        if self._stores.source_id:
            lacking = {*ids} - writer.are_copied(self._stores.source_id, ids)
            writer.note_accounts(self._stores.source_id, sorted(lacking))

    def _whose_accounts_are_there(self, reader: HubReader, rows: Sequence[Row]) -> list[Row]:
        known = _known(reader, (number for row in rows for number in row[:2]))
        return [row for row in rows if {*row[:2]} <= known]

    def _whose_users_are_there(self, reader: HubReader, rows: Sequence[Row]) -> list[Row]:
        known = _known(reader, (row[_USER] for row in rows))
        return [row for row in rows if row[_USER] in known]

    def _of_the_source(self, reader: HubReader, rows: Sequence[Row]) -> list[Row]:
        copied = reader.are_copied(self._stores.source_id, (number for row in rows for number in row[:2]))
        return [row for row in rows if {*row[:2]} <= copied]

    def _whose_users_are_of_the_source(self, reader: HubReader, rows: Sequence[Row]) -> list[Row]:
        copied = reader.are_copied(self._stores.source_id, (row[_USER] for row in rows))
        return [row for row in rows if row[_USER] in copied]


def _known(reader: HubReader, accounts: Iterator[int]) -> set[int]:
    return {row[0] for row in reader.with_values(ACCOUNTS, "id", accounts)}
