"""Tokens for a server: how they are held, renewed before they expire, and never shown."""

from __future__ import annotations

import hmac
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, Protocol, Self, TypeAlias

from xetstore.cancellation import Cancellation
from xetstore.errors import InterruptedCallError, UnauthenticatedError, UsageError, XetError, kind_of
from xetstore.events import Emit, TokenRenewed, ignore
from xetstore.platform import forks
from xetstore.platform.homes import expanded

MARGIN_SECONDS: Final = 30
"""A token is renewed when it has no more than this left (15.2)."""

MAX_TOKEN_CHARS: Final = 64_000
"""No token, and no URL that comes with one, is longer."""

TOKEN_VARIABLE: Final = "XET_TOKEN"
TOKEN_FILE_VARIABLE: Final = "XET_TOKEN_FILE"

TokenCallback: TypeAlias = Callable[[str], "tuple[str, float | None]"]
"""Given ``"read"`` or ``"write"``, a token of that scope and the unix seconds at which it expires (None: unknown)."""


class Secret:
    """A text that is shown nowhere: not by repr, str or format, and it cannot be pickled.

    Raises UsageError, without the text, for what could not stand in a header.

    >>> secret = Secret("xyzzy")
    >>> secret, f"{secret}", secret.reveal()
    (***, '***', 'xyzzy')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise UsageError(f"a token is a text, not a {type(text).__name__}")
        if not text:
            raise UsageError("the token is empty", hint="leave it out where none is needed")
        if len(text) > MAX_TOKEN_CHARS:
            raise UsageError(f"the token is longer than {MAX_TOKEN_CHARS} characters")
        if not all("!" <= character <= "~" for character in text):
            raise UsageError(
                "the token holds a character that no token has, such as a line end, a space or a letter beyond ASCII",
                hint="copy it again, without what stands around it",
            )
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the header it goes into."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text, other._text)

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")


@dataclass(frozen=True, slots=True)
class Token:
    """A token for a while. ``expires_at`` is unix seconds, ``cas_url`` the server it is for, if told."""

    secret: Secret
    expires_at: float | None = None
    cas_url: str | None = None

    def lasts(self, now: float, seconds: float = MARGIN_SECONDS) -> bool:
        """True if it is good for more than ``seconds``. One of unknown expiry is."""
        return self.expires_at is None or self.expires_at > now + seconds


class TokenSource(Protocol):
    """The source of the tokens for one server. Thread-safe."""

    def token(self, *, write: bool) -> Token | None:
        """One that is valid for 30 s more, obtained if need be; None: go without. Raises AccessDeniedError."""

    def renew(self, refused: Token | None, *, write: bool) -> Token | None:
        """Another one than ``refused``, which the server did not accept, or None if there is none."""

    def under(self, cancellation: Cancellation) -> TokenSource:
        """The same tokens, for calls that end with ``cancellation``: so does obtaining one, if it can."""


class FixedToken:
    """One token for everything, as long as it lasts."""

    def __init__(
        self, secret: Secret | str, expires_at: float | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._token = Token(secret if isinstance(secret, Secret) else Secret(secret), expires_at)
        self._clock = clock

    def token(self, *, write: bool) -> Token | None:  # noqa: ARG002  # the same for both
        """The token. Raises UnauthenticatedError once it has expired."""
        if not self._token.lasts(self._clock(), 0):
            raise UnauthenticatedError("the token has expired", hint="get a new one, or give a callback that does")
        return self._token

    def renew(self, refused: Token | None, *, write: bool) -> Token | None:  # noqa: ARG002
        """There is no other."""
        return None

    def under(self, cancellation: Cancellation) -> FixedToken:  # noqa: ARG002
        """The same."""
        return self


class FileToken:
    """The token in a file, which another program may replace: it is read again when the server refuses it.

    ``named_by`` is what names the file, for a message.
    """

    def __init__(self, path: Path, named_by: str = TOKEN_FILE_VARIABLE) -> None:
        self._path = path
        self._named_by = named_by
        self._held: Token | None = None

    def token(self, *, write: bool) -> Token | None:  # noqa: ARG002  # the same for both
        """The token. Raises AccessDeniedError, NotFoundError or UsageError where the file has none."""
        if self._held is None:
            self._held = self._read()
        return self._held

    def renew(self, refused: Token | None, *, write: bool) -> Token | None:  # noqa: ARG002
        """Read the file again: the token that it holds now, if it is another one."""
        self._held = self._read()
        return self._held if self._held != refused else None

    def under(self, cancellation: Cancellation) -> FileToken:  # noqa: ARG002
        """The same."""
        return self

    def _read(self) -> Token:
        try:
            text = self._path.read_text("ascii", errors="replace")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise kind_of(error)(
                f"the token file {self._path} cannot be read: {reason}", hint=f"{self._named_by} names it"
            ) from None
        return Token(Secret(text.strip()))


class RenewedTokens(ABC):
    """Tokens by scope, each obtained when it is first needed and again before it expires or once it is refused.

    One thread obtains a token; those that need one of the same scope wait for it, the others go on with theirs. A
    write token that is held serves reads too; for a read no more than a read token is ever asked for.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, emit: Emit = ignore) -> None:
        self._clock = clock
        self._emit = emit
        self._held: dict[str, Token] = {}
        # How often a scope failed, and the last error, made anew.
        self._failures: dict[str, tuple[int, Callable[[], XetError] | None]] = {"read": (0, None), "write": (0, None)}
        self._obtaining = {"read": forks.lock(), "write": forks.lock()}

    @abstractmethod
    def obtain(self, scope: str) -> Token:
        """A new token of this scope. Raises XetError."""

    def token(self, *, write: bool) -> Token | None:
        """One that is valid for 30 s more, obtained if need be. Raises what :meth:`obtain` does."""
        return self._good(write) or self._obtained("write" if write else "read", write)

    def renew(self, refused: Token | None, *, write: bool) -> Token | None:
        """Another one than ``refused``: what another thread has obtained meanwhile, or a new one."""
        if refused is not None:
            for scope, held in list(self._held.items()):
                if held.secret == refused.secret:
                    self._held.pop(scope, None)
        token = self._good(write) or self._obtained("write" if write else "read", write)
        return None if refused is not None and token.secret == refused.secret else token

    def under(self, cancellation: Cancellation) -> Self:  # noqa: ARG002
        """The same: what obtains a token is not ended."""
        return self

    def forget(self) -> None:
        """Use no token that is held any more."""
        self._held.clear()

    def _good(self, write: bool) -> Token | None:
        now = self._clock()
        for scope in ("write",) if write else ("write", "read"):
            held = self._held.get(scope)
            if held is not None and held.lasts(now):
                return held
        return None

    def _obtained(self, scope: str, write: bool) -> Token:
        before, _ = self._failures[scope]
        with self._obtaining[scope]:
            if (good := self._good(write)) is not None:
                return good
            failures, again = self._failures[scope]
            if again is not None and failures > before:
                raise again()
            try:
                token = self.obtain(scope)
                if not token.lasts(self._clock(), 0):
                    raise UnauthenticatedError(
                        f"the new {scope} token has expired already",
                        hint="compare the clocks of this machine and of its issuer",
                    )
            except XetError as error:
                if not isinstance(error, InterruptedCallError):
                    # For those who wait for this one: a slow failure is not to be had once by every thread.
                    self._failures[scope] = failures + 1, partial(_kind(error), str(error), hint=error.hint)
                raise
            self._held[scope] = token
        self._emit(TokenRenewed(scope))
        return token


