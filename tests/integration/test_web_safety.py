"""The server as a browser, a stranger and a client with a certificate meet it."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.web_app import Application
from cryptography.hazmat.primitives import serialization

from mapek_runtime.errors import ConfigError
from mapek_runtime.web import Access, WebServer, make_tls
from mapek_runtime.web.headers import API_POLICY, PAGE_POLICY

from .certificates import Authority, authority
from .running import address_of, environment, start

LIMIT = 45.0
TOKEN = "0123456789abcdef-secret"
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "mapek",
}


def add_page(app: Application) -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<h1>loop</h1>", content_type="text/html")

    async def state(_request: web.Request) -> web.Response:
        return web.json_response({})

    async def taken(_request: web.Request) -> web.Response:
        return web.Response()

    app.router.add_get("/", page)
    app.router.add_get("/static/{path:.+}", page)
    app.router.add_get("/page/state", state)
    app.router.add_post("/page/halt", state)
    app.router.add_post("/v1/traces", taken)


def health() -> Mapping[str, Any]:
    return {"status": "ok"}


def server(listen: str = "127.0.0.1:0", **more: Any) -> WebServer:
    return WebServer(listen, metrics=lambda _: (b"m", "text/plain"), health=health, parts=[add_page], **more)


@pytest.mark.parametrize(
    ("path", "policy", "kept"),
    [
        ("/", PAGE_POLICY, "no-cache"),
        ("/static/app.js", PAGE_POLICY, "no-cache"),
        ("/page/state", API_POLICY, "no-store"),
        ("/metrics", API_POLICY, "no-store"),
        ("/nowhere", API_POLICY, "no-store"),
        ("/page/halt", API_POLICY, "no-store"),
    ],
)
async def test_every_answer_says_what_a_browser_may_do_with_it(path: str, policy: str, kept: str) -> None:
    async with (
        server() as serving,
        aiohttp.ClientSession(serving.address) as client,
        client.get(path) as reply,
    ):
        headers = reply.headers

    assert {name: headers[name] for name in ALWAYS} == ALWAYS
    assert headers["Content-Security-Policy"] == policy
    assert headers["Cache-Control"] == kept
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/page/state", {}, 200),
        ("GET", "/page/state", {"Host": "rebound.example"}, 421),
        ("GET", "/livez", {"Host": "rebound.example"}, 421),
        ("GET", "/page/state", {"Origin": "https://evil.example"}, 403),
        ("GET", "/page/state", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/v1/traces", {}, 200),
        ("POST", "/v1/traces", {"Origin": "https://evil.example"}, 403),
        ("POST", "/page/halt", {}, 403),
        ("POST", "/page/halt", {"X-Mapek": "1"}, 200),
        ("POST", "/page/halt", {"X-Mapek": "1", "Origin": "http://localhost:1"}, 403),
        ("OPTIONS", "/v1/traces", {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_a_stranger_is_refused_with_a_reason(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with (
        server() as serving,
        aiohttp.ClientSession(serving.address) as client,
        client.request(method, path, headers=headers) as reply,
    ):
        assert reply.status == status
        assert "Access-Control-Allow-Origin" not in reply.headers
        if status >= 400:
            # Who sends spans reads a google.rpc.Status, everybody else the house's own words.
            assert (await reply.json())["message" if (method, path) == ("POST", "/v1/traces") else "error"]
            assert reply.headers["X-Content-Type-Options"] == "nosniff"


async def test_with_a_token_only_whoever_has_it_is_answered() -> None:
    access = Access.at("127.0.0.1:0", token=TOKEN)
    right, wrong = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": "Bearer wrong"}
    found = {}
    async with server(access=access) as serving, aiohttp.ClientSession(serving.address) as client:
        for path in ("/", "/livez", "/readyz", "/health", "/page/state", "/metrics", "/nowhere"):
            for who, headers in (("nobody", {}), ("wrong", wrong), ("right", right)):
                async with client.get(path, headers=headers) as reply:
                    found[path, who] = reply.status
        async with client.post("/v1/traces") as reply:
            found["/v1/traces", "nobody"] = reply.status

    for path in ("/", "/livez", "/readyz", "/health"):
        assert [found[path, who] for who in ("nobody", "wrong", "right")] == [200, 200, 200]
    for path in ("/page/state", "/metrics"):
        assert [found[path, who] for who in ("nobody", "wrong", "right")] == [401, 401, 200]
    # What there is and what not is nobody else's business.
    assert [found["/nowhere", who] for who in ("nobody", "wrong", "right")] == [401, 401, 404]
    assert found["/v1/traces", "nobody"] == 401


async def test_ready_is_another_thing_than_alive() -> None:
    missing = {"store": "the disk is full"}

    async def obstacles() -> Mapping[str, str]:
        return missing

    async with server(obstacles=obstacles) as serving, aiohttp.ClientSession(serving.address) as client:
        async with client.get("/readyz") as reply:
            assert reply.status == 503
            assert (await reply.json())["obstacles"] == {"store": "the disk is full"}
        async with client.get("/livez") as reply:
            assert reply.status == 200
        missing.clear()
        async with client.get("/readyz") as reply:
            assert reply.status == 200


def trusting(ca: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca.certificate)


async def test_it_speaks_tls(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    issued = ca.issue("server")
    tls = make_tls(issued.certificate, issued.key)
    async with server(tls=tls) as serving, aiohttp.ClientSession() as client:
        assert serving.address.startswith("https://127.0.0.1:")
        assert serving.page == f"{serving.address}/"
        async with client.get(f"{serving.address}/livez", ssl=trusting(ca)) as reply:
            assert reply.status == 200
        with pytest.raises(aiohttp.ClientError):
            await client.get(serving.address.replace("https", "http") + "/livez")


async def test_without_the_right_certificate_a_client_is_not_spoken_to(tmp_path: Path) -> None:
    ca, other = authority(tmp_path), authority(tmp_path, "other")
    issued, known, stranger = ca.issue("server"), ca.issue("client"), other.issue("stranger")
    tls = make_tls(issued.certificate, issued.key, ca.certificate)
    async with server(tls=tls) as serving, aiohttp.ClientSession() as client:
        url = f"{serving.address}/livez"
        with pytest.raises(aiohttp.ClientError):
            await client.get(url, ssl=trusting(ca))
        unknown = trusting(ca)
        unknown.load_cert_chain(stranger.certificate, stranger.key)
        with pytest.raises(aiohttp.ClientError):
            await client.get(url, ssl=unknown)
        right = trusting(ca)
        right.load_cert_chain(known.certificate, known.key)
        async with client.get(url, ssl=right) as reply:
            assert reply.status == 200


@pytest.mark.parametrize("kind", ["missing", "empty", "no key", "another key", "encrypted", "no authority"])
def test_a_certificate_that_cannot_be_used_is_named(kind: str, tmp_path: Path) -> None:
    ca = authority(tmp_path)
    one, two = ca.issue("one"), ca.issue("two")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(Path(one.key).read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    arguments, named = {
        "missing": ((str(tmp_path / "none.pem"), one.key), "none.pem"),
        "empty": ((str(empty), one.key), "empty.pem"),
        "no key": ((one.certificate,), "web.key"),
        "another key": ((one.certificate, two.key), "two.key"),
        "encrypted": ((one.certificate, str(locked)), "is encrypted"),
        "no authority": ((one.certificate, one.key, str(empty)), "web.client_ca"),
    }[kind]

    with pytest.raises(ConfigError, match=named):
        make_tls(*arguments)


def test_without_protection_others_are_not_listened_to(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    issued = ca.issue("server")

    with pytest.raises(ConfigError, match=r"web.token .*web.client_ca"):
        server("0.0.0.0:0")
    with pytest.raises(ConfigError, match=r"web.token .*web.client_ca"):
        server("0.0.0.0:0", tls=make_tls(issued.certificate, issued.key))
    server("0.0.0.0:0", tls=make_tls(issued.certificate, issued.key, ca.certificate))
    server("0.0.0.0:0", access=Access.at("0.0.0.0:0", token=TOKEN))


async def test_on_every_address_the_page_has_one_that_can_be_opened() -> None:
    access = Access.at("0.0.0.0:0", token=TOKEN)
    async with server("0.0.0.0:0", access=access) as serving, aiohttp.ClientSession() as client:
        assert serving.address.startswith("http://0.0.0.0:")
        assert serving.page.startswith("http://127.0.0.1:")
        async with client.get(serving.page) as reply:
            assert reply.status == 200


async def test_a_port_that_nobody_named_is_left_to_whoever_has_it() -> None:
    async with server() as first:
        listen = first.address.removeprefix("http://")
        async with server(listen, may_move=True) as second:
            assert second.address != first.address
        with pytest.raises(ConfigError, match="in use"):
            async with server(listen):
                raise AssertionError("two servers on one port")


OPEN = {"MAPEK_WEB_LISTEN": "0.0.0.0:0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("run", OPEN, "web.token"),
        ("check", OPEN, "web.token"),
        ("check", {**OPEN, "MAPEK_WEB_TOKEN": "hunter2"}, "at least 16"),
        ("check", {"MAPEK_WEB_TOKEN_FILE": "token"}, "web.token_file 'token' holds no token"),
        ("check", {"MAPEK_WEB_TOKEN_FILE": "nothing"}, "web.token_file 'nothing' cannot be read"),
        ("check", {"MAPEK_WEB_CERTIFICATE": "nothing"}, "web.certificate 'nothing' cannot be used"),
        ("run", {"OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0", "MAPEK_METRICS_EXPORTERS": "prometheus"},
         "OTEL_EXPORTER_PROMETHEUS_HOST"),
    ],
    ids=["open", "open, checked", "a short token", "in a file", "no file", "no certificate", "prometheus"],
)  # fmt: skip
async def test_what_is_not_safe_is_one_line_and_exit_2(
    command: str, more: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    arguments = ("--duration", "5") if command == "run" else ()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "mapek_runtime.service.cli", command, *arguments],
        capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path, **more), timeout=LIMIT,
        check=False,
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mapek: ")]
    assert said in line
    assert "hunter2" not in done.stdout + done.stderr


async def test_a_run_with_a_token_says_where_it_travels_in_the_clear(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    process = await start(
        tmp_path, "--nodes", "1", "--duration", "30", "--listen", "0.0.0.0:0", MAPEK_WEB_TOKEN_FILE="token"
    )
    async with asyncio.timeout(LIMIT):
        lines: list[dict[str, Any]] = []
        await address_of(process, lines)
        page = lines[-1]["page"]
        async with aiohttp.ClientSession() as client:
            async with client.get(f"{page}metrics") as reply:
                without = reply.status
            async with client.get(f"{page}metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as reply:
                with_it = reply.status
        process.terminate()
        out, err = await process.communicate()

    assert (without, with_it) == (401, 200)
    assert err.decode().count("travels in the clear") == 1
    assert TOKEN not in out.decode() + err.decode()


async def test_the_link_to_jaeger_carries_no_password(tmp_path: Path) -> None:
    process = await start(
        tmp_path,
        "--nodes",
        "1",
        "--listen",
        "127.0.0.1:0",
        MAPEK_WEB_JAEGER="http://me:hunter2@jaeger:16686/ui",
    )
    async with asyncio.timeout(LIMIT):
        address = await address_of(process, [])
        async with aiohttp.ClientSession() as client, client.get(f"{address}/page/state") as reply:
            told = await reply.text()
            state = await reply.json()
        process.terminate()
        await process.communicate()

    assert state["jaeger"] == "http://jaeger:16686/ui"
    assert "hunter2" not in told


async def test_the_first_command_serves_the_page_and_says_when_it_is_ready(tmp_path: Path) -> None:
    process = await start(tmp_path, "--nodes", "2", "--duration", "30")
    async with asyncio.timeout(LIMIT):
        lines: list[dict[str, Any]] = []
        address = await address_of(process, lines)
        async with aiohttp.ClientSession() as client:
            status = 0
            while status != 200:
                async with client.get(f"{address}/readyz") as reply:
                    status = reply.status
                    told = await reply.json()
                assert status == 200 or told["obstacles"], told
                await asyncio.sleep(0.02)
            async with client.get(lines[-1]["page"]) as reply:
                page = await reply.text()
            async with client.get(f"{address}/page/state") as reply:
                nodes = [node["id"] for node in (await reply.json())["nodes"]]
        process.terminate()
        out, err = await process.communicate()

    assert process.returncode == 0, (out, err)
    assert lines[-1]["page"] == f"{address}/"
    assert "<html" in page
    assert nodes == ["node-1", "node-2"]
    assert (tmp_path / "mapek" / "traces.sqlite").exists()
