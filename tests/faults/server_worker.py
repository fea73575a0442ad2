"""The servers of the fault tests: a script that has imported everything, and forks a server whenever one is wanted.

So a server is there in a tenth of the time that `xet serve` takes, and can be killed hundreds of times.
``forked.ServerWorker`` starts it and talks to it: requests come as lines of JSON, and so do answers go.
"""

from __future__ import annotations

# A server imports some of these when it serves. Here they are there before it starts.
import encodings.idna
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import uvicorn.lifespan.on
import uvicorn.protocols.http.httptools_impl

import xetstore.server.app
from tests.faults import worker
from tests.support import rights
from xetstore.access.keys import KeyRing
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.cas.parts import StoreParts
from xetstore.server.run import serve
from xetstore.server.settings import ServerSettings
from xetstore.server.started import Started

assert encodings.idna
assert uvicorn.lifespan.on
assert xetstore.server.app


CHILDREN: set[int] = set()


def start(*, root: str, settings: dict[str, Any], bound: bool) -> dict[str, Any]:
    """Fork a server over ``root``, which says itself when it is ready; one that is ``bound`` has no rights of root."""
    child = os.fork()
    if child == 0:
        _serve(Path(root), settings, bound)
    CHILDREN.add(child)
    return {"pid": child}


def kill(*, pid: int) -> dict[str, Any]:
    """SIGKILL, whatever it is at: as if the power had failed, for all the server knows."""
    os.kill(pid, signal.SIGKILL)
    return wait(pid=pid)


def wait(*, pid: int) -> dict[str, Any]:
    """The exit code, once it has ended; that of a signal is negative."""
    CHILDREN.discard(pid)
    return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}


def fill(*, ballast: str, leave: int) -> dict[str, Any]:
    """Make the file ``ballast`` so big that the disk has only ``leave`` bytes left; start anew if it exists."""
    remove(path=ballast)
    [told] = worker.fill(lambda: None, ballast=ballast, leave=leave)
    return told


def remove(*, path: str) -> dict[str, Any]:
    Path(path).unlink(missing_ok=True)
    return {}


def issue(*, store: str, scope: str) -> dict[str, Any]:
    """Another token of a store."""
    return {"token": TokenAuthority(KeyRing.open(Path(store, "access"))).issue(scope=Scope(scope), namespace="default")}


def cli(*, arguments: list[str]) -> dict[str, Any]:
    """The exit code of the command line."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            worker.cli(lambda: None, arguments=arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            sys.stderr.flush()
            os._exit(code)
    return {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


CALLS: dict[str, Callable[..., dict[str, Any]]] = {
    "start": start,
    "kill": kill,
    "wait": wait,
    "fill": fill,
    "remove": remove,
    "issue": issue,
    "cli": cli,
    "look": lambda *, store: next(worker.look(lambda: None, store=store)),
}


def _serve(root: Path, settings: dict[str, Any], bound: bool) -> NoReturn:
    code = 70
    try:
        if bound:
            rights.give_up()

        def announce(started: Started) -> None:
            token = started.token_file.read_text().strip() if started.token_file else None
            worker.say(url=started.url, token=token)

        code = serve(StoreParts.at(root), ServerSettings(**{"port": 0, **settings}), announce)
    except BaseException as error:
        traceback.print_exc()
        worker.say(failed=repr(error)[:1000])
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    worker.say(ready=True)
    for line in sys.stdin:
        call = json.loads(line)
        try:
            said = CALLS[call.pop("call")](**call)
        except Exception as error:
            traceback.print_exc()
            said = {"failed": repr(error)[:1000]}
        worker.say(**said)
    for child in list(CHILDREN):  # nobody is left who could stop them
        kill(pid=child)


if __name__ == "__main__":
    main()
