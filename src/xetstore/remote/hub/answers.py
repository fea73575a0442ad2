"""The answers of a Hub: its errors by their headers, the links of a file, tokens, the entries of a folder, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

from xetstore.errors import (
    EntryNotFoundError,
    ExistsError,
    FormatError,
    GatedError,
    OutdatedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    UnprocessableError,
    UsageError,
    XetError,
)
from xetstore.protocol.hashes import Hash
from xetstore.records import EXECUTABLE_MODE, FILE_MODE, FOLDER_MODE, LINK_MODE, RepoFile
from xetstore.remote.hub.locators import ANY, SCHEME, HubLocator
from xetstore.remote.network import origin_of
from xetstore.remote.problems import problem_of
from xetstore.remote.tokens import MAX_TOKEN_CHARS, Secret, Token

if TYPE_CHECKING:
    from xetstore.remote.transport import Answer

_LINK: Final = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w*-]+(?:\s*=\s*(?:\"[^\"]*\"|[^\s;,\"]+))?)*)")
_REL: Final = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,\"]*))", re.IGNORECASE)
_KINDS: Final[dict[int, type[XetError]]] = {409: ExistsError, 412: OutdatedError, 422: UnprocessableError}
_SHA256: Final = re.compile("[0-9a-f]{64}")
_MODES: Final = {"100755": EXECUTABLE_MODE, "120000": LINK_MODE}
"""Modes that a server of ours tells; a Hub tells none."""
_PRIVATE: Final = "compare the name; a private repository is shown only to a token that may read it"


def same_origin(url: str, base: str) -> str | None:
    """``url``, made absolute by ``base``, if it is on the origin of ``base``; None if not, or if it is none."""
    try:
        absolute = urljoin(base, url)
        return absolute if absolute.isprintable() and origin_of(absolute) == origin_of(base) else None
    except (ValueError, UsageError):
        return None


def link(headers: Mapping[str, str], rel: str) -> str | None:
    """The target of the first link of a relation (RFC 8288)."""
    for target, parameters in _LINK.findall(headers.get("link", "")):
        named = _REL.search(parameters)
        if named is not None and rel in (named[1] or named[2] or "").lower().split():
            return str(target)
    return None


def error_of(answer: Answer, locator: HubLocator, what: str, secrets: tuple[str, ...] = ()) -> XetError:
    """The error of an answer to a call about ``locator``, which is read and closed. ``what`` says what the call was
    to do: "find the file". A Hub says by headers what it is that does not exist; the status alone does not.
    """
    status, code = answer.status, answer.headers.get("x-error-code") or ""
    is_hub = locator.scheme == SCHEME
    server = "the Hub" if is_hub else "the server"
    about = "" if locator.repo == ANY else f" for {locator}"
    private = f"{_PRIVATE}: {'HF_TOKEN' if is_hub else 'XET_TOKEN; a server that speaks no Hub API has no names'}"
    problem = problem_of(answer, f"{server} was to {what}{about}", secrets=secrets)
    repository = f"the repository {locator.root_name}"
    if code == "EntryNotFound":
        return EntryNotFoundError(
            f"{repository} has no {locator.path or 'such entry'!r} at {locator.revision or 'present'}"
        )
    if code == "RevisionNotFound":
        return RevisionNotFoundError(f"{repository} has no revision {locator.revision!r}", hint="main is the usual one")
    if code == "RepoNotFound":
        return RepositoryNotFoundError(
            f"{server} has no repository {locator.root_name}, or does not show it", hint=private
        )
    if code == "GatedRepo":
        return GatedError(
            f"{repository} is gated: {problem}", hint="ask for access on its page, and use a token of that account"
        )
    if status in _KINDS and not isinstance(problem, _KINDS[status]):
        return _KINDS[status](str(problem), hint=None)
    hints = {
        401: "set HF_TOKEN, or for a server that is not the Hub XET_TOKEN, to a token that is valid there: hf_…, as"
        " `xet token issue --user NAME` makes them",
        403: "the token needs this right on the repository; a fine-grained one of the Hub names its repositories",
        404: private,
    }
    problem.hint = hints.get(status, problem.hint)
    return problem


def hash_of(headers: Mapping[str, str]) -> Hash | None:
    """The file that X-Xet-Hash names, or None without one. Raises FormatError."""
    text = headers.get("x-xet-hash", "").strip()
    return _parsed_hash(text) if text else None


def size_of(headers: Mapping[str, str], *, whole: bool) -> int | None:
    """The size of a file: X-Linked-Size, else the Content-Length of an answer that would have been the ``whole``."""
    for name in ("x-linked-size", "content-length") if whole else ("x-linked-size",):
        text = headers.get(name, "").strip()
        if re.fullmatch("[0-9]{1,18}", text):
            return int(text)
    return None


def token_of(headers: Mapping[str, str], body: bytes) -> Token:
    """The token of a token route's answer: from its JSON, and what is not there from its headers."""
    told = _parsed(body)
    fields: dict[str, Any] = told if isinstance(told, dict) else {}
    secret = fields.get("accessToken") or headers.get("x-xet-access-token")
    cas_url = fields.get("casUrl") or headers.get("x-xet-cas-url")
    expires = fields.get("exp") or headers.get("x-xet-token-expiration")
    if not isinstance(secret, str) or not isinstance(cas_url, str):
        raise FormatError("hub.token", 0, "the Hub's token route answered without a token or without a CAS URL")
    try:
        held = Secret(secret)
        expires_at = None if expires is None else float(expires)
    except (UsageError, TypeError, ValueError):
        raise FormatError(
            "hub.token", 0, "the Hub's token route answered with a token or expiry that is none"
        ) from None
    try:
        if len(cas_url) > MAX_TOKEN_CHARS or not cas_url.isprintable() or set(cas_url) & set("?# "):
            raise UsageError("it is too long, or has more than a path")
        origin_of(cas_url)
    except UsageError as error:
        raise FormatError("hub.cas_url", 0, f"the Hub named a CAS URL that is none: {error}") from None
    return Token(held, expires_at, cas_url.rstrip("/"))


