"""Settings of the server and of the store: what is refused, and what is never shown."""

from __future__ import annotations

import pytest

from mapek_runtime.config import (
    Settings,
    decode,
    is_everywhere,
    is_loopback,
    leaves,
    read_sources,
    split_listen,
)
from mapek_runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"TOKEN": "hunter2"}, "at least 16 visible ASCII characters"),
        ({"TOKEN": "hunter2 hunter2 hunter2"}, "at least 16 visible ASCII characters"),
        ({"TOKEN": "hunter2-hunter2-hunter2", "TOKEN_FILE": "token"}, "must be one of them"),
        ({"KEY": "key.pem"}, "certificate is unset"),
        ({"CLIENT_CA": "ca.pem"}, "certificate is unset"),
        ({"LISTEN": "127.0.0.1"}, "HOST:PORT"),
        ({"LISTEN": "127.0.0.1:65536"}, "from 0 to 65535"),
        ({"HOSTS": "mapek.example:80"}, "MAPEK_WEB_HOSTS"),
        ({"JAEGER": "javascript:alert(1)"}, "such as http://localhost:16686"),
        ({"MAX_CONNECTIONS": "0"}, "from 1"),
        ({"MAX_BODY": "1"}, "from 1024"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_be_right(variables: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode(read_sources(environ={f"MAPEK_WEB_{key}": text for key, text in variables.items()}))

    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_store_must_have_room_for_something() -> None:
    with pytest.raises(ConfigError, match="MAPEK_STORE_MAX_BYTES"):
        decode(read_sources(environ={"MAPEK_STORE_MAX_BYTES": "1000"}))


def test_a_token_is_shown_by_nobody() -> None:
    (leaf,) = (leaf for leaf in leaves(Settings) if leaf.path == "web.token")

    assert leaf.secret
    assert leaf.shown("hunter2-hunter2-hunter2") == "(secret)"


@pytest.mark.parametrize(
    ("listen", "host", "port", "loopback", "everywhere"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, True, False),
        ("[::1]:0", "::1", 0, True, False),
        ("localhost:1", "localhost", 1, True, False),
        ("[::]:1", "::", 1, False, True),
        ("0.0.0.0:1", "0.0.0.0", 1, False, True),
        ("example.org:1", "example.org", 1, False, False),
        ("localhost.example.org:1", "localhost.example.org", 1, False, False),
    ],
)
def test_an_address_says_who_can_reach_it(
    listen: str, host: str, port: int, loopback: bool, everywhere: bool
) -> None:
    assert split_listen(listen) == (host, port)
    assert (is_loopback(host), is_everywhere(host)) == (loopback, everywhere)