def _kind(error: XetError) -> type[XetError]:
    """The nearest class of an error's that is made of a message and a hint."""
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, XetError)]
    return next(kind for kind in kinds if getattr(kind, "__init__", None) is XetError.__init__)


class CallbackTokens(RenewedTokens):
    """Tokens from a function of the caller's.

    >>> tokens = CallbackTokens(lambda scope: (f"my-{scope}-token", None))
    >>> tokens.token(write=False).secret.reveal()
    'my-read-token'
    """

    def __init__(self, callback: TokenCallback, *, clock: Callable[[], float] = time.time, emit: Emit = ignore) -> None:
        super().__init__(clock=clock, emit=emit)
        self._callback = callback

    def obtain(self, scope: str) -> Token:
        """Call the callback. Raises UnauthenticatedError from what it raises, unless that is a XetError."""
        try:
            given = self._callback(scope)
        except XetError:
            raise
        except Exception as error:
            # Its message may say anything, a token too; what it is, the cause tells those who look.
            raise UnauthenticatedError(
                f"the token callback failed for scope {scope!r} ({type(error).__name__})",
                hint="the exception it raised is the cause of this one",
            ) from error
        try:
            text, expires_at = given
            return Token(Secret(text), None if expires_at is None else float(expires_at))
        except XetError:
            raise
        except (TypeError, ValueError):
            raise UsageError(
                "the token callback did not return a token and its expiry",
                hint='return ("the token", unix seconds), or ("the token", None)',
            ) from None


def token_from_environment(environment: Mapping[str, str] = os.environ) -> TokenSource | None:
    """The token in XET_TOKEN, else the one in the file that XET_TOKEN_FILE names, else None."""
    if text := environment.get(TOKEN_VARIABLE, "").strip():
        return FixedToken(text)
    if path := environment.get(TOKEN_FILE_VARIABLE, ""):
        return FileToken(expanded(path, TOKEN_FILE_VARIABLE))
    return None
