"""Every error that xetstore raises on purpose, with its meaning for a caller, a shell and an HTTP client.

XetError                     code                 HTTP  exit  retryable
├── UsageError               usage                 400     2  no    the call itself is wrong (a ValueError)
│   ├── RangeError           range                 416     2  no    a byte range starts past the end
│   ├── TooLargeError        too_large             413     2  no    a body is longer than any valid one
│   ├── UnprocessableError   unprocessable         422     2  no    a path or a message that no repository takes
│   ├── WrongTypeError       usage                 400     2  no    an argument of another type (TypeError)
│   └── NotPicklableError    usage                 400     2  no    a store cannot travel to a process (TypeError)
├── NotFoundError            not_found             404     3  no    no such file, xorb or store (FileNotFoundError)
│   ├── RepositoryNotFoundError repository_not_found 404   3  no    no such repository, or none for this caller
│   ├── RevisionNotFoundError revision_not_found   404     3  no    no such branch, tag or commit
│   └── EntryNotFoundError   entry_not_found       404     3  no    no such file or folder at this revision
├── ExistsError              exists                409     1  no    the name is taken (FileExistsError)
├── OutdatedError            outdated              412     1  no    the branch has moved on since it was read
├── IntegrityError           integrity             400     4  no    bytes do not match their name
│   ├── FormatError          format                400     4  no    bytes break a rule of the format (ValueError)
│   ├── HashMismatchError    hash_mismatch         400     4  no    content and hash differ
│   ├── DamagedError         damaged               500     4  no    the store does not hold what was put
│   └── RejectedShardError   rejected_shard        400     4  no    a claim of a shard is not true
│       └── MissingXorbError missing_xorb          400     4  no    a shard names a xorb that is not stored
├── AccessDeniedError        denied                503     5  no    access is refused (PermissionError)
│   ├── UnauthenticatedError unauthenticated       401     5  no    no token, or one that is not valid here
│   │   └── MissingTokenError unauthenticated      401     5  no    no token came with the request
│   └── ForbiddenError       forbidden             403     5  no    a token or URL that does not allow this
│       └── GatedError       gated                 403     5  no    a repository whose files one has to ask for
├── UnavailableError         unavailable           503     6  yes   busy, locked or out of reach: try again (OSError)
│   ├── UnreachableError     unavailable           503     6  yes   no connection, or a broken one (ConnectionError)
│   ├── ConflictError        unavailable          503     6  yes   another writer was first; nothing was changed
│   ├── LeaseLostError       unavailable           503     6  yes   another runner has taken over this chore
│   ├── UnknownOutcomeError  unavailable          503     6  yes   it may have been changed, or not
│   ├── StorageFullError     storage_full          507     6  yes   no room; nothing was acknowledged
│   ├── TimedOutError        timeout               408     6  yes   a peer stopped sending (TimeoutError)
│   └── TooManyRequestsError too_many_requests     429     6  yes   asked too often: wait, then try again
├── QuotaExceededError       quota_exceeded        507     5  no    more than a namespace may have (OSError)
├── SourceChangedError       source_changed        409     1  yes   a file changed while it was read
└── InterruptedCallError     interrupted           499   130  no    the caller gave the call up

Each is also the builtin error that a caller may look for, in brackets; one below another is so too. Those that are an
OSError have an ``errno``, where there is one for all that they are raised for. All survive pickle and copy whole, so
that they reach the parent of a multiprocessing.Pool.
"""

from __future__ import annotations

import errno as numbers
from typing import TYPE_CHECKING, Any


class XetError(Exception):
    """Base of all errors raised on purpose. ``str(error)`` is one sentence; ``hint`` names a remedy.

    ``retry_after`` is how many seconds to wait before trying again, where that is known. ``errno`` is the number of the
    system's error that this one stands for, or None; ``strerror`` is the sentence, for callers that catch an OSError.
    """

    code = "error"
    http_status = 500
    exit_code = 1
    retryable = False
    retry_after: float | None = None
    # Named here, it is in the dictionary of the object, and not where OSError keeps it and no pickle finds it.
    errno: int | None = None
    if not TYPE_CHECKING:  # an attribute of OSError
        strerror = property(str)

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[XetError], args: tuple[Any, ...]) -> XetError:
    """An error without its fields. No constructor is called: each takes other arguments than the message."""
    error = kind.__new__(kind)
    error.args = args
    return error


