"""The settings of the etcd engine: what contradicts itself stops the start, and the password is a secret."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mapek_domains.raft.etcd.settings import EtcdEngine, check_etcd
from mapek_runtime.config import leaves
from mapek_runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"endpoints": ("a:1", "a:1")}, "endpoints is .* names one twice"),
        ({"endpoints": ("a:0",)}, "'a:0' has no port"),
        ({"endpoints": ("a:70000",)}, "'a:70000' has no port"),
        ({"fleet": ("x", "y", "x")}, "fleet is .* names one twice"),
        ({"user": "root"}, "user is set and password is not"),
        ({"password": "hush"}, "password is set and user is not"),
        ({"tls": True, "certificate": "c.pem"}, "certificate is set and key is not"),
        ({"tls": True, "key": "k.pem"}, "key is set and certificate is not"),
        ({"ca": "ca.pem"}, "ca is set and tls is false"),
    ],
)
def test_what_contradicts_itself_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_etcd(EtcdEngine(**given))

    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"endpoints": []},
        {"endpoints": ["http://a:1"]},
        {"endpoints": ["a"]},
        {"prefix": "mapek"},
        {"prefix": "/mapek/"},
        {"prefix": ""},
        {"lease": 0},
        {"answer": 0.0},
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, EtcdEngine)


def test_all_that_may_be_set_together_may_be() -> None:
    check_etcd(
        msgspec.convert(
            {
                "endpoints": ["[::1]:2379", "etcd.example:2379"],
                "user": "root",
                "password": "hush",
                "tls": True,
                "ca": "ca.pem",
                "certificate": "c.pem",
                "key": "k.pem",
                "fleet": ["x", "y"],
            },
            EtcdEngine,
        )
    )


def test_the_password_is_never_shown() -> None:
    assert [leaf.path for leaf in leaves(EtcdEngine) if leaf.secret] == ["password"]