def entries_of(body: bytes) -> list[RepoFile]:
    """The entries of one page of a listing. Raises FormatError, also for a path that leads out of the repository."""
    told = _parsed(body)
    if not isinstance(told, list):
        raise FormatError("hub.tree", 0, "the Hub's listing is not a JSON array")
    return [_entry(item) for item in told]


def _entry(item: object) -> RepoFile:
    if not isinstance(item, dict) or not isinstance(path := item.get("path"), str) or not path:
        raise FormatError("hub.tree", 0, "an entry of the Hub's listing has no path")
    try:
        HubLocator("buckets", ANY, None, path)
    except UsageError as error:
        raise FormatError("hub.tree", 0, f"an entry of the Hub's listing is misnamed: {error}") from None
    oid = text_of(item, "oid")
    last = item.get("lastCommit")
    changed_at = seconds_of(last, "date") if isinstance(last, dict) else None
    if item.get("type") == "directory":
        return RepoFile(path, 0, oid, mode=FOLDER_MODE, changed_at=changed_at)
    size, digest, lfs = item.get("size"), item.get("xetHash"), item.get("lfs")
    if type(size) is not int or size < 0:
        raise FormatError("hub.tree", 0, f"the Hub's listing has no size for {path!r}")
    sha256 = text_of(lfs, "oid") if isinstance(lfs, dict) else ""
    return RepoFile(
        path,
        size,
        oid,
        _parsed_hash(digest) if isinstance(digest, str) else None,
        sha256 if _SHA256.fullmatch(sha256) else None,
        _MODES.get(text_of(item, "mode"), FILE_MODE),
        changed_at,
    )


def text_of(item: Mapping[str, Any], key: str) -> str:
    """A text of a JSON object; empty where there is none."""
    value = item.get(key)
    return value if isinstance(value, str) else ""


def object_of(body: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises FormatError."""
    told = _parsed(body)
    if not isinstance(told, dict):
        raise FormatError("hub.answer", 0, f"the Hub's answer about {what} is not a JSON object")
    return told


def objects_of(body: bytes, what: str) -> list[dict[str, Any]]:
    """A JSON array of objects. Raises FormatError."""
    told = _parsed(body)
    if not isinstance(told, list) or not all(isinstance(item, dict) for item in told):
        raise FormatError("hub.answer", 0, f"the Hub's answer about {what} is not a JSON array of objects")
    return told


def seconds_of(item: Mapping[str, Any], key: str) -> float | None:
    """A date of a JSON object in unix seconds; None where there is none."""
    try:
        return datetime.fromisoformat(text_of(item, key)).timestamp()
    except (ValueError, OverflowError):
        return None


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _parsed_hash(text: str) -> Hash:
    try:
        return Hash.parse(text)
    except UsageError as error:
        raise FormatError("hub.xet_hash", 0, f"the Hub named a file by what is no hash: {error}") from None
