"""Who is answered: decided by method, route and headers alone."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from mapek_runtime.errors import ConfigError
from mapek_runtime.web import Access, require_protection
from mapek_runtime.web.safety import Refusal, refusal
from mapek_runtime.web.scopes import Scope, scope_of

TOKEN = "correct horse battery".replace(" ", "-")
HERE = Access.at("127.0.0.1:8380")


def ask(
    access: Access, method: str = "GET", pattern: str = "/page/state", *more: tuple[str, str], host: str = ""
) -> Refusal | None:
    headers = CIMultiDict([("Host", host or "127.0.0.1:8380"), *more])
    return refusal(access, method, pattern, CIMultiDictProxy(headers))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8380",
        "localhost",
        "LOCALHOST:9",
        "localhost.",
        "mapek.localhost:80",
        "[::1]:8380",
        "127.8.8.8",
        "localhost:",
    ],
)
def test_every_name_of_loopback_is_answered(host: str) -> None:
    assert ask(HERE, host=host) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8380", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1:8380",
     "0.0.0.0:8380", "notlocalhost"],
)  # fmt: skip
def test_a_name_that_was_made_to_point_here_is_not_answered_whatever_it_asks_for(host: str) -> None:
    for pattern in ("/page/state", "/livez", "/", "/static/{path}", ""):
        refused = ask(HERE, "GET", pattern, host=host)

        assert refused is not None
        assert refused.status == 421
        assert "web.hosts" in refused.message


@pytest.mark.parametrize(
    "host",
    ["a@localhost", "localhost:80:80", "[::1", "[::1]80", "localhost:99999", "localhost:x", ":80"],
)
def test_a_host_header_that_is_none_is_no_request(host: str) -> None:
    refused = ask(HERE, host=host)

    assert refused is not None
    assert refused.status == 400


def test_two_host_headers_and_none_are_no_request() -> None:
    none = refusal(HERE, "GET", "/livez", CIMultiDictProxy(CIMultiDict()))
    two = ask(HERE, "GET", "/livez", ("Host", "evil.example"))

    assert none is not None
    assert none.status == 400
    assert two is not None
    assert two.status == 400


def test_the_address_and_the_names_that_are_set_are_answered() -> None:
    access = Access.at("192.0.2.7:80", hosts=("Mapek.Example.", "[2001:db8::1]"))

    assert ask(access, host="192.0.2.7") is None
    assert ask(access, host="mapek.example:443") is None
    assert ask(access, host="[2001:DB8::1]:80") is None
    assert ask(access, host="192.0.2.8") is not None


def test_on_every_address_numbers_are_answered_and_names_are_not() -> None:
    access = Access.at("0.0.0.0:80")

    assert ask(access, host="192.0.2.7:80") is None
    assert ask(access, host="[2001:db8::1]") is None
    assert ask(access, host="evil.example") is not None


ORIGINS = [
    ("http://127.0.0.1:8380", True),
    ("https://127.0.0.1:8380", True),
    ("http://127.0.0.1:3000", False),
    ("http://localhost:8380", False),
    ("http://127.0.0.1", False),
    ("https://evil.example", False),
    ("http://127.0.0.1:8380.evil.example", False),
    ("http://127.0.0.1:8380@evil.example", False),
    ("http://127.0.0.1:8380/x", False),
    ("null", False),
    ("", False),
    ("http://[", False),
]


@pytest.mark.parametrize(("origin", "same"), ORIGINS)
@pytest.mark.parametrize("pattern", ["/page/state", "/v1/traces", "/page/inject"])
def test_what_a_page_of_another_origin_asks_for_is_refused(origin: str, same: bool, pattern: str) -> None:
    method = "GET" if pattern == "/page/state" else "POST"

    refused = ask(HERE, method, pattern, ("Origin", origin), ("X-Mapek", "1"))

    assert (refused is None) is same
    assert same or (refused is not None and refused.status == 403)


def test_a_port_that_goes_without_saying_is_the_same_port() -> None:
    assert ask(HERE, "GET", "/page/state", ("Origin", "http://localhost"), host="localhost:80") is None
    assert ask(HERE, "GET", "/page/state", ("Origin", "https://localhost:443"), host="localhost") is None


@pytest.mark.parametrize(
    ("site", "pattern", "more", "answered"),
    [
        ("same-origin", "/page/state", (), True),
        ("none", "/page/state", (), True),
        ("same-site", "/page/state", (), False),
        ("cross-site", "/page/state", (), False),
        ("cross-site", "/static/{path}", (), False),
        ("cross-site", "/", (), False),
        ("cross-site", "/", (("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")), True),
        ("cross-site", "/", (("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")), False),
        (
            "cross-site",
            "/page/state",
            (("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")),
            False,
        ),
    ],
)
def test_of_another_site_only_a_link_to_the_page_is_followed(
    site: str, pattern: str, more: tuple[tuple[str, str], ...], answered: bool
) -> None:
    assert (ask(HERE, "GET", pattern, ("Sec-Fetch-Site", site), *more) is None) is answered


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (None, False),
        ("", False),
        ("Bearer", False),
        ("Bearer ", False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        ("Bearer \udcff\udcfe", False),
    ],
)
def test_only_whoever_has_the_token_is_answered(sent: str | None, answered: bool) -> None:
    access = Access.at("127.0.0.1:1", token=TOKEN)
    more = () if sent is None else (("Authorization", sent),)

    for method, pattern in (("GET", "/page/state"), ("GET", "/metrics"), ("POST", "/v1/traces"), ("GET", "")):
        refused = ask(access, method, pattern, *more)

        assert (refused is None) is answered
        if refused is not None:
            assert refused.status == 401
            assert refused.headers["WWW-Authenticate"].startswith("Bearer ")
            assert TOKEN not in str(refused)


def test_two_tokens_are_none() -> None:
    access = Access.at("127.0.0.1:1", token=TOKEN)
    twice = (("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other"))

    assert ask(access, "GET", "/page/state", *twice) is not None


def test_whether_it_is_alive_and_the_files_of_the_page_need_no_token() -> None:
    access = Access.at("127.0.0.1:1", token=TOKEN)

    for pattern in ("/livez", "/readyz", "/health", "/", "/static/{path}"):
        assert ask(access, "GET", pattern) is None
        assert ask(access, "POST", pattern) is not None


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(Access.at("127.0.0.1:1", token=TOKEN))


def test_what_changes_the_system_needs_a_header_that_no_form_can_send() -> None:
    without, other = ask(HERE, "POST", "/page/halt"), ask(HERE, "POST", "/page/halt", ("X-Mapek", "yes"))

    assert without is not None
    assert without.status == 403
    assert other is not None
    assert ask(HERE, "POST", "/page/halt", ("X-Mapek", "1")) is None
    assert ask(HERE, "POST", "/v1/traces") is None


def test_without_control_nothing_is_changed() -> None:
    refused = ask(Access.at("127.0.0.1:1", control=False), "POST", "/page/halt", ("X-Mapek", "1"))

    assert refused is not None
    assert "web.control" in refused.message


@pytest.mark.parametrize(
    ("method", "pattern", "scope"),
    [
        ("GET", "/", Scope.OPEN),
        ("HEAD", "/livez", Scope.OPEN),
        ("GET", "/static/{path}", Scope.OPEN),
        ("GET", "/statics", Scope.READ),
        ("GET", "/metrics", Scope.READ),
        ("GET", "", Scope.READ),
        ("GET", "/page/live", Scope.READ),
        ("POST", "/api/transform", Scope.READ),
        ("POST", "/v1/traces", Scope.WRITE),
        ("POST", "/page/inject", Scope.CONTROL),
        ("DELETE", "/page/whatever/comes", Scope.CONTROL),
    ],
)
def test_a_route_belongs_to_one_scope(method: str, pattern: str, scope: Scope) -> None:
    assert scope_of(method, pattern) is scope


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.1.2.3:1", "a.localhost:1"])
def test_on_loopback_nothing_is_needed(listen: str) -> None:
    require_protection(listen, token="", client_certificates=False, named="web.listen")


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "example.org:1", "127.1:1", "2130706433:1"]
)
def test_elsewhere_a_token_or_client_certificates_are(listen: str) -> None:
    require_protection(listen, token=TOKEN, client_certificates=False, named="web.listen")
    require_protection(listen, token="", client_certificates=True, named="web.listen")

    with pytest.raises(ConfigError) as caught:
        require_protection(listen, token="", client_certificates=False, named="web.listen")

    for word in (repr(listen), "web.token", "web.client_ca", "127.0.0.1"):
        assert word in str(caught.value)
