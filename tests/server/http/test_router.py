"""The router: parameters anywhere, each decoded once and by itself, and no path that means another one."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from xetstore.server.app import MOUNTED_ROUTES, ROUTES
from xetstore.server.http.problems import NoSuchPathError
from xetstore.server.http.router import Route, Routes


async def nothing(request: Request) -> Response:
    return Response()


def routes(*paths: str, prefix: str = "") -> Routes:
    return Routes(tuple(Route(path, {"GET": nothing}) for path in paths), prefix)


ALL_ROUTES = ROUTES + MOUNTED_ROUTES
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


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        *(("", ""), ("a", "a"), ("a/", "a/"), ("a/b", "a/b"), ("a%2Fb", "a/b"), ("a%2F", "a/"), ("a%2fb/", "a/b/")),
        *(("a//", "a/"), ("/", ""), ("/a", "a"), ("a%20", "a "), ("50%25/", "50%/")),
    ],
)
def test_a_folder_may_end_in_a_slash_or_be_none(rest: str, value: str) -> None:
    table = routes("/tree/{rev:text}", "/tree/{rev:text}/{path:folder}")
    assert found(f"/tree/main/{rest}", table) == ("/tree/{rev:text}/{path:folder}", ["main", value])
    assert found("/tree/main", table) == ("/tree/{rev:text}", ["main"])


@pytest.mark.parametrize(
    "rest", ["..", "../", "a/../", "%2F", "a%2F%2F", "a/%2F", "%2F/", "./", "a%00/", "%ff/", "%", "%/"]
)
def test_a_folder_is_none_that_could_mean_another(rest: str) -> None:
    assert found(f"/tree/main/{rest}", routes("/tree/{rev:text}/{path:folder}")) is None


def test_a_segment_may_have_an_ending() -> None:
    table = routes("/{owner}/{name}.git/info", "/{owner}/{name}/info", "/{owner}/{name}.zip/info")
    assert found("/alice/bert.git/info", table) == ("/{owner}/{name}.git/info", ["alice", "bert"])
    assert found("/alice/bert/info", table) == ("/{owner}/{name}/info", ["alice", "bert"])
    assert found("/alice/a.git.git/info", table) == ("/{owner}/{name}.git/info", ["alice", "a.git"])
    assert found("/alice/.git/info", table) == ("/{owner}/{name}/info", ["alice", ".git"]), (
        "an ending of nothing is none"
    )
    assert found("/alice/..git/info", table) == ("/{owner}/{name}/info", ["alice", "..git"])
    assert found("/alice/a.git.zip/info", table) == ("/{owner}/{name}.zip/info", ["alice", "a.git"])
    assert found("/alice/a%2egit/info", table) is None
    assert found("/alice/bert.git/other", table) is None
    text = routes("/{name:text}.git", "/{name}.git")
    assert found("/a%20b.git", text) == ("/{name:text}.git", ["a b"])
    assert found("/..git", text) is found("/.git", text) is found("/%2e%2e.git", text) is None
    [route, *_] = table.all
    assert (route.template, route.parameters) == ("/{owner}/{name}.git/info", {"owner": "", "name": ""})


def test_a_last_route_counts_where_no_other_has_the_path() -> None:
    last = Route("/{name}/resolve/{rev:text}/{path:path}", {"GET": nothing}, is_last=True)
    for paths in ((last, *HUB.all), (*HUB.all, last)):
        table = Routes(paths)
        assert found("/bert/resolve/main/f", table) == (last.path, ["bert", "main", "f"])
        path = "/{ns:text}/{name:text}/resolve/{rev:text}/{path:path}"
        assert found("/alice/resolve/resolve/main/f", table) == (path, ["alice", "resolve", "main", "f"])
        assert found("/alice/raw/resolve/main/f", table) == (path, ["alice", "raw", "main", "f"])


def test_a_route_below_a_mount_has_the_same_template() -> None:
    [route] = routes("/v1/xorbs/{prefix}/{hash}").all
    table = Routes((route, replace(route, mount="/cas")))
    for sent in ("/v1/xorbs/p/h", "/cas/v1/xorbs/p/h", "/cas//v1/xorbs/p/h"):
        path, match, parameters = table.resolve(sent.encode())
        assert path == "/v1/xorbs/p/h", "as a signature has it"
        assert (match.template, parameters) == ("/v1/xorbs/{prefix}/{hash}", {"prefix": "p", "hash": "h"})
    assert found("/cas", table) is found("/cas/cas/v1/xorbs/p/h", table) is None


HUB_PATHS = (
    "/{owner}/{name}/resolve/{rev:text}/{path:path}",
    "/datasets/{owner}/{name}/resolve/{rev:text}/{path:path}",
    "/buckets/{owner}/{name}/resolve/{path:path}",
    "/{owner}/{name}/raw/{rev:text}/{path:path}",
    "/{owner}/{name}.git/info/lfs/objects/batch",
    "/{owner}/{name}/info/lfs/objects/batch",
    "/datasets/{owner}/{name}.git/info/lfs/objects/batch",
    "/api/models/{owner}/{name}",
    "/api/models/{owner}/{name}/tree/{rev:text}",
    "/api/models/{owner}/{name}/tree/{rev:text}/{path:folder}",
    "/api/repos/create",
    "/api/whoami-v2",
)


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/alice/bert/resolve/main/f", HUB_PATHS[0]),
        ("/alice/raw/resolve/main/f", HUB_PATHS[0]),
        ("/alice/resolve/raw/main/f", HUB_PATHS[3]),
        ("/datasets/alice/bert/resolve/main/f", HUB_PATHS[1]),
        ("/datasets/alice/resolve/resolve/main/f", HUB_PATHS[1]),
        ("/buckets/alice/b/resolve/f/g", HUB_PATHS[2]),
        ("/alice/bert.git/info/lfs/objects/batch", HUB_PATHS[4]),
        ("/alice/bert/info/lfs/objects/batch", HUB_PATHS[5]),
        ("/datasets/alice/bert.git/info/lfs/objects/batch", HUB_PATHS[6]),
        ("/api/models/alice/bert", HUB_PATHS[7]),
        ("/api/models/alice/tree/tree/main", HUB_PATHS[8]),
        ("/api/models/alice/tree/tree/refs%2Fpr%2F1/a%2Fb", HUB_PATHS[9]),
        ("/api/models/alice/bert/tree/main/", HUB_PATHS[9]),
        ("/api/repos/create", HUB_PATHS[10]),
        ("/v1/shards", "/v1/shards"),
        ("/cas/v1/shards", "/v1/shards"),
        ("/cas/v1/reconstructions/ab", "/v1/reconstructions/{hash}"),
        ("/shard/default/ab", "/shard/{prefix}/{hash}"),
        ("/", "/"),
        ("/api/models/alice/bert/resolve/main/f", None),
        ("/cas/health/live", None),
        ("/cas/", None),
        ("/cas", None),
    ],
)
def test_routes_of_the_hub_and_of_the_cas_do_not_stand_in_each_others_way(sent: str, path: str | None) -> None:
    hub = tuple(Route(path, {"GET": nothing}) for path in HUB_PATHS)
    for order in (ALL_ROUTES + hub, hub + ALL_ROUTES):
        match = found(sent, Routes(order))
        assert (None if match is None else match[0]) == path


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
    [
        *(["/a", "/a"], ["/a/{x}", "/a/{y}"], ["/{x:path}/a"], ["/{x:int}"], ["/a{x}"], ["/{x"], ["/{x:path}/{y}"]),
        *(["/{x:folder}/a"], ["/{x:path}.git"], ["/{x}git"], ["/{x}.git.{y}"], ["/{x}.git", "/{y}.git"]),
    ],
)
def test_a_route_cannot_be_there_twice_or_be_none(paths: list[str]) -> None:
    with pytest.raises(ValueError):
        routes(*paths)


def test_the_template_of_a_route_is_that_of_openapi() -> None:
    [route] = routes(f"{TREE}/{{path:path}}").all
    assert route.template == "/api/models/{ns}/{name}/tree/{rev}/{path}"
    assert route.parameters == {"ns": "text", "name": "text", "rev": "text", "path": "path"}
