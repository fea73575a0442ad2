"""Secrets of one store into another: keys, revocations and the admin's token, all of them or none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from xetstore.access.secrets import DOCUMENTS, Secrets
from xetstore.errors import UsageError


def copy_secrets(source: Secrets, target: Secrets, last: Mapping[str, str]) -> dict[str, str]:
    """Copy all secret documents, and return the SHA-256 of each; ``last`` are those of the last copy.

    Keys that were made in the target are not replaced: tokens signed with them would be good for nothing. So a document
    is written where there is none, or the one that came with the last copy. Raises UsageError before any is written.
    """
    found = {name: document[0] for name in DOCUMENTS if (document := source.read(name)) is not None}
    copied = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    for name in found:
        there = target.read(name)
        if there is not None and hashlib.sha256(there[0]).hexdigest() not in (copied[name], last.get(name)):
            raise UsageError(
                f"{target.label(name)} of the target is its own, and not a copy of the source's",
                hint="copy without --secrets; or remove the secrets of the target first, and all its tokens with them",
            )
    for name, data in found.items():
        target.change(name, lambda old, data=data: None if old == data else data)  # type: ignore[misc]
    return copied
