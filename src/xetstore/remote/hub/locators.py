"""Locators: names of repositories, buckets and files, and the routes that serve them. Pure.

``hf://`` is the Hub's, ``xet://`` that of the store at hand; what follows is the same.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote

from xetstore.errors import UsageError
from xetstore.records import RepositoryId

SCHEME: Final = "hf://"
STORE_SCHEME: Final = "xet://"
SCHEMES: Final = (SCHEME, STORE_SCHEME)
KINDS: Final = ("models", "datasets", "spaces", "buckets")
DEFAULT_REVISION: Final = "main"
ANY: Final = "any/any"
"""The name of no repository: of calls that are about all of them."""

_EXAMPLE: Final = "for example hf://models/openai/whisper-tiny@main/model.safetensors"
_EXAMPLES: Final = {SCHEME: _EXAMPLE, STORE_SCHEME: "for example xet://alice/bert@main/config.json"}
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,96}")
# The revisions that are written with their slashes: pull requests and conversions.
_SLASHED_REVISION: Final = re.compile(r"refs/(?:convert/[A-Za-z0-9_.-]+|pr/[0-9]+)(?=/|$)")
_MAX_PATH_CHARS: Final = 4096


@dataclass(frozen=True, slots=True)
class HubLocator:
    """A repository on a Hub at some revision, or a bucket, or a file or folder of one.

    ``kind`` is one of ``KINDS``; ``repo`` is ``namespace/name``, or the one-part name of an old repository;
    ``revision`` a branch, tag, commit or ref, None for a bucket and only there; ``path`` the file or folder, without
    slashes around it, empty for the whole; ``scheme`` one of ``SCHEMES``. Raises UsageError for anything that is no
    such thing.

    >>> locator = HubLocator.parse("hf://datasets/ns/name@refs/convert/parquet/part 1.parquet")
    >>> locator.repo, locator.revision, locator.path
    ('ns/name', 'refs/convert/parquet', 'part 1.parquet')
    >>> locator.resolve_route
    '/datasets/ns/name/resolve/refs%2Fconvert%2Fparquet/part%201.parquet'
    """

    kind: str
    repo: str
    revision: str | None = DEFAULT_REVISION
    path: str = ""
    scheme: str = SCHEME

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(
                f"{self.kind[:80]!r} is not a kind of repository", hint=f"the kinds are {', '.join(KINDS)}"
            )
        parts = self.repo.split("/")
        if len(parts) > 2 or not all(_NAME.fullmatch(part) and part not in (".", "..") for part in parts):
            raise UsageError(f"{self.repo[:200]!r} is not the name of a repository", hint=_EXAMPLES[self.scheme])
        if self.kind == "buckets":
            if len(parts) != 2:
                raise UsageError(
                    f"{self.repo!r} is not the name of a bucket",
                    hint="for example hf://buckets/namespace/name/folder/file",
                )
            if self.revision is not None:
                raise UsageError("a bucket has no revisions", hint="leave out what follows the @, and the @")
        elif self.revision is None:
            raise UsageError(f"{self.repo} needs a revision", hint=f"the usual one is {DEFAULT_REVISION}")
        else:
            _check_path(self.revision, "revision")
        if self.path:
            _check_path(self.path, "path")

    @classmethod
    def parse(cls, text: str) -> HubLocator:
        """Read ``hf://[kind/]namespace/name[@revision][/path]``, or ``xet://`` and so on; without a kind it is a model.

        In a revision, other than a pull request's or a conversion's, ``%2F`` stands for a slash. A repository with a
        one-part name needs kind and revision: ``hf://models/gpt2@main/config.json``.
        """
        scheme = next((scheme for scheme in SCHEMES if text.startswith(scheme)), None)
        if scheme is None:
            raise UsageError(f"{text[:200]!r} does not start with {SCHEME}", hint=_EXAMPLE)
        kind, slash, rest = text.removeprefix(scheme).partition("/")
        explicit = kind in KINDS
        if not explicit:
            kind, rest = "models", f"{kind}{slash}{rest}"
        parts = rest.split("/")
        count = 1 if "@" in parts[0] or len(parts) == 1 else 2
        if count == 1 and not explicit:
            raise UsageError(f"{text[:200]!r} names no repository", hint=_EXAMPLES[scheme])
        repo, at, start = "/".join(parts[:count]).partition("@")
        if kind == "buckets":
            if at:
                raise UsageError("a bucket has no revisions", hint="leave out the @ and what follows it up to the /")
            return cls(kind, repo, None, "/".join(parts[count:]).removesuffix("/"), scheme)
        if not at:
            return cls(kind, repo, DEFAULT_REVISION, "/".join(parts[count:]).removesuffix("/"), scheme)
        revision, path = _split_revision("/".join([start, *parts[count:]]))
        return cls(kind, repo, revision, path.removesuffix("/"), scheme)

    def __str__(self) -> str:
        at = ""
        if self.revision is not None and (self.revision != DEFAULT_REVISION or "/" not in self.repo):
            slashed = _SLASHED_REVISION.fullmatch(self.revision)
            at = "@" + (self.revision if slashed else self.revision.replace("%", "%25").replace("/", "%2F"))
        name = self.root_name if self.scheme == SCHEME or "/" not in self.repo else self.id.path
        return f"{self.scheme}{name}{at}" + (f"/{self.path}" if self.path else "")

    @property
    def root_name(self) -> str:
        """Kind and name: ``models/ns/name``."""
        return f"{self.kind}/{self.repo}"

    @property
    def id(self) -> RepositoryId:
        """The repository, without revision and path."""
        return RepositoryId(self.kind, self.repo)

    def at(self, path: str) -> HubLocator:
        """The same revision of the same repository at another path."""
        return replace(self, path=path)

    @property
    def api_route(self) -> str:
        """Path of the URL of the repository in the API."""
        return f"/api/{self.root_name}"

    @property
    def revision_segment(self) -> str:
        """The revision as one segment of a path, behind a slash; empty for a bucket."""
        return "" if self.revision is None else f"/{quote(self.revision, safe='')}"

    @property
    def resolve_route(self) -> str:
        """Path of the URL that a file of a repository is found at."""
        root = self.repo if self.kind == "models" else self.root_name
        return f"/{root}/resolve{self.revision_segment}/{quote(self.path)}"

    @property
    def tree_route(self) -> str:
        """Path of the URL that lists a folder. That of a bucket takes any prefix, so the folder's slash is in it."""
        if self.kind == "buckets":
            return f"/api/{self.root_name}/tree" + (f"/{quote(self.path + '/', safe='')}" if self.path else "")
        return f"/api/{self.root_name}/tree{self.revision_segment}" + (f"/{quote(self.path)}" if self.path else "")

    def token_route(self, scope: str) -> str:
        """Path of the URL that gives tokens of a scope, ``read`` or ``write``, for this repository and revision."""
        return f"/api/{self.root_name}/xet-{scope}-token{self.revision_segment}"


