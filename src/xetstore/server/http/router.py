"""Router: from a path as it was sent to its route and its parameters.

A path is matched as it was sent and a parameter decoded after that, exactly once; so ``%2F`` within a segment never
becomes a slash between two. Starlette's router matches the decoded path, which cannot tell the two. It also asks one
route after the other: 4 µs for a dedup query, the sixth of 27 routes, and 12 µs for a path that is none. Here a path is
walked down segment by segment, for 1.3 and 1.0 µs however many routes there are.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from xetstore.server.http.problems import NoSuchPathError

if TYPE_CHECKING:
    from starlette.responses import Response

    from xetstore.access.tokens import Caller
    from xetstore.errors import XetError

Handler = Callable[[Request], Awaitable["Response"]]

_KINDS: Final = ("", "text", "path", "folder")
"""The kinds of parameters, in the order in which they are tried, after the segments that are written out."""
_RESTS: Final = ("path", "folder")
_PARAMETER: Final = re.compile(r"{(\w+)(?::(\w+))?}")
_SEGMENT: Final = re.compile(r"{(\w+)(?::(\w+))?}(\.[A-Za-z0-9]+)?")
_SLASHES: Final = re.compile(rb"/{2,}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")
# RFC 3986, 3.3: the characters of a path; an escape is a percent sign and two hexadecimal digits. And those that
# browsers send as they are (WHATWG URL: the path percent-encode set lacks them).
_SENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/\[\]|^-]|%[0-9A-Fa-f]{2})+")
_NAMELESS: Final = frozenset({"", ".", ".."})


@dataclass(frozen=True, slots=True)
class Miss:
    """An answer that is known at once: an error, to this caller. ``count`` is called when it is given."""

    error: XetError
    caller: Caller
    count: Callable[[], None]


@dataclass(frozen=True)
class Route:
    """A path with parameters, and a handler for each method.

    ``{hash}`` is a segment of letters, digits and ``._~-``, in no other spelling. ``{rev:text}`` is any segment,
    decoded: ``refs/pr/1`` of ``refs%2Fpr%2F1``. ``{path:path}``, at the end, is all the rest, decoded as well.
    No parameter is empty, or has a part between slashes that is empty, ``.`` or ``..``, however it is encoded.
    ``{path:folder}`` is such a rest that may end in a slash, which it keeps, or be empty. ``{name}.git``, or
    ``{name:text}.git``, is a segment with that ending, which the parameter has not.

    A route that is not ``limited`` answers however often it is asked. ``miss_at_once`` is asked first, of a GET, in the
    event loop: what its handler would say after more work, or None. It counts nothing, and raises an XetError to leave
    the request to the handler.

    A route that ``is_hub`` knows its caller before its handler runs, and fails as clients of the Hub understand it.
    One that ``answers_pages`` does so for pages of any site, where tokens are asked for. One that ``is_last`` counts
    only where no other route has the path. ``mount`` is put before the path, and no part of the template.
    """

    path: str
    handlers: Mapping[str, Handler]
    limited: bool = True
    miss_at_once: Callable[[Request], Miss | None] | None = None
    is_hub: bool = False
    answers_pages: bool = False
    is_last: bool = False
    mount: str = ""

    @cached_property
    def template(self) -> str:
        """The path with its parameters as OpenAPI has them: ``/tree/{rev}/{path}``."""
        return _PARAMETER.sub(r"{\1}", self.path)

    @property
    def parameters(self) -> dict[str, str]:
        """The names in braces, in order, and the kind of each: ``text``, ``path``, or an empty one."""
        return dict(_PARAMETER.findall(self.path))


def reading(handler: Handler) -> dict[str, Handler]:
    """The methods of a handler that reads."""
    return {"GET": handler, "HEAD": handler}


class Routes:
    """The routes of a server. A segment that is written out goes before a parameter, and one segment before the rest.

    A proxy may or may not take off ``prefix``, the path of the public URL: so both forms are known.
    """

    def __init__(self, routes: tuple[Route, ...], prefix: str = "") -> None:
        self.all = routes
        self._prefix = prefix
        self._root, self._last = _Node(), _Node()
        for route in routes:
            (self._last if route.is_last else self._root).add(route)

    def resolve(self, raw_path: bytes) -> tuple[str, Route, dict[str, str]]:
        """A path as sent: as we spell it, not decoded, without the mount; its route and parameters.

        Raises NoSuchPathError.
        """
        path = (_SLASHES.sub(b"/", raw_path) if b"//" in raw_path else raw_path).decode("latin-1")
        found = self.find(path)
        if found is None and self._prefix and path.startswith(self._prefix + "/"):
            path = path.removeprefix(self._prefix)
            found = self.find(path)
        if found is None:
            raise NoSuchPathError
        return path.removeprefix(found[0].mount), *found

    def find(self, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a path, and its parameters, decoded."""
        if not path.startswith("/"):
            return None
        segments = path.split("/")
        for root in (self._root, self._last):
            values: list[str] = []
            end = root.find(segments, 1, values)
            if end is not None:
                return end[0], dict(zip(end[1], values, strict=True))
        return None


