"""Search and trace, in a real browser over the real service."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from .browser import PHONE, Opened, browsing, until
from .running import address_of, start

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from playwright.async_api import Page

LIMIT = 60.0
MILLISECOND = 10**6
HOSTILE = '<img src=x onerror="document.title=1">'


@dataclass(frozen=True)
class Service:
    """A run with its page, and a browser."""

    address: str
    client: aiohttp.ClientSession
    browser: Opened

    async def open(self, route: str, **options: Any) -> Page:
        return await self.browser.page(f"{self.address}/#/{route}", **options)

    async def send(self, spans: Iterable[Span], service: str = "sent") -> None:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        attribute = group.resource.attributes.add(key="service.name")
        attribute.value.string_value = service
        group.scope_spans.add().spans.extend(spans)
        async with self.client.post(
            f"{self.address}/v1/traces",
            data=request.SerializeToString(),
            headers={"Content-Type": "application/x-protobuf"},
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def found(self, query: str, *, limit: float = LIMIT) -> list[dict[str, Any]]:
        """The traces that a query finds, as soon as there are any."""
        async with asyncio.timeout(limit):
            while True:
                async with self.client.get(f"{self.address}/page/search?q={quote(query)}") as answer:
                    told = await answer.json()
                if told.get("traces"):
                    return list(told["traces"])
                await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One run with faults for all the tests here: each looks only at what it sent itself, or at any cycle."""
    folder = tmp_path_factory.mktemp("page")
    process = await start(
        folder, "--nodes", "5", "--chaos", "--seed", "7", "--listen", "127.0.0.1:0", "--duration", "600"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(LIMIT):
            address = await address_of(process, [])
        async with asyncio.TaskGroup() as reading:
            # What it says must be read, or it would wait for that.
            reading.create_task(process.stdout.read())
            reading.create_task(process.stderr.read())
            async with aiohttp.ClientSession() as client, browsing(folder) as opened:
                yield Service(address, client, opened)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(LIMIT):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def service(running: Service) -> AsyncIterator[Service]:
    """The same; what a test opened is closed after it, or it would go on asking."""
    yield running
    await running.browser.close_pages()


def span(trace: int, number: int, parent: int, name: str, start: int, duration: int, **more: Any) -> Span:
    """A span as OTLP has it; `start` and `duration` in nanoseconds."""
    one = Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=start + duration,
    )
    for key, value in more.items():
        one.attributes.add(key=key).value.string_value = str(value)
    return one


def searching(query: str, **more: str) -> str:
    return "search?" + "&".join(f"{key}={quote(value)}" for key, value in {"q": query, **more}.items())


async def shown(page: Page) -> list[str]:
    """The names of the traces that the page lists."""
    return await page.locator(".t-hit-name").all_inner_texts()


async def test_an_example_finds_cycles_and_the_address_says_what_was_asked(service: Service) -> None:
    await service.found('{ name = "mape_k.cycle" }')
    page = await service.open("search")

    await page.get_by_role("button", name="Cycles and their phases").click()
    await page.locator(".t-hit-name", has_text="mape_k.cycle").first.wait_for()

    field = page.get_by_role("combobox", name="Query")
    asked = await field.input_value()
    assert asked == 'service="x0tta6bl4" AND span.kind="INTERNAL" AND name="mape_k.*"'
    again = await service.browser.page(page.url)
    await again.locator(".t-hit").first.wait_for()
    assert await again.get_by_role("combobox", name="Query").input_value() == asked
    assert "mape_k.cycle" in await shown(again)
    await service.browser.picture(page, "search-dark")


