"""Alert rules and the dashboard of deploy/ ask for metrics, labels and values that a server has."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from xetstore.cas.index import Index
from xetstore.cas.service import EmbeddedCas
from xetstore.server.app import ROUTES
from xetstore.server.care import Care, Chore
from xetstore.server.ops.connection_limit import ConnectionLimit, Event
from xetstore.server.ops.holdings import Holdings
from xetstore.server.ops.limits import ServerLimits
from xetstore.server.ops.metrics import Metrics
from xetstore.server.ops.soundness import SoundnessLook
from xetstore.server.routes.telemetry import EVENTS, OUTCOMES, SUMS
from xetstore.server.settings import ServerSettings

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"

_SELECTOR = re.compile(r"\b([a-z][a-z0-9]*_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")
_WORDS = {"histogram_quantile", "label_values"}
_SCRAPED = {"job", "instance"}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Every series of a server in which everything has happened once: its labels, and their values."""
    metrics = Metrics("1.0")
    for budget in ServerLimits(ServerSettings()).budgets:
        metrics.watch(budget)
    chores = tuple(Chore(name, 1, lambda *_: {}) for name in ("collect", "scrub", "snapshot"))
    metrics.watch_care(Care(Index.in_memory(), chores))
    limit = ConnectionLimit(1, 1)
    metrics.watch_connections(limit)
    for how in get_args(Event):
        limit.told(how)
    metrics.watch_soundness(SoundnessLook(Index.in_memory()))
    cas = EmbeddedCas.open(tmp_path_factory.mktemp("monitored") / "store")
    metrics.watch_holdings(Holdings(cas, time.time))
    for route in ROUTES:
        for status in (200, 500, 503, 507):
            metrics.answered(route.template, "GET", status, seconds=1, received_bytes=1, sent_bytes=1)
    metrics.answer_refused()
    for flag in (True, False):
        metrics.xorb_received(1, is_new=flag)
        metrics.shard_received(1, is_new=flag)
        metrics.dedup_answered(found=flag)
    metrics.xorb_served(1)
    for by in ("address", "token"):
        metrics.rate_limited(by)
    for event in EVENTS.values():
        for outcome in OUTCOMES:
            metrics.client_event(event, outcome, seconds=1, sums=dict.fromkeys(SUMS, 1.0))
    named: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    exposition = metrics.exposition().decode()
    cas.close()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = named[sample.name]
            for name, value in sample.labels.items():
                labels[name].add(value)
    named["up"] = defaultdict(set)
    return named


def alerts() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    [group] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return loaded


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    yield from (
        variable["query"]["query"] for variable in dashboard()["templating"]["list"] if "datasource" in variable
    )


def faults(expression: str, series: dict[str, dict[str, set[str]]]) -> list[str]:
    """The names in an expression that no server has."""
    found = []
    bare = re.sub(r"\$\w+", "", _GROUPING.sub("", expression))
    labels = {label.strip() for match in _GROUPING.finditer(expression) for label in match[1].split(",")}
    used: set[str] = set()
    for name, matchers in _SELECTOR.findall(bare):
        if name in _WORDS:
            continue
        if name not in series:
            found.append(f"no metric {name}")
            continue
        used |= set(series[name])
        for label, operator, value in _MATCHER.findall(matchers):
            if label in _SCRAPED or not value:
                continue
            values = series[name].get(label, set())
            matched = value in values if operator == "=" else any(re.fullmatch(value, each) for each in values)
            if not matched:
                found.append(f'{name} has no {label}{operator}"{value}"')
    found += [f"no label {label}" for label in labels - used - _SCRAPED]
    return found


def test_every_expression_asks_for_metrics_that_exist(series: dict[str, dict[str, set[str]]]) -> None:
    asked = list(expressions())
    assert len(asked) > 30
    assert {expression: wrong for expression in asked if (wrong := faults(expression, series))} == {}


@pytest.mark.parametrize(
    "expression",
    [
        "rate(xetstore_http_request_total[5m])",
        'sum by (state) (rate(xetstore_http_requests_total{status="500"}[5m]))',
        'rate(xetstore_http_requests_total{status="5xx"}[5m])',
        'increase(xetstore_connections_lacking_room_total{how=~"denied.*"}[5m]) > 0',
    ],
)
def test_an_expression_that_asks_for_others_is_seen(expression: str, series: dict[str, dict[str, set[str]]]) -> None:
    assert faults(expression, series)


def test_every_alert_says_what_is_wrong_and_how_urgent_it_is() -> None:
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
        named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        grouped = _GROUPING.search(rule["expr"])
        kept = {label.strip() for label in grouped[1].split(",")} if grouped else named
        assert named <= kept, f"{rule['alert']} names a label that its expression has summed up"


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels) == len({panel["id"] for panel in panels})
    assert all(panel["gridPos"]["w"] == 12 and panel["gridPos"]["x"] in (0, 12) for panel in panels)
