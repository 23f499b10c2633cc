"""What distinguishes brushed spans from the rest, in a real browser over the real service and its store."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.unit.store.filling import request, span

from .browser import PHONE, Opened, browsing, until
from .running import address_of, start

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from playwright.async_api import Page

LIMIT = 60.0
MS = 1_000_000
SECOND = 1000 * MS
PROBES = 300


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Opened]]:
    """A run into whose store five nodes have sent their probes, of which node-3 is slow; and a browser."""
    folder = tmp_path_factory.mktemp("page")
    process = await start(folder, "--nodes", "2", "--listen", "127.0.0.1:0", "--duration", "600")
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
                async with client.post(
                    f"{address}/v1/traces",
                    data=probes(time.time_ns() - 400 * SECOND),
                    headers={"Content-Type": "application/x-protobuf"},
                ) as answer:
                    assert answer.status == 200, await answer.text()
                yield address, opened
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(LIMIT):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


Open = Callable[..., Any]


@pytest.fixture
async def open_search(running: tuple[str, Opened]) -> AsyncIterator[Open]:
    """Opens the search for something; its page is closed after the test."""
    address, opened = running

    async def search(query: str = 'name="probe"', more: str = "&range=all", **options: Any) -> Page:
        page = await opened.page(f"{address}/#/search?q={quote(query)}{more}", **options)
        await page.locator(".t-hit").first.wait_for()
        await until(page, "document.querySelector('.t-plot canvas').width > 200")
        return page

    yield search
    await opened.close_pages()


@pytest.fixture
def picture(running: tuple[str, Opened]) -> Callable[..., Any]:
    return running[1].picture


def probes(since: int) -> bytes:
    spans = []
    for number in range(PROBES):
        node = number * 7 % 5 + 1
        length = (200 if node == 3 else 5) * MS + number % 17 * MS // 10
        attributes = {
            "node_id": f"node-{node}",
            "peer": f"node-{number * 11 % 7 + 1}",
            "request": f"{number:08x}",
            "rtt_ms": length / MS / 2 + number % 3,
            "success": number % 9 != 0,
        }
        one = span(
            0xD1F0000 + number, 1, name="probe", start=since + number * SECOND, duration=length,
            attributes=attributes,
        )  # fmt: skip
        spans.append(one)
    return request(*spans)


async def brush_the_slow_ones(page: Page) -> None:
    """Drag over the upper half of the distribution: only the duration is meant."""
    box = await page.locator(".t-plot").bounding_box()
    assert box is not None
    x = box["x"] + box["width"] - 40
    await page.mouse.move(x, box["y"] + 2)
    await page.mouse.down()
    await page.mouse.move(x, box["y"] + 40, steps=3)
    await page.mouse.move(x, box["y"] + 80, steps=3)
    await page.mouse.up()


async def test_the_node_that_is_slow_is_named_first_and_a_click_narrows_the_query(
    open_search: Open, picture: Callable[..., Any]
) -> None:
    page = await open_search()
    panel = page.get_by_role("region", name="What is different here")
    assert await panel.count() == 0

    await brush_the_slow_ones(page)
    await panel.get_by_text("60 selected spans").wait_for()
    await picture(page, "difference-dark", full=True)

    first = panel.locator(".t-diff-field").first
    assert await first.locator("h3").inner_text() == "span.node_id"
    value = first.get_by_role("button").first
    assert await value.get_attribute("aria-label") == (
        "span.node_id node-3: 100 % of the selected, 0 % of the others"
    )
    assert "request" not in await panel.inner_text()
    await value.focus()
    await page.keyboard.press("Enter")
    await panel.get_by_text("Too few spans to compare: 60 selected, 0 others").wait_for()
    asked = await page.get_by_role("combobox", name="Query").input_value()
    assert asked == '{ name = "probe" && span.node_id = "node-3" }'
    assert "min=" in page.url
    await page.keyboard.press("Escape")
    await panel.wait_for(state="detached")


async def test_nothing_different_is_said_in_words(open_search: Open, picture: Callable[..., Any]) -> None:
    # Of one node, early probes against late ones.
    first = time.time_ns() - 330 * SECOND
    page = await open_search(
        '{ name = "probe" && span.node_id = "node-1" }', f"&range=all&from={first}&to={first + 120 * SECOND}"
    )

    said = page.get_by_text("Nothing is different: no attribute tells the selected spans from the others")
    await said.wait_for()
    await picture(page, "difference-none")

    assert await page.get_by_role("combobox", name="Query").input_value()


async def test_the_time_around_a_brush_is_kept_in_the_address(open_search: Open) -> None:
    first = time.time_ns() - 300 * SECOND
    page = await open_search('name="probe"', f"&range=all&from={first}&to={first + 100 * SECOND}")
    panel = page.get_by_role("region", name="What is different here")
    await panel.wait_for()

    await page.get_by_role("button", name="Clear the bounds").click()
    await panel.wait_for(state="detached")

    assert page.url.endswith("range=all")


async def test_a_service_that_cannot_compare_is_told_and_asked_again(open_search: Open) -> None:
    page = await open_search()
    failing = True

    async def answer(route: Any) -> None:
        if failing:
            await route.fulfill(status=429, json={"error": "too many questions at once"})
        else:
            await route.continue_()

    await page.route("**/page/difference?*", answer)
    await page.evaluate("location.hash += '&min=100ms'")
    panel = page.get_by_role("region", name="What is different here")
    await panel.get_by_text("too many questions at once").wait_for()

    failing = False
    await panel.get_by_role("button", name="Try again").click()
    await panel.locator(".t-diff-field").first.wait_for()

    assert await panel.get_by_role("alert").count() == 0


async def test_a_phone_shows_it_without_scrolling_sideways(
    open_search: Open, picture: Callable[..., Any]
) -> None:
    page = await open_search('name="probe"', "&range=all&min=100ms", size=PHONE, theme="light")
    await page.locator(".t-diff-field").first.wait_for()

    await picture(page, "difference-phone-light", full=True)

    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
