"""Quotas: set, list and remove them, and count anew what is used.

A quota is for a namespace, and for the repositories of an owner of that name. Its bytes are those of the files that are
granted, as long as these are, whatever is shared. Changes of grants keep the numbers in their own transactions (see
:mod:`xetstore.cas.index.queries.quotas`), so a crash cannot make them wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from xetstore.cas.index import Index, Writer
from xetstore.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from xetstore.cas.index.queries.quotas import Quota
    from xetstore.cas.service import EmbeddedCas

MAX_NAME: Final = 255

Members: TypeAlias = Callable[[Writer, str], Collection[str]]
"""The namespaces that count towards a quota, by its name: these are kept as they are until the transaction ends."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A quota whose numbers are not what its files have: ``noted`` and ``counted``, in bytes and files."""

    name: str
    noted: tuple[int, int]
    counted: tuple[int, int]


def set_quota(
    cas: EmbeddedCas, name: str, *, max_bytes: int | None, max_files: int | None, members: Members | None = None
) -> Quota:
    """Set the limits of a namespace, or of an owner; None for no limit. It may be less than is used: then nothing more
    is taken. Counts the files that are there, while no other changes grants.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise UsageError(f"{name[:80]!r} is no namespace")
    if any(most is not None and most < 0 for most in (max_bytes, max_files)):
        raise UsageError("a quota is a number of bytes or files")
    members = members or _itself

    def change(writer: Writer) -> Quota:
        namespaces = {name, *members(writer, name)}
        return writer.set_quota(name, max_bytes=max_bytes, max_files=max_files, namespaces=namespaces)

    return cas.index.change(change)


def remove_quota(cas: EmbeddedCas, name: str) -> None:
    """Remove a quota. Raises NotFoundError."""
    if not cas.index.change(lambda writer: writer.remove_quota(name)):
        raise NotFoundError(f"{name} has no quota")


def quotas(cas: EmbeddedCas) -> Iterator[Quota]:
    """All quotas, by name."""
    for page in cas.index.pages(lambda reader, behind: reader.quotas_after(behind), lambda quota: quota.name, ""):
        yield from page


def differences(cas: EmbeddedCas) -> Iterator[Difference]:
    """The quotas whose numbers are not what their files have. Looks at all of these files."""
    for quota in quotas(cas):
        with cas.index.snapshot() as reader:
            noted, counted = reader.quota(quota.name), reader.counted(quota.name)
        if noted is not None and (noted.used_bytes, noted.used_files) != counted:
            yield Difference(quota.name, (noted.used_bytes, noted.used_files), counted)


def recount(cas: EmbeddedCas, members: Members | None = None) -> list[Difference]:
    """Count all quotas anew, and mend those that are wrong, which are returned.

    With ``members`` the namespaces of each are looked up, too: so after the index was made anew.
    """
    wrong = []
    for quota in quotas(cas):

        def mend(writer: Writer, name: str = quota.name) -> Difference | None:
            before = writer.quota(name)
            if before is None:
                return None
            if members is None:
                after = writer.recount(name)
            else:
                namespaces = {name, *members(writer, name)}
                after = writer.set_quota(
                    name, max_bytes=before.max_bytes, max_files=before.max_files, namespaces=namespaces
                )
            noted, counted = ((each.used_bytes, each.used_files) for each in (before, after))
            return None if noted == counted else Difference(name, noted, counted)

        if (difference := cas.index.change(mend)) is not None:
            wrong.append(difference)
    return wrong


def require_room(index: Index, namespace: str, sizes: Collection[int] = (), *, are_new: bool = False) -> None:
    """Raise QuotaExceededError where a namespace has no room for files of these sizes, or for anything at all.

    Before anything of them comes: where it is not said that they ``are_new``, those count that certainly are, because
    no file there is of that size.
    """
    with index.snapshot() as reader:
        found = reader.quotas_of(namespace)
        if not found:
            return
        counted: Collection[int] = sizes
        if sizes and not are_new:
            counted = {*sizes} - reader.sizes_among(namespace, sizes)
    if counted or not sizes:
        for quota in found:
            quota.require(sum(counted), len(counted))


def _itself(_: Writer, name: str) -> Collection[str]:
    return (name,)
