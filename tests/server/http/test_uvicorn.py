"""The inner names of uvicorn, httptools and asyncio that the server relies on are there, and are written down."""

from __future__ import annotations

import ast
import tomllib
from asyncio import selector_events
from importlib.metadata import version
from pathlib import Path
from types import FunctionType

import httptools
import uvicorn
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.server import ServerState

from xetstore.server import http
from xetstore.server.http import connection, direct, lifecycle, receiving

RELIED_ON: dict[object, str] = {
    httptools_impl.HttpToolsProtocol: "connection_made data_received connection_lost pause_writing resume_writing"
    " on_message_begin on_url on_header on_headers_complete on_body on_message_complete on_response_complete shutdown"
    " timeout_keep_alive_handler _unset_keepalive_if_required app client headers url scope loop transport access_log"
    " expect_100_continue timeout_keep_alive timeout_keep_alive_task pipeline parser cycle flow server_state",
    httptools_impl.RequestResponseCycle: "body message_event more_body response_started response_complete disconnected"
    " keep_alive waiting_for_100_continue expected_content_length",
    flow_control.FlowControl: "pause_reading resume_reading write_paused",
    ServerState: "default_headers total_requests tasks connections",
    uvicorn.Server: "startup handle_exit on_tick serve servers config server_state should_exit force_exit",
    httptools.HttpRequestParser: "feed_data get_method get_http_version should_keep_alive should_upgrade"
    " set_dangerous_leniencies",
    httptools_impl: "STATUS_LINE",
    flow_control: "HIGH_WATER_LIMIT",
    selector_events._SelectorSocketTransport: "max_size",  # type: ignore[attr-defined]
}


def names_of(owner: object) -> set[str]:
    """The attributes of a module or class, and those that its methods speak of."""
    functions = [value for value in vars(owner).values() if isinstance(value, FunctionType)]
    return set(dir(owner)).union(*(function.__code__.co_names for function in functions))


def test_the_inner_names_that_the_server_relies_on_are_there() -> None:
    gone = {
        getattr(owner, "__name__", str(owner)): sorted(lacking)
        for owner, names in RELIED_ON.items()
        if (lacking := set(names.split()) - names_of(owner))
    }
    versions = f"uvicorn {version('uvicorn')}, httptools {version('httptools')} and this Python"
    assert not gone, f"{versions} lack {gone}; src/xetstore/server/http/__init__.py tells what each is for"


def test_no_other_inner_name_is_used_and_each_is_explained() -> None:
    listed = {name for names in RELIED_ON.values() for name in names.split()}
    assert {name for name in listed if f"``{name}``" not in (http.__doc__ or "")} == set()
    used = {
        name
        for module, owner in ((connection, connection.Connection), (lifecycle, lifecycle.DrainingServer))
        for name in inner_names(module.__file__ or "", owner)
    }
    of_a_request = {name for module in (direct, receiving) for name in attributes(module.__file__ or "", "self._cycle")}
    assert used | of_a_request <= listed


def inner_names(path: str, owner: type) -> set[str]:
    """The names of its bases that a class of this file uses: those that it does not have itself, and all of super()."""
    own = {*vars(owner), *owner.__annotations__}
    private = attributes(path, "self") - own
    [base] = owner.__bases__
    used = {name for name in private if not name.startswith("_") or name in names_of(base)} - {"draining"}
    for inner in ("super()", "self.cycle", "self.flow", "self.server_state", "self.parser"):
        used |= attributes(path, inner)
    return used - {"__init__"}


def attributes(path: str, of: str) -> set[str]:
    """The attributes of an expression that a file speaks of."""
    tree = ast.parse(Path(path).read_text())
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == of}


def test_uvicorn_is_pinned_to_the_minor_version_that_is_tested() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    [pin] = [line for line in project["optional-dependencies"]["server"] if line.startswith("uvicorn")]
    major, minor, _ = version("uvicorn").split(".")
    assert pin == f"uvicorn>={major}.{minor}.0,<{major}.{int(minor) + 1}"