@pytest.mark.slow
async def test_suggestions_are_taken_with_the_keyboard(service: Service) -> None:
    now = time.time_ns()
    await service.send([span(0xA1, 1, 0, "teapot.boil", now, MILLISECOND, colour="blue")])
    page = await service.open("search")
    field = page.get_by_role("combobox", name="Query")

    await field.press_sequentially('name="teapot')
    await page.get_by_role("option", name="teapot.boil").wait_for()
    await field.press("ArrowDown")
    await field.press("Enter")
    await field.press_sequentially("AND colo")
    await page.get_by_role("option", name="colour").wait_for()
    await field.press("Tab")
    await field.press_sequentially("= ")
    await page.get_by_role("option", name="blue").wait_for()
    await field.press("ArrowDown")
    await field.press("Enter")
    written = await field.input_value()
    await field.press("Escape")
    await field.press("Enter")
    await until(page, "document.querySelectorAll('.t-hit').length === 1")

    assert written.split() == ['name="teapot.boil"', "AND", "colour", "=", '"blue"']
    assert await shown(page) == ["teapot.boil"]


@pytest.mark.slow
async def test_what_is_wrong_is_shown_under_its_column(service: Service) -> None:
    query = '{ name = "a" && duration >= blue }'
    page = await service.open(searching(query))

    pointer = page.locator(".t-wrong pre")
    await pointer.wait_for()
    await service.browser.picture(page, "search-error")

    text, caret = (await pointer.inner_text()).split("\n")
    assert text == query
    assert caret.index("^") == query.index("blue")
    assert await page.get_by_role("combobox", name="Query").get_attribute("aria-invalid") == "true"


async def test_brushing_narrows_time_and_duration_and_escape_takes_the_bounds_away(service: Service) -> None:
    # Eight spans on a diagonal: later ones last longer. The brush is drawn over the last ones.
    now = time.time_ns() - 100 * 10**9
    await service.send(
        span(0xB00 + i, 1, 0, f"brushed.{i}", now + i * 10**9, 4**i * MILLISECOND) for i in range(8)
    )
    page = await service.open(searching('name="brushed.*"', range="all"))
    await page.locator(".t-hit").nth(7).wait_for()
    await until(page, "document.querySelector('.t-plot canvas').width > 300")
    box = await page.locator(".t-plot").bounding_box()
    assert box is not None

    middle_x, middle_y = box["x"] + 58 + (box["width"] - 142) / 2, box["y"] + 88
    await page.mouse.move(box["x"] + box["width"] - 86, box["y"] + 4)
    await page.mouse.down()
    await page.mouse.move(middle_x + 40, middle_y - 10, steps=3)
    await page.mouse.move(middle_x, middle_y, steps=3)
    await service.browser.picture(page, "search-brush")
    await page.mouse.up()
    await until(page, "document.querySelectorAll('.t-hit').length === 4")

    assert sorted(await shown(page)) == [f"brushed.{i}" for i in (4, 5, 6, 7)]
    assert re.search(r"from=\d+&to=\d+&min=[\d.]+m?s&max=[\d.]+m?s", page.url)
    await page.keyboard.press("Escape")
    await page.locator(".t-hit").nth(7).wait_for()
    assert not re.search("min=|from=", page.url)


@pytest.mark.slow
async def test_a_search_that_follows_finds_what_was_stored_since(service: Service) -> None:
    await service.send([span(0xC1, 1, 0, "followed.first", time.time_ns(), MILLISECOND)])
    page = await service.open(searching('name="followed.*"', follow="1"))
    await page.locator(".t-hit-name", has_text="followed.first").wait_for()

    await service.send([span(0xC2, 1, 0, "followed.second", time.time_ns(), MILLISECOND)])
    await page.locator(".t-hit-name", has_text="followed.second").wait_for()

    assert await shown(page) == ["followed.second", "followed.first"]


@pytest.mark.slow
async def test_nothing_found_offers_to_look_further(service: Service) -> None:
    old = time.time_ns() - 2 * 3600 * 10**9
    await service.send([span(0xD1, 1, 0, "old.one", old, MILLISECOND)])
    page = await service.open(searching('name="old.one"', range="5m"))

    await page.get_by_role("button", name="Look in all that is kept").click()
    await page.locator(".t-hit-name", has_text="old.one").wait_for()

    assert "range=all" in page.url


