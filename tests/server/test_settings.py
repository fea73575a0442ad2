"""Settings: where a value comes from, what it may be, and what cannot go together."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetstore.errors import NotFoundError, UsageError
from xetstore.server.settings import ServerSettings, choices_of, flag_of, is_loopback, load_settings, variable_of

NAMES = [knob.name for knob in fields(ServerSettings)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "xetstore.toml"


def from_environment(**named: str) -> ServerSettings:
    return load_settings({}, {variable_of(name): value for name, value in named.items()}, None)


# Where values come from


def test_nothing_named_is_the_defaults() -> None:
    assert load_settings({}, {}, None) == load_settings(dict.fromkeys(NAMES), {}, None) == ServerSettings()


def test_a_flag_goes_before_the_environment_and_that_before_the_file(config: Path) -> None:
    config.write_text('port = 1\nurl_ttl_seconds = 11\ndrain_seconds = "2m"\n')
    environment = {"XETSTORE_PORT": "2", "XETSTORE_URL_TTL_SECONDS": "22", "HOME": "/"}
    settings = load_settings({"port": "3"}, environment, config)
    assert (settings.port, settings.url_ttl_seconds, settings.drain_seconds) == (3, 22, 120.0)


def test_the_variable_that_names_the_file_is_no_setting() -> None:
    assert load_settings({}, {"XETSTORE_CONFIG": "somewhere"}, None) == ServerSettings()


@pytest.mark.parametrize("name", NAMES)
def test_every_default_can_be_written_in_the_environment(name: str) -> None:
    default = getattr(ServerSettings(), name)
    if default is not None:
        text = ",".join(default) if isinstance(default, tuple) else str(default)
        assert from_environment(**{name: text}) == ServerSettings()


def test_a_name_that_is_none_is_refused_with_the_nearest_that_is(config: Path) -> None:
    config.write_text("prt = 1")
    with pytest.raises(UsageError, match=r"xetstore\.toml: there is no setting 'prt'") as caught:
        load_settings({}, {}, config)
    assert caught.value.hint == "did you mean port?"
    with pytest.raises(UsageError, match="environment: there is no setting 'XETSTORE_RATE_PER_TOKE'") as caught:
        load_settings({}, {"XETSTORE_RATE_PER_TOKE": "1"}, None)
    assert caught.value.hint == "did you mean XETSTORE_RATE_PER_TOKEN?"
    with pytest.raises(UsageError, match="no setting 'zzz'"):
        load_settings({"zzz": None}, {}, None)


def test_a_table_in_the_file_is_no_setting(config: Path) -> None:
    config.write_text("[server]\nport = 1\n")
    with pytest.raises(UsageError, match="no setting 'server'"):
        load_settings({}, {}, config)


def test_a_file_that_is_missing_or_no_toml_is_named(config: Path) -> None:
    with pytest.raises(NotFoundError, match=r"xetstore\.toml does not exist"):
        load_settings({}, {}, config)
    for content in (b"port = ", b"\xff"):
        config.write_bytes(content)
        with pytest.raises(UsageError, match=r"xetstore\.toml is not TOML"):
            load_settings({}, {}, config)


# What values may be


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("port", " 65535 ", 65535),
        ("max_bytes_in_flight", "1048576", 1 << 20),
        ("max_bytes_in_flight", "512MiB", 512 << 20),
        ("max_bytes_in_flight", "1.5 GiB", 3 << 29),
        ("max_bytes_in_flight", "2MB", 2_000_000),
        ("url_ttl_seconds", "15m", 900),
        ("url_ttl_seconds", "24h", 86400),
        ("url_ttl_seconds", "1d", 86400),
        ("header_timeout_seconds", "500ms", 0.5),
        ("stall_seconds", "2.5", 2.5),
        ("rate_per_token", "0", 0.0),
        ("allow_plain_http", "TRUE", True),
        ("allow_plain_http", "on", True),
        ("allow_plain_http", "no", False),
        ("allow_plain_http", "0", False),
        ("private_namespaces", "", ()),
        ("private_namespaces", "team/one, two,", ("team/one", "two")),
        ("public_url", "https://xet.example.org/cas/", "https://xet.example.org/cas"),
        ("public_url", "http://[::1]:8080", "http://[::1]:8080"),
        ("dedup", "off", "off"),
    ],
)
def test_text_becomes_a_value(name: str, text: str, value: object) -> None:
    found = getattr(from_environment(**{name: text}), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("port", "65536", "a whole number, 0 to 65535"),
        ("port", "-1", "a whole number"),
        ("port", "80.5", "a whole number"),
        ("port", "tcp://10.0.0.1:8080", "a whole number"),
        ("max_bytes_in_flight", "512 megs", "a size, such as 512MiB"),
        ("max_bytes_in_flight", "1023KiB", "a size, such as 512MiB, at least 1048576"),
        ("max_bytes_in_flight", "1" * 400, "a size"),
        ("url_ttl_seconds", "9", "seconds, or a time such as 15m, 10 to 86400"),
        ("url_ttl_seconds", "25h", "10 to 86400"),
        ("url_ttl_seconds", "10.5", "seconds"),
        ("url_ttl_seconds", "1w", "seconds"),
        ("header_timeout_seconds", "0", "at least 0.01"),
        ("rate_per_token", "inf", "a number"),
        ("rate_per_token", "nan", "a number"),
        ("rate_per_token", "10m", "a number"),
        ("allow_plain_http", "maybe", "true or false"),
        ("auth", "basic", "one of tokens, none"),
        ("log_level", "INFO", "one of debug, info, warning, error"),
        ("private_namespaces", "two words", "names with commas between them"),
        ("host", "", "a text that is not empty"),
        ("host", "127.0.0.1\n", "a text"),
        ("public_url", "xet.example.org", "an absolute http or https URL"),
        ("public_url", "ftp://xet.example.org", "an absolute http or https URL"),
        ("public_url", "https://xet.example.org/?a=1", "without query"),
        ("public_url", "https://xet.example.org/#a", "without query"),
        ("public_url", "https://me@xet.example.org", "an absolute http or https URL"),
        ("public_url", "https://xet.example.org:port", "an absolute http or https URL"),
        ("public_url", "https:///v1", "an absolute http or https URL"),
        ("public_url", "https://[xet", "an absolute http or https URL"),
        ("public_url", "https://xet.example.org/<a>", "an absolute http or https URL"),
    ],
)
def test_what_is_no_value_is_refused_and_its_source_named(name: str, text: str, wanted: str, config: Path) -> None:
    with pytest.raises(UsageError) as caught:
        from_environment(**{name: text})
    assert str(caught.value).startswith(f"{variable_of(name)}: ")
    assert wanted in str(caught.value)
    with pytest.raises(UsageError, match=f"^{flag_of(name)}: "):
        load_settings({name: text}, {}, None)
    with pytest.raises(UsageError, match=f"^{name}: "):
        ServerSettings(**{name: text})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("port = 9000", 9000),
        ("stall_seconds = 3", 3.0),
        ("stall_seconds = 2.5", 2.5),
        ("allow_plain_http = true", True),
        ('private_namespaces = ["a", "b"]', ("a", "b")),
        ('max_bytes_in_flight = "1GiB"', 1 << 30),
    ],
)
def test_a_file_may_have_values_of_their_own_type(config: Path, line: str, value: object) -> None:
    config.write_text(line)
    found = getattr(load_settings({}, {}, config), line.split()[0])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "line",
    [
        "port = true",
        "port = 80.5",
        "port = [80]",
        f"max_bytes_in_flight = {10**400}",
        "rate_per_token = inf",
        "rate_per_token = nan",
        "private_namespaces = [1]",
        "private_namespaces = {a = 1}",
        "auth = false",
        "host = 1",
        "allow_plain_http = 2",
        "port = 1979-05-27",
    ],
)
def test_a_value_of_the_wrong_type_in_a_file_is_refused(config: Path, line: str) -> None:
    config.write_text(line)
    with pytest.raises(UsageError, match=rf"xetstore\.toml: {line.split()[0]}: "):
        load_settings({}, {}, config)


@given(
    st.sampled_from(NAMES), st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.text())
)
def test_anything_is_a_value_or_a_usage_error(name: str, value: Any) -> None:
    try:
        settings = ServerSettings(**{name: value})
    except UsageError:
        return
    assert ServerSettings(**{name: getattr(settings, name)}) == settings, "what it became means the same"


def test_settings_cannot_be_changed_into_invalid_ones() -> None:
    with pytest.raises(AttributeError):
        ServerSettings().port = 99999  # type: ignore[misc]


def test_choices_are_known_of_those_settings_that_have_them() -> None:
    found = {knob.name: choices_of(knob) for knob in fields(ServerSettings)}
    assert found["status"] == ("local", "open", "token")
    assert found["port"] == found["private_namespaces"] == found["public_url"] == ()


# What goes together


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_this_machine_plain_http_will_do_and_tokens_may_be_off(host: str) -> None:
    assert ServerSettings(host=host, auth="none").scheme == "http"
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "xet.example.org", "127.0.0.1.example.org"])
def test_beyond_this_machine_it_takes_tls_or_a_word_and_tokens(host: str) -> None:
    with pytest.raises(UsageError, match="clear") as caught:
        ServerSettings(host=host)
    assert caught.value.hint is not None
    assert "allow_plain_http" in caught.value.hint
    assert ServerSettings(host=host, allow_plain_http=True).scheme == "http"
    assert ServerSettings(host=host, tls_cert="cert.pem", tls_key="key.pem").scheme == "https"
    for further in ({"allow_plain_http": True}, {"tls_cert": "cert.pem", "tls_key": "key.pem"}):
        with pytest.raises(UsageError, match="auth none is for this machine only"):
            ServerSettings(host=host, auth="none", **further)


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_a_certificate_and_its_key_go_together(name: str) -> None:
    with pytest.raises(UsageError, match="go together"):
        ServerSettings(**{name: "file.pem"})  # type: ignore[arg-type]
