"""The router: parameters anywhere, each decoded once and by itself, and no path that means another one."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from xetstore.server.http.problems import NoSuchPathError
from xetstore.server.http.router import Route, Routes


async def nothing(request: Request) -> Response:
    return Response()


def routes(*paths: str, prefix: str = "") -> Routes:
    return Routes(tuple(Route(path, {"GET": nothing}) for path in paths), prefix)


TREE = "/api/models/{ns:text}/{name:text}/tree/{rev:text}"
HUB = routes(
    "/",
    "/v1/xorbs/{prefix}/{hash}",
    "/api/models/{name:text}",
    "/api/models/{ns:text}/{name:text}",
    TREE,
    f"{TREE}/{{path:path}}",
    "/{ns:text}/{name:text}/resolve/{rev:text}/{path:path}",
    "/datasets/{ns:text}/{name:text}/resolve/{rev:text}/{path:path}",
)
SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)


def found(sent: str, table: Routes = HUB) -> tuple[str, list[str]] | None:
    """The path of the route, and its parameters; None for none."""
    try:
        _, route, parameters = table.resolve(sent.encode())
    except NoSuchPathError:
        return None
    return route.path, list(parameters.values())


@pytest.mark.parametrize(
    ("sent", "parameters"),
    [
        ("/api/models/alice/bert/tree/refs%2Fpr%2F1", ["alice", "bert", "refs/pr/1"]),
        ("/api/models/alice/bert/tree/refs%2fpr%2f1/a/b", ["alice", "bert", "refs/pr/1", "a/b"]),
        ("/api/models/alice/bert/tree/main/a%2Fb%20c", ["alice", "bert", "main", "a/b c"]),
        ("/api/models/alice/bert/tree/main/50%25", ["alice", "bert", "main", "50%"]),
        ("/api/models/alice/bert/tree/main/50%2525", ["alice", "bert", "main", "50%25"]),
        ("/api/models/alice/bert/tree/main/%252e%252e/x", ["alice", "bert", "main", "%2e%2e/x"]),
        ("/api/models/alice/bert/tree/main/%C3%A9+!$&'()*,;=:@~-._", ["alice", "bert", "main", "é+!$&'()*,;=:@~-._"]),
        ("/api/models/alice/bert/tree/main/...", ["alice", "bert", "main", "..."]),
        ("/api/models/alice//bert/tree/main//a//b", ["alice", "bert", "main", "a/b"]),
    ],
)
def test_each_parameter_is_decoded_once_and_by_itself(sent: str, parameters: list[str]) -> None:
    assert found(sent) == (TREE if len(parameters) == 3 else f"{TREE}/{{path:path}}", parameters)


@pytest.mark.parametrize(
    "rest",
    [
        *("", ".", "..", "a/..", "a/./b", "%2e%2e", "%2E", "a/%2e%2e/b", "%2e./a", "..%2fa", "a%2f..%2fb"),
        *("a%2f%2fb", "%2fa", "a%2f", "%2f", "a/"),
        *("%", "%2", "%zz", "a%", "a%2gb", "%u0041", "a\\b", "a b", 'a"b', "é", "a\x01b", "a?b"),
        *("%00", "a%00b", "%ff", "%c0%af", "%ed%a0%80", "%C3"),
    ],
)
def test_a_path_that_could_mean_another_or_nothing_is_none(rest: str) -> None:
    assert found(f"/api/models/alice/bert/tree/main/{rest}") is None
    if "/" not in rest and rest:
        assert found(f"/api/models/alice/bert/tree/{rest}") is None


@pytest.mark.parametrize(
    "sent",
    [
        *("/v1/xorbs/default/%61b", "/v1/xorbs/default/a%2Fb", "/v1/xorbs/%64efault/ab", "/v1/%78orbs/default/ab"),
        *("/v1/xorbs/default/..", "/v1/xorbs/./ab", "/v1/xorbs/default/", "/v1/xorbs//", "/v1/xorbs/default/ab;c"),
    ],
)
def test_a_plain_parameter_and_a_word_of_the_path_have_one_spelling(sent: str) -> None:
    assert found("/v1/xorbs/default/ab") == ("/v1/xorbs/{prefix}/{hash}", ["default", "ab"])
    assert found(sent) is None


def test_words_go_before_parameters_and_these_before_the_rest_whatever_the_order() -> None:
    paths = ["/{rest:path}", "/{a:text}/x", "/{a}/x", "/{a}/{b}", "/w/x", "/w/{b}/y"]
    for table in (routes(*paths), routes(*reversed(paths))):
        assert found("/w/x", table) == ("/w/x", [])
        assert found("/v/x", table) == ("/{a}/x", ["v"])
        assert found("/%76/x", table) == ("/{a:text}/x", ["v"])
        assert found("/w/y", table) == ("/{a}/{b}", ["w", "y"]), "back from the word, which has no such way"
        assert found("/w/z/y", table) == ("/w/{b}/y", ["z"])
        assert found("/w/z/z", table) == ("/{rest:path}", ["w/z/z"])


def test_a_repository_may_be_called_as_a_word_of_a_path() -> None:
    path = "/{ns:text}/{name:text}/resolve/{rev:text}/{path:path}"
    assert found("/datasets/bert/resolve/main/f") == (path, ["datasets", "bert", "main", "f"])
    assert found("/datasets/alice/bert/resolve/main/f") == (f"/datasets{path}", ["alice", "bert", "main", "f"])


@given(SEGMENT, st.lists(SEGMENT, min_size=1, max_size=4), st.booleans())
def test_any_text_that_is_quoted_comes_out_as_it_was(revision: str, names: list[str], slashes: bool) -> None:
    path = "/".join(names)
    sent = f"/api/models/a/b/tree/{quote(revision, safe='')}/{quote(path, safe='/' if slashes else '')}"
    assert found(sent) == (f"{TREE}/{{path:path}}", ["a", "b", revision, path])


@given(st.binary(max_size=60))
def test_any_bytes_lead_to_a_route_without_a_way_up_or_to_none(text: bytes) -> None:
    for before in (b"/", b"/v1/xorbs/", b"/api/models/a/b/tree/", b"/a/b/resolve/main/"):
        try:
            path, route, parameters = HUB.resolve(before + text)
        except NoSuchPathError:
            continue
        assert path.isascii()
        assert route in HUB.all
        assert parameters.keys() == route.parameters.keys()
        assert not any({"", ".", ".."} & set(value.split("/")) or "\0" in value for value in parameters.values())


def test_the_prefix_of_the_public_url_may_be_there_or_not() -> None:
    table = routes("/a/{x:text}", "/some/{y}", prefix="/some")
    assert found("/some/a/b%2Fc", table) == ("/a/{x:text}", ["b/c"])
    assert found("/a/b", table) == ("/a/{x:text}", ["b"])
    assert found("/some/a", table) == ("/some/{y}", ["a"]), "as it was sent, where that is a path"


def test_a_long_path_is_looked_at_no_deeper_than_there_are_routes() -> None:
    assert found("/api/models" + "/a" * 30_000) is None
    assert found("/a/b/resolve/main" + "/a" * 30_000) == (
        "/{ns:text}/{name:text}/resolve/{rev:text}/{path:path}",
        ["a", "b", "main", "/".join("a" * 30_000)],
    )


@pytest.mark.parametrize(
    "paths",
    [["/a", "/a"], ["/a/{x}", "/a/{y}"], ["/{x:path}/a"], ["/{x:int}"], ["/a{x}"], ["/{x"], ["/{x:path}/{y}"]],
)
def test_a_route_cannot_be_there_twice_or_be_none(paths: list[str]) -> None:
    with pytest.raises(ValueError):
        routes(*paths)


def test_the_template_of_a_route_is_that_of_openapi() -> None:
    [route] = routes(f"{TREE}/{{path:path}}").all
    assert route.template == "/api/models/{ns}/{name}/tree/{rev}/{path}"
    assert route.parameters == {"ns": "text", "name": "text", "rev": "text", "path": "path"}