async def test_a_cycle_tells_why_it_decided_so(service: Service) -> None:
    acted = (await service.found('{ name = "mape_k.cycle" && span.actions_executed > 0 }'))[-1]
    async with service.client.get(f"{service.address}/page/trace/{acted['trace_id']}") as answer:
        spans = {each["name"]: each for each in (await answer.json())["spans"]}
    events = [event for each in spans.values() for event in each["events"]]
    finding = next(event["attributes"] for event in events if event["name"] == "finding")
    chosen = next(event["attributes"] for event in events if event["name"] == "option.chosen")
    rejected = [event["attributes"] for event in events if event["name"] == "option.rejected"]
    root = spans["mape_k.cycle"]["attributes"]
    page = await service.open(f"trace/{acted['trace_id']}")

    story = page.locator(".t-story")
    await story.wait_for()
    await page.get_by_role("link", name=f"cycle {root['cycle'] + 1}").wait_for()
    await service.browser.picture(page, "trace-dark", full=True)

    assert f"Cycle {root['cycle']} of {root['node_id']}" in await page.locator("h1").inner_text()
    concluded, decided, done = [await story.locator(".t-step").nth(i).inner_text() for i in (1, 2, 3)]
    assert all(
        text in concluded for text in (finding["problem"], finding["message"], finding["evidence.rule"][0])
    )
    said = await story.locator(".t-bullet").first.get_attribute("aria-label") or ""
    assert re.match(rf"{re.escape(finding['evidence.metric'][0])} is .*, the threshold is ", said)
    assert all(chosen[key] in decided for key in ("action", "target", "reason"))
    assert all(option["rule"] in decided and option["reason"] in decided for option in rejected)
    assert chosen["action"] in done
    await page.keyboard.press("[")
    await page.locator("h1", has_text=f"Cycle {root['cycle'] - 1} of").wait_for()
    await page.get_by_role("link", name=f"cycle {root['cycle']} →").wait_for()
    await page.keyboard.press("]")
    await page.locator("h1", has_text=f"Cycle {root['cycle']} of").wait_for()


@pytest.mark.slow
async def test_the_waterfall_is_walked_with_the_keyboard(service: Service) -> None:
    now = time.time_ns()
    inside = span(0xE1, 3, 2, HOSTILE, now + MILLISECOND, MILLISECOND, needle=HOSTILE)
    inside.events.add(name="dropped", time_unix_nano=now + MILLISECOND)
    await service.send(
        [
            span(0xE1, 1, 0, "keys.root", now, 10 * MILLISECOND),
            span(0xE1, 2, 1, "keys.outer", now, 5 * MILLISECOND),
            inside,
            span(0xE1, 4, 1, "keys.last", now + 6 * MILLISECOND, MILLISECOND),
        ]
    )
    page = await service.open(f"trace/{0xE1:032x}")
    grid = page.get_by_role("treegrid")
    selected = page.locator(".t-row[aria-selected=true] .t-label")
    await grid.focus()

    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    assert await selected.inner_text() == "keys.outer"
    await page.keyboard.press("ArrowLeft")
    assert await page.locator(".t-row").count() == 3
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowRight")
    assert await selected.inner_text() == HOSTILE
    await page.keyboard.press("Enter")
    details = page.locator(".t-details")
    await until(page, "document.activeElement.className === 't-details'")
    assert await details.locator("h2").inner_text() == HOSTILE
    assert "dropped" in await details.inner_text()
    await page.keyboard.press("/")
    await page.keyboard.type("keys.last")
    await page.keyboard.press("Enter")
    assert await selected.inner_text() == "keys.last"
    assert await page.title() != "1"


