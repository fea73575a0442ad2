"""Tokens: renewed before they expire and by one thread only, asked for by least scope, and never shown."""

from __future__ import annotations

import copy
import pickle
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xetstore.errors import (
    AccessDeniedError,
    ForbiddenError,
    InterruptedCallError,
    NotFoundError,
    UnauthenticatedError,
    UsageError,
    XetError,
)
from xetstore.events import Event, TokenRenewed
from xetstore.remote.tokens import CallbackTokens, FixedToken, Secret, Token, TokenSource, token_from_environment
from xetstore.testing import FakeClock

SECRET = "hf_mellon-1234"


class Issuing:
    """A callback that counts, and issues tokens that say what they are."""

    def __init__(self, clock: Callable[[], float], seconds: float | None = 900) -> None:
        self.clock = clock
        self.seconds = seconds
        self.asked: list[str] = []

    def __call__(self, scope: str) -> tuple[str, float | None]:
        self.asked.append(scope)
        expires_at = None if self.seconds is None else self.clock() + self.seconds
        return f"{scope}-{len(self.asked)}", expires_at


def text(token: Token | None) -> str:
    assert token is not None
    return token.secret.reveal()


def test_a_token_is_used_until_thirty_seconds_before_it_expires() -> None:
    clock = FakeClock(1000)
    issuing = Issuing(clock)
    tokens = CallbackTokens(issuing, clock=clock)
    assert text(tokens.token(write=False)) == "read-1"
    clock.advance(869)
    assert text(tokens.token(write=False)) == "read-1"
    clock.advance(1)
    assert text(tokens.token(write=False)) == "read-2"


def test_a_token_of_unknown_expiry_is_used_until_it_is_refused() -> None:
    clock = FakeClock(1000)
    tokens = CallbackTokens(Issuing(clock, None), clock=clock)
    first = tokens.token(write=False)
    clock.advance(10**9)
    assert tokens.token(write=False) == first
    assert text(tokens.renew(first, write=False)) == "read-2"
    assert text(tokens.token(write=False)) == "read-2"


def test_reading_asks_for_no_more_than_a_read_token() -> None:
    clock = FakeClock(1000)
    issuing = Issuing(clock)
    tokens = CallbackTokens(issuing, clock=clock)
    tokens.token(write=False)
    tokens.token(write=False)
    assert issuing.asked == ["read"]
    assert text(tokens.token(write=True)) == "write-2"


def test_a_write_token_that_is_held_serves_reads() -> None:
    clock = FakeClock(1000)
    issuing = Issuing(clock)
    tokens = CallbackTokens(issuing, clock=clock)
    tokens.token(write=True)
    assert text(tokens.token(write=False)) == "write-1"
    assert issuing.asked == ["write"]


def test_a_token_that_is_about_to_expire_when_it_comes_is_used_once_and_not_asked_for_in_a_loop() -> None:
    clock = FakeClock(1000)
    issuing = Issuing(clock, 20)
    tokens = CallbackTokens(issuing, clock=clock)
    assert text(tokens.token(write=False)) == "read-1"
    assert text(tokens.token(write=False)) == "read-2"


def test_a_callback_that_gives_an_expired_token_is_an_error() -> None:
    clock = FakeClock(1000)
    issuing = Issuing(clock, -1)
    with pytest.raises(UnauthenticatedError, match="expired already") as caught:
        CallbackTokens(issuing, clock=clock).token(write=False)
    assert issuing.asked == ["read"]
    assert caught.value.hint
    assert "read-1" not in str(caught.value)


def test_a_callback_that_gives_the_refused_token_again_has_no_other() -> None:
    tokens = CallbackTokens(lambda scope: (SECRET, None))
    assert tokens.renew(tokens.token(write=False), write=False) is None