_End = tuple[Route, tuple[str, ...]]
"""A route, and the names of its parameters."""


class _Node:
    """A place between two segments: the route that ends here, and the ways on."""

    __slots__ = ("end", "endings", "fixed", "kinds")

    def __init__(self) -> None:
        self.end: _End | None = None
        self.fixed: dict[str, _Node] = {}
        self.endings: dict[tuple[str, str], _Node] = {}
        self.kinds: list[_Node | None] = [None] * len(_KINDS)

    def add(self, route: Route) -> None:
        """Add a route, from here on. Raises ValueError for one that cannot be, or is there."""
        node, kind = self, ""
        for segment in (route.mount + route.path).split("/")[1:]:
            parameter = _SEGMENT.fullmatch(segment)
            before, kind = kind, (parameter[2] or "") if parameter else ""
            ending = parameter[3] if parameter else None
            is_none = parameter is None and not {"{", "}"}.isdisjoint(segment)
            if before in _RESTS or kind not in _KINDS or is_none or (ending and kind in _RESTS):
                raise ValueError(f"{route.path}: a parameter is {{a}}, {{a:text}}, {{a}}.x; at the end {{a:path}}")
            if parameter is None:
                node = node.fixed.setdefault(segment, _Node())
            elif ending:
                node = node.endings.setdefault((ending, kind), _Node())
            else:
                number = _KINDS.index(kind)
                way = node.kinds[number] = node.kinds[number] or _Node()
                node = way
        if node.end is not None:
            raise ValueError(f"{route.path} is there twice")
        node.end = route, tuple(route.parameters)

    def find(self, segments: list[str], at: int, values: list[str]) -> _End | None:
        """The end to which the segments lead from ``at`` on; its values are appended."""
        if at == len(segments):
            return self.end
        segment = segments[at]
        node = self.fixed.get(segment)
        if node is not None and (end := node.find(segments, at + 1, values)) is not None:
            return end
        plain, text, rest, folder = self.kinds
        for (ending, kind), way in self.endings.items() if self.endings else ():
            name = segment.removesuffix(ending)
            value = None if name == segment else _decoded(name) if kind else _plain(name)
            if value is not None:
                values.append(value)
                if (end := way.find(segments, at + 1, values)) is not None:
                    return end
                values.pop()
        if plain is not None and (value := _plain(segment)) is not None:
            values.append(value)
            if (end := plain.find(segments, at + 1, values)) is not None:
                return end
            values.pop()
        if text is not None and (value := _decoded(segment)) is not None:
            values.append(value)
            if (end := text.find(segments, at + 1, values)) is not None:
                return end
            values.pop()
        if rest is not None and (value := _decoded("/".join(segments[at:]))) is not None:
            values.append(value)
            return rest.end
        if folder is not None and (value := _decoded_folder("/".join(segments[at:]))) is not None:
            values.append(value)
            return folder.end
        return None


def _plain(sent: str) -> str | None:
    return sent if _PLAIN.fullmatch(sent) and sent not in _NAMELESS else None


def _decoded(sent: str) -> str | None:
    """A parameter decoded once; None for a bad escape, bytes that are not UTF-8, NUL, and segments that name nothing.

    >>> _decoded("refs%2Fpr%2F1"), _decoded("50%2525"), _decoded("a%2F..")
    ('refs/pr/1', '50%25', None)
    """
    if not _SENT.fullmatch(sent):
        return None
    try:
        text = unquote_to_bytes(sent).decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text or not _NAMELESS.isdisjoint(text.split("/")) else text


def _decoded_folder(sent: str) -> str | None:
    """The same for a rest that may be empty, or end in a slash.

    >>> _decoded_folder(""), _decoded_folder("a%2Fb/"), _decoded_folder("a%2F%2F")
    ('', 'a/b/', None)
    """
    if not sent:
        return ""
    inner = sent.removesuffix("/") if sent.endswith("/") else re.sub("%2[Ff]$", "", sent)
    value = _decoded(inner)
    return value if value is None or inner == sent else value + "/"
