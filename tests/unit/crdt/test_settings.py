"""The section of the configuration: what can be, and what is said of what cannot."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mapek_domains.crdt.document import Limits
from mapek_domains.crdt.settings import CrdtSettings, check_nodes, limits_of, split_address
from mapek_runtime.errors import ConfigError

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"listen": "127.0.0.1:0"},
        {"listen": "[::1]:8390"},
        {"listen": "localhost:8390"},
        {"listen": "0.0.0.0:8390", "token": TOKEN},
        {"peers": ["ws://10.0.0.2:8390", "wss://share.example/knowledge"]},
    ],
)
def test_what_can_be(values: dict[str, Any]) -> None:
    assert msgspec.convert(values, CrdtSettings).interval == 2.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"listen": "0.0.0.0:8390"}, "others can reach, and token is unset"),
        ({"listen": "example.org:8390"}, "others can reach, and token is unset"),
        ({"listen": "127.0.0.1"}, "listen"),
        ({"listen": "127.0.0.1:99999"}, "0 to 65535"),
        ({"token": "short"}, "token"),
        ({"peers": ["http://10.0.0.2"]}, "peers"),
        ({"interval": 0.0}, "interval"),
        ({"incidents": 1}, "incidents"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_cannot_be_is_said(values: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(values, CrdtSettings)


def test_the_defaults_are_those_of_the_document() -> None:
    assert limits_of(CrdtSettings()) == Limits()


def test_an_address_is_taken_apart() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("a.example:80") == ("a.example", 80)


def test_a_name_that_others_would_not_take_stops_the_start() -> None:
    check_nodes(("node-1", "x" * 64))
    with pytest.raises(ConfigError, match="65 characters"):
        check_nodes(("x" * 65,))
