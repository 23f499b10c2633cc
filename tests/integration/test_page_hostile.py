"""The page where a sender, or a page of a stranger in the same browser, means harm; in a real browser."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from .browsing import Look, browser, looking, needs_browser, running

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [needs_browser, pytest.mark.slow]

LIMIT = 60.0
MARKUP = '<img src=x onerror="window.ran=1"><script>window.ran=2</script>'
PHASES = ("monitor", "analyze", "plan", "execute", "knowledge")
Attributes = list[dict[str, Any]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("service"), "--nodes", "2", "--seed", "7") as where:
        yield where


def any_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case str():
            return {"stringValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [any_value(each) for each in value]}}
        case dict():
            return {"kvlistValue": {"values": attributes(value)}}
    return {}


def attributes(values: Mapping[str, Any]) -> Attributes:
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def cycle(node: str, said: Any, *, service: str = "far") -> tuple[str, dict[str, Any]]:
    """The trace of a cycle in which everything that is said is `said`, and its id."""
    trace_id, root, start = secrets.token_hex(16), secrets.token_hex(8), time.time_ns()
    keys = (
        "problem", "target", "message", "confidence", "action", "rule", "reason", "error", "changed",
        "insight", "parameter.a", "parameter.__proto__", "evidence.metric", "evidence.rule", "evidence.unit",
        "exception.stacktrace", "success_rate", "duration_ms", "value",
    )  # fmt: skip
    text = said if isinstance(said, str) else "x"

    def event(name: str) -> dict[str, Any]:
        told = {"evidence.value": [2.0], "evidence.threshold": [1.0], **dict.fromkeys(keys, said)}
        return {"name": name, "timeUnixNano": str(start), "attributes": attributes(told)}

    def span(name: str, span_id: str, parent: str, *events: str, **more: Any) -> dict[str, Any]:
        named = {"__proto__": said, "constructor": said, text: said, "reason": said, "trigger": said, **more}
        return {
            "traceId": trace_id,
            "spanId": span_id,
            "parentSpanId": parent,
            "name": name,
            "kind": 1,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + 10**6),
            "attributes": attributes(named),
            "events": [event(each) for each in events],
            "links": [{"traceId": trace_id, "spanId": root, "attributes": attributes({text: said})}],
            "status": {"code": 2, "message": text},
        }

    told = {
        "analyze": ("finding",),
        "plan": ("option.chosen", "option.rejected"),
        "execute": ("action",),
        "knowledge": ("insight",),
    }
    spans = [
        span("mape_k.cycle", root, "", node_id=node, cycle=said, success=said),
        *(
            span(f"mape_k.{phase}", f"{at + 1:016x}", root, *told.get(phase, ()))
            for at, phase in enumerate(PHASES)
        ),
        span(text, f"{99:016x}", root, text, "exception"),
    ]
    scoped = {"scope": {"name": text, "version": text}, "spans": spans}
    resource = {"attributes": attributes({"service.name": service, text: said})}
    return trace_id, {"resourceSpans": [{"resource": resource, "scopeSpans": [scoped]}]}


async def send(address: str, request: dict[str, Any]) -> None:
    body, headers = json.dumps(request).encode(), {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{address}/v1/traces", data=io.BytesIO(body), headers=headers) as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {})


async def has(look: Look, words: str) -> None:
    await look.page.get_by_text(words, exact=False).first.wait_for()


@pytest.mark.parametrize(
    ("node", "said", "service", "shown"),
    [
        (MARKUP, MARKUP, MARKUP, MARKUP),
        # Its strip is called so, because a node here has the name.
        pytest.param("node-1", "plain", "others", "node-1 (others)"),
        pytest.param("constructor", "plain", "far", "constructor"),
        pytest.param("__proto__", "plain", "far", "__proto__"),
        pytest.param("lists", [1, ["a", None]], "far", "lists"),
        pytest.param(
            "objects",
            {"constructor": {"a": None}, "type": "b", "props": {}},
            "far",
            "objects",
            marks=pytest.mark.slow,
        ),
        pytest.param("nothing", None, "far", "nothing"),
        pytest.param(
            "overridden", "a\u202egnp.exe\u0000\u001b[31m", "far", "overridden", marks=pytest.mark.slow
        ),
        pytest.param("long", "y" * 40_000, "far", "long"),
    ],
    ids=["markup", "our name", "constructor", "proto", "lists", "objects", "none", "signs", "long"],
)
async def test_whatever_a_sender_writes_every_view_shows_it_and_runs_nothing(
    chromium: Browser, address: str, tmp_path: Path, node: str, said: Any, service: str, shown: str
) -> None:
    async with asyncio.timeout(LIMIT), looking(chromium, address, tmp_path) as look:
        asked: list[str] = []
        look.page.on("request", lambda request: asked.append(request.url))
        look.page.on("dialog", lambda _: look.complaints.append("a dialog"))
        await look.open()
        await look.page.get_by_role("heading", name="Cycles").wait_for()
        # What is older than the run is not told.
        trace_id, request = cycle(node, said, service=service)
        await send(address, request)
        await has(look, shown)
        for view, words in (
            ("mesh", shown),
            (f"trace/{trace_id}", "Why it decided so"),
            (f"trace/{trace_id}?span={99:016x}", "Attributes"),
            ("search?q={}", "mape_k.cycle"),
            ("phases", "mape_k.plan"),
            ("health", "Loop lag"),
            ("", shown),
        ):
            await look.open(view)
            await has(look, words)
        ran = await look.page.evaluate(
            "[window.ran, document.querySelectorAll('main img, main script').length]"
        )
        length = await look.page.evaluate("document.querySelector('main').innerText.length")

    assert ran == [None, 0]
    assert length < 60_000
    assert [url for url in asked if not url.startswith((f"{address}/", "data:"))] == []
    assert look.complaints == []


ATTEMPTS = """
({
  "a script in the text": () => add("script", { textContent: "window.ran = 1" }),
  "a handler in the text": () => write('<img src=x onerror="window.ran = 1">'),
  "an address that is a script": () => add("a", { href: "javascript:window.ran = 1" }).click(),
  "eval": () => { try { (0, eval)("window.ran = 1"); } catch { /* as it should be */ } },
  "a script of another host": () => add("script", { src: other }),
  "a frame": () => add("iframe", { src: other }),
  "a form": () => add("form", { action: other }).submit(),
  "news for another host": () => fetch(other, { mode: "no-cors" }).catch(() => {}),
})
"""
TRY = """
async () => {
  const other = "http://127.0.0.1:9/";
  const add = (tag, of) => document.body.appendChild(Object.assign(document.createElement(tag), of));
  const write = (text) => document.body.insertAdjacentHTML("beforeend", text);
  const done = [];
  for (const [name, attempt] of Object.entries(ATTEMPTS)) {
    const refused = new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", () => resolve(true), { once: true });
      setTimeout(() => resolve(false), 3000);
    });
    attempt();
    if (!(await refused)) done.push(name);
  }
  return [done, window.ran ?? null];
}
""".replace("ATTEMPTS", ATTEMPTS)


async def test_what_the_policy_forbids_the_browser_does_not_do(
    chromium: Browser, address: str, tmp_path: Path
) -> None:
    async with asyncio.timeout(LIMIT), looking(chromium, address, tmp_path) as look:
        await look.open()
        await look.page.get_by_role("heading", name="Cycles").wait_for()
        done = await look.page.evaluate(TRY)

    assert done == [[], None]


@asynccontextmanager
async def stranger(host: str) -> AsyncIterator[str]:
    """A page of somebody else, on another port of this machine."""

    async def empty(_request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>win a prize</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", empty)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


ATTACK = """
async ({ address, spans }) => {
  const tell = (path, options) =>
    fetch(address + path, options).then((r) => r.type + r.status, () => "refused");
  const plain = { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" } };
  const said = [
    await tell("/page/halt", { ...plain, body: '{"reason":"prize"}' }),
    await tell("/page/halt", { method: "POST", headers: { "X-Mapek": "1" }, body: '{"reason":"prize"}' }),
    await tell("/v1/traces", { ...plain, body: spans }),
    await tell("/v1/traces", { ...plain, mode: "cors", body: spans }),
    await tell("/page/state"),
    await tell("/page/state", { mode: "no-cors" }),
  ];
  const loads = (tag, of) => new Promise((resolve) => {
    const element = Object.assign(document.createElement(tag), of);
    element.onload = () => resolve("loaded");
    element.onerror = () => resolve("refused");
    document.body.append(element);
  });
  said.push(await loads("script", { src: address + "/static/theme.js" }));
  said.push(await loads("img", { src: address + "/static/icons/mapek.svg" }));
  const stream = new EventSource(address + "/page/live");
  said.push(await new Promise((resolve) => {
    stream.onopen = () => resolve("open");
    stream.onerror = () => resolve("refused");
  }));
  return said;
}
"""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["another site", "another port"])
async def test_a_page_of_a_stranger_in_the_same_browser_reads_and_changes_nothing(
    chromium: Browser, address: str, tmp_path: Path, host: str
) -> None:
    _, request = cycle("prize", "prize", service="prize")

    async with (
        asyncio.timeout(LIMIT),
        stranger(host) as evil,
        looking(chromium, evil, tmp_path) as look,
    ):
        await look.page.goto(evil)
        said = await look.page.evaluate(ATTACK, {"address": address, "spans": json.dumps(request)})
        # A form needs no leave to be sent; what it leads to is a page that says no.
        await look.page.goto(evil)
        await look.page.set_content(
            f'<form method="post" enctype="text/plain" action="{address}/page/halt">'
            '<input name=\'{"reason":"prize","x":"\' value=\'"}\'></form>'
        )
        async with look.page.expect_navigation():
            await look.page.evaluate("document.forms[0].submit()")
        form = await look.page.content()
        await look.page.goto(evil)
        await look.page.set_content(f'<iframe src="{address}/"></iframe>')
        await asyncio.sleep(1)
        framed = [frame.url for frame in look.page.frames[1:]]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{address}/page/state") as answer:
                state = await answer.json()
            async with session.get(
                f"{address}/page/search", params={"q": '{ resource.service.name = "prize" }'}
            ) as answer:
                found = await answer.json()

    # What is opaque was refused too, as what is here and stored shows; the page is not told even that.
    assert set(said) <= {"refused", "opaque0"}
    assert "a page of" in form
    assert framed in ([], ["chrome-error://chromewebdata/"])
    assert state["halted"] is None
    assert found["traces"] == []


async def test_a_link_from_a_page_of_a_stranger_opens_the_page(
    chromium: Browser, address: str, tmp_path: Path
) -> None:
    async with (
        asyncio.timeout(LIMIT),
        stranger("localhost") as evil,
        looking(chromium, evil, tmp_path) as look,
    ):
        await look.page.goto(evil)
        await look.page.set_content(f'<a href="{address}/#/health">look</a>')
        await look.page.get_by_text("look").click()
        await has(look, "Loop lag")

    assert look.complaints == []