def test_after_a_refusal_the_token_that_another_thread_obtained_is_taken() -> None:
    clock = FakeClock(1000)
    issuing = Issuing(clock)
    tokens = CallbackTokens(issuing, clock=clock)
    first = tokens.token(write=False)
    second = tokens.renew(first, write=False)
    assert tokens.renew(first, write=False) == second
    assert len(issuing.asked) == 2


def test_a_refused_write_token_serves_no_reads_any_more() -> None:
    clock = FakeClock(1000)
    tokens = CallbackTokens(Issuing(clock), clock=clock)
    refused = tokens.token(write=True)
    assert text(tokens.renew(refused, write=False)) == "read-2"
    assert text(tokens.token(write=False)) == "read-2"


def test_one_thread_obtains_a_token_and_the_others_wait_for_it() -> None:
    asked: list[str] = []
    go = threading.Event()

    def callback(scope: str) -> tuple[str, None]:
        asked.append(scope)
        assert go.wait(60)
        return "the-one", None

    tokens = CallbackTokens(callback)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(tokens.token, write=False) for _ in range(8)]
        go.set()
        assert {text(one.result()) for one in waiting} == {"the-one"}
    assert asked == ["read"]


def test_those_who_read_go_on_with_their_token_while_another_is_obtained_for_writing() -> None:
    started, go = threading.Event(), threading.Event()

    def callback(scope: str) -> tuple[str, None]:
        if scope == "write":
            started.set()
            assert go.wait(60)
        return scope, None

    tokens = CallbackTokens(callback)
    assert text(tokens.token(write=False)) == "read"
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(tokens.token, write=True)
        assert started.wait(60)
        assert text(tokens.token(write=False)) == "read"
        go.set()
        assert text(writing.result()) == "write"


def test_a_failure_is_shared_by_all_who_waited_for_it() -> None:
    asked: list[str] = []
    started, go = threading.Event(), threading.Event()

    def callback(scope: str) -> tuple[str, None]:
        asked.append(scope)
        started.set()
        assert go.wait(60)
        raise ForbiddenError("not you", hint="ask her")

    tokens = CallbackTokens(callback)
    arrived = threading.Barrier(5)

    def late() -> None:
        arrived.wait(60)
        tokens.token(write=False)

    with ThreadPoolExecutor(6) as threads:
        first = threads.submit(tokens.token, write=False)
        assert started.wait(60)
        others = [threads.submit(late) for _ in range(4)]
        arrived.wait(60)
        go.set()
        errors = [first.exception(), *(one.exception() for one in others)]
    assert all(isinstance(error, ForbiddenError) and error.hint == "ask her" for error in errors)
    # One that came after the failure may have asked again, but not one after the other for each.
    assert 1 <= len(asked) <= 5
    with pytest.raises(ForbiddenError):
        tokens.token(write=False)


def test_an_interrupted_attempt_fails_nobody_else() -> None:
    attempts: list[str] = []

    def callback(scope: str) -> tuple[str, None]:
        attempts.append(scope)
        if len(attempts) == 1:
            raise InterruptedCallError("gave up")
        return "fine", None

    tokens = CallbackTokens(callback)
    with pytest.raises(InterruptedCallError):
        tokens.token(write=False)
    assert text(tokens.token(write=False)) == "fine"


def test_a_callback_that_raises_is_told_of_without_what_it_said() -> None:
    def callback(scope: str) -> tuple[str, None]:
        raise ConnectionError(f"no answer for {SECRET}")

    with pytest.raises(UnauthenticatedError, match=r"callback failed for scope 'read' \(ConnectionError\)") as caught:
        CallbackTokens(callback).token(write=False)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert SECRET not in str(caught.value) + str(caught.value.hint)


@pytest.mark.parametrize("given", [None, "token", ("token",), (None, 1), ("token", "soon"), (b"token", None), 7])
def test_a_callback_that_returns_something_else_is_an_error(given: object) -> None:
    with pytest.raises(UsageError) as caught:
        CallbackTokens(lambda scope: given).token(write=False)  # type: ignore[arg-type, return-value]
    assert "token" in str(caught.value)


