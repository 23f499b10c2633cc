"""Where OTLP/HTTP requests go."""

from __future__ import annotations

import pytest

from mapek_runtime.errors import ConfigError
from mapek_runtime.export.otlp.http_address import read_address

GENERAL = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("variable", "text", "sent"),
    [
        (None, "", "http://localhost:4318/v1/traces"),
        (GENERAL, "http://host", "http://host/v1/traces"),
        (GENERAL, "http://host/base/", "http://host/base/v1/traces"),
        (GENERAL, "https://host:9/base?tenant=1", "https://host:9/base/v1/traces?tenant=1"),
        (TRACES, "http://host", "http://host/"),
        (TRACES, "http://host/base/", "http://host/base/"),
        (TRACES, "http://[::1]:4318/x%2Fy", "http://[::1]:4318/x%2Fy"),
    ],
)
def test_the_general_address_gets_a_path_and_the_one_for_traces_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, text: str, sent: str
) -> None:
    if variable is not None:
        monkeypatch.setenv(variable, text)

    assert str(read_address(None).url) == sent


def test_the_argument_comes_first_and_traces_before_the_general_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GENERAL, "http://general")
    monkeypatch.setenv(TRACES, "http://traces/x")

    assert read_address(None).where == "http://traces/x"
    assert read_address("http://argument/y").where == "http://argument/y"


def test_a_password_is_neither_in_the_request_nor_in_what_is_shown() -> None:
    address = read_address("https://us%40er:hunter2@host/x?key=hunter3#hunter4")

    assert str(address.url) == "https://host/x?key=hunter3"
    assert (address.user, address.password) == ("us@er", "hunter2")
    assert address.where == "https://host/x"
    assert "hunter" not in repr(address)


@pytest.mark.parametrize("variable", [None, GENERAL, TRACES])
def test_a_unix_socket_is_spelt_in_one_way_everywhere(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable is not None:
        monkeypatch.setenv(variable, "unix:///run/collector.sock")

    address = read_address("unix:///run/collector.sock" if variable is None else None)

    assert address.socket == "/run/collector.sock"
    assert address.where == "unix:///run/collector.sock"
    assert str(address.url) == "http://localhost/v1/traces"


@pytest.mark.parametrize(
    "text",
    [
        "host:4318",
        "ftp://host",
        "http://",
        "unix://run/x.sock",
        "unix:///",
        "http://u:hunter2@[bad",
        "http://h:x",
    ],
)
def test_anything_else_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigError, match="must look like http://host:4318/v1/traces") as caught:
        read_address(text)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "no_proxy", "expected"),
    [
        ("http://host/x", "", "http://plain:1"),
        ("https://host/x", "", "http://secure:2"),
        ("http://host/x", "host", None),
        ("http://a.inner/x", ".inner", None),
        ("http://host/x", "*", None),
        ("unix:///run/x.sock", "", None),
    ],
)
def test_proxies_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, no_proxy: str, expected: str | None
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "plain:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:2")
    monkeypatch.setenv("NO_PROXY", no_proxy)

    proxy = read_address(endpoint).proxy

    assert (None if proxy is None else str(proxy)) == expected


def test_a_proxy_that_cannot_be_read_warns_and_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://u:hunter2@host:1")

    assert read_address("http://host/x").proxy is None
    assert "HTTP_PROXY must look like" in caplog.text
    assert "hunter2" not in caplog.text