def repository_id(text: str) -> RepositoryId:
    """A repository by its name, such as ``alice/bert``, ``datasets/alice/news`` or ``xet://alice/bert``.

    >>> repository_id("alice/bert")
    RepositoryId(kind='models', name='alice/bert')
    """
    locator = HubLocator.parse(text if text.startswith(SCHEMES) else f"{STORE_SCHEME}{text}")
    if locator.path or "@" in text:
        raise UsageError(f"{text[:200]!r} is more than the name of a repository", hint="leave out revision and path")
    return locator.id


def _split_revision(text: str) -> tuple[str, str]:
    """Split what follows an @ into revision and path."""
    if (slashed := _SLASHED_REVISION.match(text)) is not None:
        return slashed[0], text[slashed.end() + 1 :]
    quoted, _, path = text.partition("/")
    try:
        return unquote(quoted, errors="strict"), path
    except UnicodeDecodeError:
        raise UsageError(f"the revision {quoted[:200]!r} is not UTF-8 when it is decoded", hint=_EXAMPLE) from None


def _check_path(text: str, what: str) -> None:
    if len(text) > _MAX_PATH_CHARS:
        raise UsageError(f"the {what} is longer than {_MAX_PATH_CHARS} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UsageError(f"the {what} {text[:200]!r} holds a control character", hint=_EXAMPLE)
    if any(segment in ("", ".", "..") for segment in text.split("/")):
        raise UsageError(f"the {what} {text[:200]!r} has an empty segment, or one that is . or ..", hint=_EXAMPLE)