def test_a_callback_that_returns_a_token_with_a_line_end_is_told_so() -> None:
    with pytest.raises(UsageError, match="a character that no token has"):
        CallbackTokens(lambda scope: (f"{scope}\n", None)).token(write=False)


@pytest.mark.parametrize("bad", ["", " ", "a b", "a\r\nX-Evil: 1", "a\0", "töken", "x" * 64_001, "\ud800"])
def test_a_token_that_could_not_stand_in_a_header_is_refused_unshown(bad: str) -> None:
    with pytest.raises(UsageError) as caught:
        Secret(bad)
    assert not bad.strip() or bad not in str(caught.value)
    with pytest.raises(UsageError):
        FixedToken(bad)
    with pytest.raises(UsageError):
        CallbackTokens(lambda scope: (bad, None)).token(write=False)


def test_a_secret_is_shown_nowhere() -> None:
    secret = Secret(SECRET)
    token = Token(secret, 5.0)
    sources: list[TokenSource] = [FixedToken(SECRET), CallbackTokens(lambda scope: (SECRET, None))]
    for source in sources:
        assert source.token(write=False) is not None
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        repr(token),
        str(token),
        repr(sources),
        repr({"token": secret}),
    ]
    assert not [text for text in shown if SECRET in text]
    for thing in (secret, token, *sources):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    with pytest.raises(TypeError):
        copy.copy(secret)


def test_no_traceback_of_ours_shows_a_token() -> None:
    with pytest.raises(XetError) as caught:
        CallbackTokens(lambda scope: (f"{SECRET}\n", None)).token(write=False)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_secrets_are_compared_by_what_they_hide() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_a_fixed_token_that_has_expired_says_so() -> None:
    clock = FakeClock(1000)
    fixed = FixedToken(SECRET, 1010, clock=clock)
    assert text(fixed.token(write=True)) == SECRET
    assert fixed.renew(fixed.token(write=False), write=False) is None
    clock.advance(11)
    with pytest.raises(UnauthenticatedError, match="has expired"):
        fixed.token(write=False)


def test_each_new_token_is_an_event() -> None:
    events: list[Event] = []
    tokens = CallbackTokens(lambda scope: (scope, None), emit=events.append)
    tokens.token(write=False)
    tokens.token(write=True)
    tokens.token(write=True)
    assert events == [TokenRenewed("read"), TokenRenewed("write")]


def test_the_environment_names_a_token_or_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert token_from_environment({}) is None
    assert token_from_environment({"XET_TOKEN": " "}) is None
    both = token_from_environment({"XET_TOKEN": " direct\n", "XET_TOKEN_FILE": str(file)})
    assert both is not None
    assert text(both.token(write=False)) == "direct"
    by_file = token_from_environment({"XET_TOKEN_FILE": str(file)})
    assert by_file is not None
    first = by_file.token(write=True)
    assert text(first) == "from-file"
    assert by_file.renew(first, write=True) is None
    file.write_text("replaced")
    assert text(by_file.renew(first, write=True)) == "replaced"
    assert text(by_file.token(write=False)) == "replaced"


def test_a_token_file_that_is_missing_or_no_token_says_so_unshown(tmp_path: Path) -> None:
    missing = token_from_environment({"XET_TOKEN_FILE": str(tmp_path / "none")})
    assert missing is not None
    with pytest.raises(NotFoundError, match="cannot be read") as caught:
        missing.token(write=False)
    assert "XET_TOKEN_FILE" in str(caught.value.hint)
    (tmp_path / "bad").write_bytes(b"se\xff cret")
    bad = token_from_environment({"XET_TOKEN_FILE": str(tmp_path / "bad")})
    assert bad is not None
    with pytest.raises(UsageError) as told:
        bad.token(write=False)
    assert "cret" not in str(told.value)
    assert not isinstance(told.value, AccessDeniedError)