class UsageError(XetError, ValueError):
    """The call itself is wrong: a malformed hash, a negative range, a directory where a file is needed."""

    code = "usage"
    http_status = 400
    exit_code = 2


class RangeError(UsageError):
    """A byte range starts at or past the end of the file (HTTP 416)."""

    code = "range"
    http_status = 416


class TooLargeError(UsageError):
    """A body is longer than anything valid can be (HTTP 413)."""

    code = "too_large"
    http_status = 413


class UnprocessableError(UsageError):
    """A path, a message or an operation that no repository takes (HTTP 422)."""

    code = "unprocessable"
    http_status = 422


class WrongTypeError(UsageError, TypeError):
    """An argument is of a type that is not taken. The message says what was given, and what is taken."""

    @classmethod
    def of(cls, role: str, given: object, taken: str) -> WrongTypeError:
        """The error of an argument, whose content is not shown: it may be long, or a secret.

        >>> str(WrongTypeError.of("what is put", None, "a path or bytes"))
        'what is put is a path or bytes, not None'
        """
        kind = type(given).__name__
        article = "an" if kind[:1].lower() in "aeiou" else "a"
        number = f" ({given!r:.40})" if isinstance(given, int | float) else ""
        return cls(f"{role} is {taken}, not {'None' if given is None else f'{article} {kind}{number}'}")


class NotPicklableError(UsageError, TypeError):
    """A store does not travel to another process, because a secret or a function would have to."""


class NotFoundError(XetError, FileNotFoundError):
    """No such file, xorb, shard or store; also the answer where the caller has no grant."""

    errno = numbers.ENOENT
    code = "not_found"
    http_status = 404
    exit_code = 3


class RepositoryNotFoundError(NotFoundError):
    """No such repository or bucket; also the answer where the caller may not know of it."""

    code = "repository_not_found"

    def __init__(self, message: str = "Repository not found", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)


class RevisionNotFoundError(NotFoundError):
    """No such branch, tag or commit."""

    code = "revision_not_found"


