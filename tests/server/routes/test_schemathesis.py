"""What /openapi.json promises, asked of a server: no answer is undocumented, and none is a failure of the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from tests.support.live import LiveServer, live_server
from tests.support.stored import urls_of
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.hashes import Hash
from xetstore.testing.samples import Sample, make_sample, upload

Operation = schemathesis.APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Operation]

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
# Few, and the same each time; what is at the edges of the schemas is asked beside them.
RANDOM = settings(
    max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

OTHER = make_sample(b"this one is deleted, and given back")


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make_sample(splitmix64(1, 300_000))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("store")) as cas:
        upload(cas, sample)
        upload(cas, OTHER)
        with live_server(cas, log_level="error") as running:
            yield running


@pytest.fixture(scope="module")
def operations(server: LiveServer) -> list[Operation]:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


class Caller:
    """Sends requests, with a token or without, checks each answer, and remembers which operation gave which status."""

    def __init__(self, token: str | None = None) -> None:
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.seen: set[tuple[str, int]] = set()

    def call(self, case: Case) -> None:
        answer = case.call(headers=self._headers)
        case.validate_response(answer, checks=CHECKS)
        self.seen.add((case.operation.label, answer.status_code))

    def edges(self, operation: Operation) -> None:
        """Everything at the edges of the schema, on both sides of them, and methods that are none."""
        generation = operation.schema.config.generation
        for case in operation.schema.iter_coverage_cases(
            operation, generation_modes=list(GenerationMode), generation_config=generation
        ):
            self.call(case)

    def random(self, operation: Operation, mode: GenerationMode, **fixed: Any) -> None:
        """Random requests in which what is ``fixed`` is as it is."""

        @RANDOM
        @given(case=operation.as_strategy(mode, **fixed))
        def run(case: Case) -> None:
            self.call(case)

        run()


def good_request(operation: Operation, server: LiveServer, sample: Sample) -> dict[str, Any]:
    """What an operation succeeds with."""
    file, xorb, prefix = str(sample.file.hash), str(sample.xorb.hash), "default"
    [(url, [(start, end)])] = urls_of(server, server.token(), sample.file.hash)
    signed, span = urlsplit(url), f"bytes={start}-{end - 1}"
    match operation.method, operation.path:
        case "delete", "/v1/files/{hash}":
            return {"path_parameters": {"hash": str(OTHER.file.hash)}}
        case _, "/v1/reconstructions/{hash}" | "/v2/reconstructions/{hash}" | "/v1/files/{hash}":
            return {"path_parameters": {"hash": file}, "headers": {"Range": "bytes=100-199"}}
        case "post", "/v1/files/{hash}/undelete":
            return {"path_parameters": {"hash": str(OTHER.file.hash)}}
        case "post", "/v1/files/delete" | "/v1/files/undelete":
            return {"body": {"files": [str(OTHER.file.hash)]}}
        case "post", "/v1/files/again":
            return {"body": sample.file.hash.digest, "query": {"dry_run": "false"}}
        case "post", "/v1/reconstructions":
            return {"body": [{"hash": file}]}
        case _, "/v1/reconstructions":
            return {"query": {"file_id": [file]}}
        case _, "/v2/file-chunk-hashes/{hash}":
            return {"path_parameters": {"hash": file}, "headers": {"X-Range-Dirty": "bytes=100-199"}}
        case _, "/v1/chunks/{prefix}/{hash}":
            return {"path_parameters": {"hash": str(Hash(sample.xorb.chunks.digest(0))), "prefix": prefix}}
        case _, "/v1/chunks":
            return {"body": sample.xorb.chunks.digest(0)}
        case "post", "/v1/xorbs/{prefix}/{hash}":
            return {"path_parameters": {"hash": xorb, "prefix": prefix}, "body": sample.body}
        case _, "/v1/xorbs/{prefix}/{hash}":
            names = {"hash": signed.path.rpartition("/")[2], "prefix": prefix}
            return {"path_parameters": names, "query": dict(parse_qsl(signed.query)), "headers": {"Range": span}}
        case _, "/v1/auth/xorb":
            original = f"{signed.path}?{signed.query}"
            return {"headers": {"X-Original-Method": "GET", "X-Original-URI": original, "Range": span}}
        case _, "/v1/shards" | "/v2/shards":
            return {"body": sample.shard.serialize()}
    return {}


def test_whoever_may_do_all_gets_documented_answers_to_whatever_is_asked(
    server: LiveServer, operations: list[Operation], sample: Sample
) -> None:
    caller = Caller(server.token("admin"))
    for operation in operations:
        caller.edges(operation)
        if operation.definition.raw.get("deprecated"):
            continue  # another name of one that is asked more
        caller.random(operation, GenerationMode.POSITIVE)
        with suppress(Unsatisfiable):  # where nothing is against the schema
            caller.random(operation, GenerationMode.NEGATIVE)
        caller.random(operation, GenerationMode.POSITIVE, **good_request(operation, server, sample))
        can_succeed = any(code.startswith("2") for code in operation.definition.raw["responses"])
        succeeded = any(label == operation.label and 200 <= status < 300 for label, status in caller.seen)
        assert succeeded == can_succeed, operation.label


def test_without_a_token_all_answers_are_documented_and_none_gives_anything_away(
    server: LiveServer, operations: list[Operation], sample: Sample
) -> None:
    caller = Caller()
    for operation in operations:
        caller.edges(operation)
        if operation.definition.raw.get("security"):
            caller.random(operation, GenerationMode.POSITIVE, **good_request(operation, server, sample))
            assert {status for label, status in caller.seen if label == operation.label} <= {400, 401, 404, 405}