@pytest.mark.slow
async def test_a_trace_that_is_not_stored_yet_is_looked_for_again(service: Service) -> None:
    page = await service.open(f"trace/{0xF1:032x}")
    await page.get_by_text("looking again").wait_for()

    await service.send([span(0xF1, 1, 0, "late.root", time.time_ns(), MILLISECOND)])
    await page.locator("h1", has_text="late.root").wait_for()

    assert await page.locator(".t-row").count() == 1


@pytest.mark.slow
async def test_a_root_that_is_stored_later_is_put_above_its_spans(service: Service) -> None:
    now = time.time_ns()
    await service.send([span(0xF3, 2, 1, "parted.child", now, MILLISECOND)])
    page = await service.open(f"trace/{0xF3:032x}")
    await page.locator(".t-row", has_text="no parent").click()

    await service.send([span(0xF3, 1, 0, "parted.root", now, 2 * MILLISECOND)])
    await page.locator("h1", has_text="parted.root").wait_for()

    assert await page.locator(".t-label").all_inner_texts() == ["parted.root", "parted.child"]
    assert await page.locator("[aria-selected=true] .t-label").inner_text() == "parted.child"


async def test_a_trace_is_saved_as_otlp(service: Service, tmp_path: Path) -> None:
    await service.send([span(0xF2, 1, 0, "saved.root", time.time_ns(), MILLISECOND)])
    page = await service.open(f"trace/{0xF2:032x}")

    async with page.expect_download() as coming:
        await page.get_by_role("button", name="Download OTLP JSON").click()
    download = await coming.value
    await download.save_as(tmp_path / "trace.json")

    saved = json.loads((tmp_path / "trace.json").read_text())
    (one,) = saved["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert download.suggested_filename == f"trace-{0xF2:032x}.json"
    assert (one["traceId"], one["name"]) == (f"{0xF2:032x}", "saved.root")


@pytest.mark.slow
async def test_twenty_thousand_spans_scroll_and_only_what_is_seen_is_drawn(service: Service) -> None:
    now = time.time_ns() - 30 * 10**9
    many = 20_000
    spans = [span(0x20000, 1, 0, "many.root", now, 20 * 10**9)]
    spans += [
        span(0x20000, i, max(1, i // 7), f"many.{i % 13}", now + i * MILLISECOND // 2, 20 * MILLISECOND)
        for i in range(2, many)
    ]
    spans.append(span(0x20000, many, 1, "many.last", now + 19 * 10**9, 10**9))
    for i in range(0, many, 4000):
        await service.send(spans[i : i + 4000])
    page = await service.open(f"trace/{0x20000:032x}")
    await page.get_by_text("20,000", exact=True).wait_for()
    grid = page.get_by_role("treegrid")
    drawn = page.locator(".t-row")

    assert await grid.get_attribute("aria-rowcount") == "20000"
    assert await drawn.count() < 80
    await grid.focus()
    await page.keyboard.press("End")
    await page.locator(".t-row[aria-selected=true]", has_text="many.last").wait_for()
    assert await drawn.count() < 80
    await grid.evaluate("grid => grid.scrollTo(0, grid.scrollHeight / 2)")
    await until(
        page, "[...document.querySelectorAll('.t-row')].some(row => Math.abs(row.ariaRowIndex - 10000) < 60)"
    )
    assert await drawn.count() < 80
    await service.browser.picture(page, "trace-many")


@pytest.mark.slow
@pytest.mark.parametrize("route", ["search", "trace"])
async def test_a_phone_shows_it_without_scrolling_sideways(service: Service, route: str) -> None:
    found = await service.found('{ name = "mape_k.cycle" && span.actions_executed > 0 }')
    path = searching('{ name = "mape_k.cycle" }') if route == "search" else f"trace/{found[0]['trace_id']}"
    page = await service.open(path, size=PHONE, theme="light")

    await page.locator(".t-hit, .t-row").first.wait_for()
    await service.browser.picture(page, f"{route}-phone-light", full=True)

    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
