"""Telemetry: what clients report becomes metrics, of which there are never more than we thought of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.server.in_process import ask
from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.server.app import create_app
from xetstore.server.ops.metrics import Metrics
from xetstore.server.routes.telemetry import EVENTS, MAX_BODY_BYTES, SUMS

UPLOAD = {
    "time": "2026-08-22T01:01:41.687Z",
    "event": "xet_upload_summary",
    "session_id": "01a200c5-ef7c-7fa0-9074-4f8bcea0b39f",
    "user_agent": "hf_xet/1.8.0",
    "metrics": {
        "arch": "x86_64",
        "client_version": "1.8.0",
        "compression_ratio": 1.0002,
        "cpu_count": 2,
        "dedup_bytes": 1000,
        "direction": "upload",
        "duration_ms": 1500,
        "endpoint_host": "127.0.0.1",
        "error_class": "none",
        "n_files": 3,
        "new_bytes": 499000,
        "outcome": "ok",
        "schema_version": 2,
        "terminal": True,
        "total_bytes": 500000,
        "transfer_id": "01a200c5-efa4-7e63-b8de-37a1e757cff8",
        "xorb_bytes_uploaded": 499096,
    },
}
"""As hf_xet 1.8.0 sends it, shortened."""


def report(event: str = "xet_upload_summary", **metrics: Any) -> bytes:
    return json.dumps({"event": event, "metrics": metrics}).encode()


def counted(metrics: Metrics) -> dict[str, float]:
    """The client's series, as they are written."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            if sample.name.startswith("xetstore_client_") and not sample.name.endswith(("_created", "_bucket")):
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name.removeprefix('xetstore_client_')}({labels})"] = sample.value
    return found


def post(server: LiveServer, body: bytes) -> int:
    return server.request("POST", "/v1/telemetry", body=body, token=server.token()).status


def test_a_report_of_the_reference_client_is_counted(server: LiveServer) -> None:
    assert post(server, json.dumps(UPLOAD).encode()) == 204
    assert post(server, report("xet_download_summary", outcome="error", duration_ms=10, total_bytes=5)) == 204
    assert counted(server.site.metrics) == {
        "events_total(event=upload,outcome=ok)": 1,
        "events_total(event=download,outcome=error)": 1,
        "transfer_seconds_count(event=upload)": 1,
        "transfer_seconds_sum(event=upload)": 1.5,
        "transfer_seconds_count(event=download)": 1,
        "transfer_seconds_sum(event=download)": 0.01,
        "reported_total(event=upload,what=n_files)": 3,
        "reported_total(event=upload,what=total_bytes)": 500_000,
        "reported_total(event=upload,what=new_bytes)": 499_000,
        "reported_total(event=upload,what=dedup_bytes)": 1000,
        "reported_total(event=upload,what=xorb_bytes_uploaded)": 499_096,
        "reported_total(event=download,what=total_bytes)": 5,
    }


def test_a_transfer_is_not_counted_again_with_every_heartbeat(server: LiveServer) -> None:
    for _ in range(3):
        assert (
            post(server, report("xet_transfer_heartbeat", outcome="in_progress", total_bytes=5, duration_ms=9)) == 204
        )
    assert counted(server.site.metrics) == {"events_total(event=heartbeat,outcome=in_progress)": 3}


def test_what_a_client_makes_up_gets_no_series_of_its_own(server: LiveServer) -> None:
    for number in range(5):
        assert (
            post(server, report(f"my_event_{number}", outcome=f"my outcome {number}", **{f"mine_{number}": 1})) == 204
        )
    assert counted(server.site.metrics) == {"events_total(event=other,outcome=other)": 5}


@pytest.mark.parametrize("value", [-1, "5", None, True, [1], {"a": 1}, 1e300, 2**64, float("nan"), 1e400])
def test_what_cannot_be_added_up_is_left_out(server: LiveServer, value: object) -> None:
    body = report(total_bytes=value, duration_ms=value)
    assert post(server, body) == (400 if b"NaN" in body or b"Infinity" in body else 204)
    assert not [name for name in counted(server.site.metrics) if not name.startswith("events")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"event":1}',
        b'{"event":"a","metrics":[]}',
        b'{"event":"\xff"}',
        b'{"event":"a"',
        b"\x00",
        b'{"event":"a","metrics":{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}}",
    ],
)
def test_garbage_is_an_error_of_the_client(server: LiveServer, body: bytes) -> None:
    answer = server.request("POST", "/v1/telemetry", body=body, token=server.token())
    assert (answer.status, answer.json()["code"]) == (400, "usage")


def test_a_report_that_is_too_long_is_refused(server: LiveServer) -> None:
    assert post(server, report(text="x" * (MAX_BODY_BYTES - 100))) == 204
    assert post(server, report(text="x" * MAX_BODY_BYTES)) == 413


def test_reports_need_a_token_where_there_are_tokens(cas: EmbeddedCas) -> None:
    with live_server(cas) as server:
        assert server.request("POST", "/v1/telemetry", body=report()).status == 401
    with live_server(cas, auth="none") as server:
        assert server.request("POST", "/v1/telemetry", body=report()).status == 204


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_any_report_is_counted_or_refused_and_adds_no_series_we_did_not_think_of(server: LiveServer) -> None:
    app = create_app(server.site)
    token = server.token("write", ttl_seconds=3600)

    @given(
        st.binary(max_size=60)
        | st.builds(
            lambda event, metrics: json.dumps({"event": event, "metrics": metrics}).encode(),
            st.sampled_from(sorted(EVENTS)) | st.text(max_size=9),
            st.dictionaries(st.sampled_from([*SUMS, "duration_ms", "outcome"]) | st.text(max_size=5), JSON, max_size=6),
        )
    )
    def play(body: bytes) -> None:
        assert ask(app, "/v1/telemetry", method="POST", body=body, token=token).status in (204, 400)

    play()
    names = {name for name in counted(server.site.metrics) if name.startswith("reported")}
    assert names <= {f"reported_total(event={event},what={what})" for event in ("upload", "download") for what in SUMS}
