"""Names of the hub: repositories, accounts, refs and paths. Pure; a value that exists is valid."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from xetstore.errors import UnprocessableError, UsageError

MAX_PATH_BYTES: Final = 1024
MAX_REF_BYTES: Final = 244
"""As git has it for a file of that name, with `refs/heads/` before it."""
MAIN: Final = "refs/heads/main"
HEADS: Final = "refs/heads/"
TAGS: Final = "refs/tags/"
PULL_REQUESTS: Final = "refs/pr/"

SET_ASIDE: Final = "_deleted"
"""The owner of repositories of a copy that its source has deleted. No account has the name."""

RESERVED: Final = frozenset(
    (
        *("api", "buckets", "cas", "chunk", "chunks", "datasets", "favicon.ico", "git", "health", "join", "kernels"),
        *("login", "me", "metrics", "models", "new", "oauth", "openapi.json", "orgs", "organizations"),
        *("reconstruction", "reconstructions", "resolve", "settings", "shard", "shards", "spaces", "static", "users"),
        *("v1", "v2", "xorb", "xorbs"),
    )
)
"""Names that no account has: paths of a server begin with them."""

_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_REF_REFUSED: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[/.]|[/.]$|^@$")
# Windows takes a backslash for a slash; the rest disturbs terminals and HTTP.
_PATH_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f\\]")


class Kind(StrEnum):
    """A kind of repository, as paths of the Hub's API have it."""

    MODELS = "models"
    DATASETS = "datasets"
    SPACES = "spaces"
    KERNELS = "kernels"
    BUCKETS = "buckets"

    @property
    def word(self) -> str:
        """The kind of one repository: ``model``."""
        return self.value.removesuffix("s")

    @property
    def is_git(self) -> bool:
        """True if repositories of this kind have revisions."""
        return self is not Kind.BUCKETS

    @classmethod
    def of_word(cls, word: str | None) -> Kind:
        """The kind by its word, or by its value; a model if there is none. Raises UsageError."""
        if word is None:
            return cls.MODELS
        for kind in cls:
            if word in (kind.word, kind.value):
                return kind
        raise UsageError(f"{word[:80]!r} is no kind of repository", hint=f"the kinds are {', '.join(cls)}")


@dataclass(frozen=True, slots=True)
class RepositoryName:
    """A kind, an owner and a name. Raises UsageError for what no repository can be called.

    >>> name = RepositoryName.parse("Alice/bert", Kind.MODELS)
    >>> name.id, name.key, name.path
    ('Alice/bert', 'models/alice/bert', 'Alice/bert')
    """

    kind: Kind
    owner: str
    name: str

    def __post_init__(self) -> None:
        check_account_name(self.owner)
        if not _is_name(self.name) or self.name.endswith((".git", ".ipynb")):
            raise UsageError(
                f"{self.name[:100]!r} is not the name of a repository",
                hint="up to 96 letters, digits, '-', '_' and '.', without '--' and '..', not ending in .git",
            )

    @classmethod
    def parse(cls, text: str, kind: Kind) -> RepositoryName:
        """Read ``owner/name``."""
        owner, slash, name = text.partition("/")
        if not slash:
            raise UsageError(f"{text[:100]!r} names no owner", hint="a repository is called owner/name")
        return cls(kind, owner, name)

    @property
    def id(self) -> str:
        """``owner/name``."""
        return f"{self.owner}/{self.name}"

    @property
    def key(self) -> str:
        """The name by which repositories are told apart: without regard to case."""
        return f"{self.kind}/{self.owner}/{self.name}".lower()

    @property
    def path(self) -> str:
        """The path of its page: ``datasets/owner/name``, of a model without the kind."""
        return self.id if self.kind is Kind.MODELS else f"{self.kind}/{self.id}"

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"


def check_account_name(name: str) -> str:
    """The name of a user or an organization, if it is one; UsageError otherwise.

    >>> check_account_name("julien-c")
    'julien-c'
    """
    if not _is_name(name) or name.lower() in RESERVED:
        raise UsageError(
            f"{name[:100]!r} is not the name of an account",
            hint="up to 96 letters, digits, '-', '_' and '.', without '--' and '..'; some words are taken",
        )
    return name


def is_account_name(name: str) -> bool:
    """True if an account may be called so, were the name not reserved."""
    return _is_name(name)


def account_key(name: str) -> str:
    """The name by which accounts are told apart: without regard to case. A letter that is not ASCII stays as it is,
    because some of these have ASCII letters for their small ones.

    >>> account_key("DVUser"), account_key("\u212aim")
    ('dvuser', '\u212aim')
    """
    return name.lower() if name.isascii() else name


def check_path(path: str) -> str:
    """The path of a file or folder in a repository, if it is one; UnprocessableError otherwise.

    Parts are separated by slashes; none is empty, ``.``, ``..`` or ``.git``.

    >>> check_path("data/part 1.parquet")
    'data/part 1.parquet'
    """
    parts = path.split("/")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_PATH_BYTES or _PATH_REFUSED.search(path) or any(_is_odd_part(part) for part in parts):
        raise UnprocessableError(
            f"{path[:200]!r} is not a path in a repository",
            hint="parts between slashes, none of them '.', '..' or '.git', no backslash, at most 1024 bytes",
        )
    return path


def add_with_folders(found: set[str], path: str) -> None:
    """Add a path, and the folders above it.

    >>> found = {"a"}
    >>> add_with_folders(found, "a/b/c")
    >>> sorted(found)
    ['a', 'a/b', 'a/b/c']
    """
    while path and path not in found:
        found.add(path)
        path = path.rpartition("/")[0]


def check_ref(name: str) -> str:
    """A branch or tag without its ``refs/heads/``, if git takes it for one; UsageError otherwise.

    >>> check_ref("feature/x")
    'feature/x'
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_REF_BYTES or _REF_REFUSED.search(name) or name.startswith("-") or name == "HEAD":
        raise UsageError(f"{name[:200]!r} is not the name of a branch or a tag")
    return name


def branch_ref(name: str) -> str:
    """The ref of a branch, by its name or in full. UsageError: others are made by what they stand for, as a tag is.

    >>> branch_ref("dev"), branch_ref("refs/heads/dev")
    ('refs/heads/dev', 'refs/heads/dev')
    """
    short = check_ref(name.removeprefix(HEADS))
    if short.startswith("refs/"):
        raise UsageError(f"{name[:200]!r} is not the name of a branch")
    return HEADS + short


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and "--" not in name and ".." not in name


def _is_odd_part(part: str) -> bool:
    return part in ("", ".", "..") or part.lower() == ".git" or len(part.encode("utf-8", "surrogatepass")) > 255
