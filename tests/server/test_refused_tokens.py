"""401 tells a token that is missing from one that is not valid or has expired, and nothing of the store."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.cli.runner import Xet
from tests.support.live import LiveServer, live_server
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UnauthenticatedError
from xetstore.testing import make_sample, upload

FILE = make_sample(b"some file of the namespace default").file.hash
CHALLENGE = 'Bearer realm="xetstore"'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("refused") / "store") as cas:
        upload(cas, make_sample(b"some file of the namespace default"))
        with live_server(cas) as running:
            yield running


@pytest.fixture(scope="module")
def tokens(server: LiveServer) -> dict[str, str | None]:
    """Tokens that are refused, by what is wrong with them."""
    authority = server.site.authority
    past = TokenAuthority(authority._keys, clock=lambda: time.time() - 1000)
    future = TokenAuthority(authority._keys, clock=lambda: time.time() + 1000)
    revoked = authority.issue(scope=Scope.READ, namespace="default")
    authority.revoke(revoked)
    issue = {"scope": Scope.READ, "namespace": "default", "ttl_seconds": 900}
    valid = server.token("read")
    return {
        "missing": None,
        "not valid": valid[:-2] + ("AA" if valid[-2:] != "AA" else "BB"),
        "no token": "hello",
        "of a user": "hf_" + "a" * 34,
        "expired": past.issue(**issue),  # type: ignore[arg-type]
        "not valid yet": future.issue(**issue),  # type: ignore[arg-type]
        "revoked": revoked,
    }


TOLD = {
    "missing": "a token is needed",
    "not valid": "the token is not valid",
    "no token": "the token is not valid",
    "of a user": "the token is one of a user, for repositories, and files by their hashes take one of a namespace",
    "expired": "the token has expired",
    "not valid yet": "the token is not valid yet",
    "revoked": "the token has been revoked",
}


@pytest.mark.parametrize("wrong", TOLD)
def test_an_answer_says_what_is_wrong_with_the_token(
    server: LiveServer, tokens: dict[str, str | None], wrong: str
) -> None:
    answer = server.request("GET", f"/v1/reconstructions/{FILE}", token=tokens[wrong])
    assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.json()["message"].startswith(TOLD[wrong])
    challenge = answer.headers["WWW-Authenticate"]
    if wrong == "missing":
        assert challenge == CHALLENGE
        assert "Authorization: Bearer TOKEN" in answer.json()["message"]
    else:
        assert challenge == f'{CHALLENGE}, error="invalid_token", error_description="{TOLD[wrong]}"'
        assert str(tokens[wrong]) not in f"{answer.body!r}{challenge}" or wrong == "no token"
    assert (
        server.request("HEAD", f"/v1/xorbs/default/{FILE}", token=tokens[wrong]).headers["WWW-Authenticate"]
        == challenge
    )


@pytest.mark.parametrize("wrong", TOLD)
def test_what_is_stored_does_not_change_the_answer(
    server: LiveServer, tokens: dict[str, str | None], wrong: str
) -> None:
    """Of a file that is there, of one that is not, and of a name of another namespace, it is the same."""
    told = set()
    for path in (
        f"/v1/reconstructions/{FILE}",
        f"/v1/reconstructions/{'ab' * 32}",
        f"/v2/reconstructions/{FILE}",
        f"/v1/chunks/default-merkledb/{FILE}",
        f"/v1/chunks/default-merkledb/{'ab' * 32}",
        f"/v1/xorbs/default/{'ab' * 32}",
    ):
        answer = server.request("GET" if "xorbs" not in path else "HEAD", path, token=tokens[wrong])
        body = re.sub(rb'"request_id":"[0-9a-f]+"', b"", answer.body)
        told.add((answer.status, answer.headers["WWW-Authenticate"], body or b"HEAD"))
    assert len({(status, challenge) for status, challenge, _ in told}) == 1
    assert len({body for _, _, body in told if body != b"HEAD"}) == 1


@pytest.mark.parametrize("wrong", TOLD)
def test_a_client_names_the_variable_and_the_way_to_a_token(
    server: LiveServer, tokens: dict[str, str | None], wrong: str, tmp_path: Path
) -> None:
    variables = {} if tokens[wrong] is None else {"XET_TOKEN": str(tokens[wrong])}
    ran = Xet(tmp_path / "none", server.url, **variables)("stat", FILE)
    assert ran.code == 5
    assert TOLD[wrong] in ran.stderr
    for hint in ("XET_TOKEN", "--token-file", "xet token issue"):
        assert hint in ran.stderr
    assert str(tokens[wrong]) not in ran.stderr or wrong in ("missing", "no token")
    with (
        xetstore.open(server.url, token=tokens[wrong], cache=False) as store,
        pytest.raises(UnauthenticatedError) as caught,
    ):
        store.stat(FILE)
    assert TOLD[wrong] in str(caught.value)
    assert "XET_TOKEN" in str(caught.value.hint)