class EntryNotFoundError(NotFoundError):
    """No such file or folder at this revision. ``commit`` is the id of the commit that was looked at, or None."""

    code = "entry_not_found"

    def __init__(self, message: str, *, commit: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.commit = commit


class ExistsError(XetError, FileExistsError):
    """The name is taken: a repository, an account, a branch or a tag."""

    errno = numbers.EEXIST
    code = "exists"
    http_status = 409


class OutdatedError(XetError):
    """The branch has moved on since the caller read it; nothing was changed."""

    code = "outdated"
    http_status = 412


class IntegrityError(XetError):
    """Bytes do not match their name. Nothing of them was accepted or delivered."""

    code = "integrity"
    http_status = 400
    exit_code = 4


class FormatError(IntegrityError, ValueError):
    """Bytes break a rule of the format.

    ``rule`` is a short stable name of the rule broken (``"chunk.version"``), ``offset`` the byte offset
    of the field in the object that was parsed, ``detail`` what was found.
    """

    code = "format"

    def __init__(self, rule: str, offset: int, detail: str) -> None:
        super().__init__(f"{detail} (rule {rule}, at byte {offset})")
        self.rule = rule
        self.offset = offset
        self.detail = detail


class HashMismatchError(IntegrityError):
    """Content and hash differ; ``what`` names the object, ``expected`` and ``actual`` are hash strings."""

    code = "hash_mismatch"

    def __init__(self, what: str, *, expected: str, actual: str) -> None:
        super().__init__(f"{what} does not match its hash: expected {expected}, got {actual}")
        self.what = what
        self.expected = expected
        self.actual = actual


class DamagedError(IntegrityError):
    """Damage in the store: it does not hold what was stored. Not a fault of the caller."""

    code = "damaged"
    http_status = 500


class RejectedShardError(IntegrityError):
    """A claim of a shard is not true of its xorbs: a range, a length, a verification hash or a file hash."""

    code = "rejected_shard"


class MissingXorbError(RejectedShardError):
    """A shard names a xorb that is not stored; ``xorb`` is its hash string."""

    code = "missing_xorb"

    def __init__(self, xorb: str) -> None:
        super().__init__(
            f"the shard names xorb {xorb}, which is not stored",
            hint="upload every xorb before its shard; a client cache that says it is stored is stale: remove it"
            " (~/.cache/huggingface/xet of hf_xet)",
        )
        self.xorb = xorb


class AccessDeniedError(XetError, PermissionError):
    """The operating system or the store refuses access. Of a server: it may not do its own work."""

    errno = numbers.EACCES
    code = "denied"
    http_status = 503
    exit_code = 5


class UnauthenticatedError(AccessDeniedError):
    """There is no token, or it is not valid here (any more). Never says more of the token than that."""

    code = "unauthenticated"
    http_status = 401


class MissingTokenError(UnauthenticatedError):
    """No token came with a request that needs one. One that came and is not valid is its base."""


class ForbiddenError(AccessDeniedError):
    """The token's scope, or the signature of a URL, does not allow this."""

    code = "forbidden"
    http_status = 403


class GatedError(ForbiddenError):
    """The files of a gated repository, of which the caller is none of the readers."""

    code = "gated"


class UnavailableError(XetError, OSError):
    """Busy, locked or out of reach; the same call may succeed later."""

    code = "unavailable"
    http_status = 503
    exit_code = 6
    retryable = True


class UnreachableError(UnavailableError, ConnectionError):
    """There is no connection to a server, or it broke."""


class ConflictError(UnavailableError):
    """Another writer changed the same rows at the same time, and this one gave way: nothing of it was changed."""


class LeaseLostError(UnavailableError):
    """Another runner has taken over a chore of the store; this one has changed nothing since."""


class UnknownOutcomeError(UnavailableError):
    """The connection broke while a change was being committed: all of it is durable, or nothing is.

    What would be wrong in one of the two cases must not be done, such as removing an object that a row may name. The
    same call again does no harm, and tells.
    """


class StorageFullError(UnavailableError):
    """No room (or no inode, or quota) left; what was being written was not acknowledged."""

    errno = numbers.ENOSPC
    code = "storage_full"
    http_status = 507


class QuotaExceededError(XetError, OSError):
    """More than a namespace, or its owner, may have; nothing was registered. The message says used and limit."""

    errno = numbers.EDQUOT
    code = "quota_exceeded"
    http_status = 507
    exit_code = 5


class TimedOutError(UnavailableError, TimeoutError):
    """A peer stopped sending, or sends too slowly to wait for."""

    errno = numbers.ETIMEDOUT
    code = "timeout"
    http_status = 408


class TooManyRequestsError(UnavailableError):
    """Asked too often; ``retry_after`` says when to ask again."""

    code = "too_many_requests"
    http_status = 429


class SourceChangedError(XetError):
    """A file changed while it was being read; nothing was registered for it."""

    code = "source_changed"
    http_status = 409
    retryable = True


class InterruptedCallError(XetError):
    """The caller gave this call up: nothing is wrong with it."""

    code = "interrupted"
    http_status = 499
    exit_code = 130


_KINDS: dict[int | None, type[XetError]] = {
    numbers.ENOENT: NotFoundError,
    numbers.EACCES: AccessDeniedError,
    numbers.EPERM: AccessDeniedError,
    numbers.EROFS: AccessDeniedError,
    numbers.ENOSPC: StorageFullError,
    numbers.EDQUOT: StorageFullError,
    numbers.EFBIG: StorageFullError,
    numbers.EMFILE: UnavailableError,
    numbers.ENFILE: UnavailableError,
    numbers.EBUSY: UnavailableError,
    numbers.ETIMEDOUT: UnavailableError,
    numbers.EISDIR: UsageError,
    numbers.ENOTDIR: UsageError,
    numbers.EEXIST: UsageError,
    numbers.ENAMETOOLONG: UsageError,
    numbers.ELOOP: UsageError,
}


def kind_of(error: OSError) -> type[XetError]:
    """Which of the errors above an error of the operating system is; XetError itself for any other."""
    return _KINDS.get(error.errno, XetError)
