"""The page in a real browser, over the real service: loop, mesh, phases and health."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import mapek_runtime.web

from .browsing import CHAOS, browser, looking, needs_browser, running, seen, service

STATIC = Path(mapek_runtime.web.__file__).parent / "static"
VIEWS = ("", "mesh", "search", "phases", "health")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a mesh in which nothing breaks by itself."""
    with running(tmp_path_factory.mktemp("mesh"), "--nodes", "5", "--duration", "300") as address:
        yield address


def number(text: str | None) -> int:
    return int(re.sub(r"\D", "", text or "") or 0)


@needs_browser
async def test_within_ten_seconds_cycles_move_and_a_fault_is_seen_healed_and_its_trace_opened(
    tmp_path: Path,
) -> None:
    async with service(tmp_path, *CHAOS) as address, seen(address, tmp_path) as look:
        page = look.page
        opened = time.monotonic()
        await look.open()
        cycles = page.locator(".figure dd").first
        await page.locator(".cell").first.wait_for()
        before = number(await cycles.text_content())
        await page.wait_for_function(
            "before => Number(document.querySelector('.figure dd').textContent.replace(/\\D/g, '')) > before",
            arg=before,
        )
        for name in ("fault.injected", "fault.healed"):
            await page.locator(f"[data-event='{name}']").first.wait_for()
        repaired = page.locator("a[data-event='fault.healed'][href^='#/trace/']").first
        await repaired.wait_for()
        await look.shoot("loop")
        await repaired.click()
        await page.wait_for_url(re.compile(r"#/trace/[0-9a-f]{32}$"))
        await page.locator("main").get_by_text("mape_k.execute").first.wait_for()
        seconds = time.monotonic() - opened

        await look.shoot("trace")
        # Where the machine has time for it.
        assert seconds < (10 if os.getloadavg()[0] < (os.cpu_count() or 1) else 30)
        assert look.complaints == []


@needs_browser
@pytest.mark.slow
async def test_a_cycle_is_opened_by_pointing_at_it_although_the_strips_move(
    mesh: str, tmp_path: Path
) -> None:
    async with seen(mesh, tmp_path) as look:
        page = look.page
        await look.open()
        await page.locator(".strip >> nth=1 >> .cell >> nth=9").wait_for()
        box = await page.locator(".strip >> nth=1").bounding_box()
        assert box is not None
        await page.mouse.move(box["x"] + box["width"] - 40, box["y"] + 20)
        await page.locator(".cell.chosen").wait_for()
        wanted = await page.locator(".cell.chosen").get_attribute("data-trace")
        first = await page.locator(".strip >> nth=0 >> .cell >> nth=-1").get_attribute("data-trace")
        # Ten cycles later the same one is still under the pointer.
        await asyncio.sleep(1)
        assert await page.locator(".cell.chosen").get_attribute("data-trace") == wanted
        assert await page.locator(".strip >> nth=0 >> .cell >> nth=-1").get_attribute("data-trace") == first

        await page.mouse.click(box["x"] + box["width"] - 40, box["y"] + 20)

        await page.wait_for_url(re.compile(f"#/trace/{wanted}$"))


@needs_browser
@pytest.mark.slow
async def test_the_keyboard_alone_pauses_walks_among_cycles_opens_one_and_shows_the_keys(
    mesh: str,
    tmp_path: Path,
) -> None:
    async with seen(mesh, tmp_path) as look:
        page = look.page
        await look.open()
        await page.locator(".strip >> nth=2 >> .cell >> nth=9").wait_for()
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"

        await page.keyboard.press("Space")
        await page.locator(".tools button[aria-pressed='true']").wait_for()
        await page.locator(".behind").wait_for()
        cycles = await page.locator(".figure dd").first.text_content()
        await asyncio.sleep(0.6)
        assert await page.locator(".figure dd").first.text_content() == cycles
        await page.keyboard.press("Space")
        await page.locator(".tools button[aria-pressed='false']").first.wait_for()

        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await page.locator(".row >> nth=1 >> .cell.chosen:focus").wait_for()
        last = await page.locator(".cell.chosen").get_attribute("data-trace")
        await page.keyboard.press("ArrowLeft")
        await page.wait_for_function(
            "last => document.querySelector('.cell.chosen:focus')?.dataset.trace !== last", arg=last
        )
        chosen = await page.locator(".cell.chosen").get_attribute("data-trace")
        await page.keyboard.press("?")
        await page.get_by_role("dialog", name="Keys").wait_for()
        await page.keyboard.press("Escape")
        await page.get_by_role("dialog", name="Keys").wait_for(state="detached")
        await page.locator(f".cell[data-trace='{chosen}']:focus").wait_for()
        await page.keyboard.press("Enter")

        await page.wait_for_url(re.compile(f"#/trace/{chosen}$"))


@needs_browser
async def test_a_fault_is_made_and_cleared_and_the_loop_halted_and_resumed_from_the_page(
    mesh: str,
    tmp_path: Path,
) -> None:
    async with seen(mesh, tmp_path, color_scheme="light") as look:
        page = look.page
        await look.open("mesh")
        await page.get_by_label("Fault", exact=True).select_option("link.down")
        await page.get_by_label("On", exact=True).select_option("node-1~node-2")
        await page.get_by_label("For", exact=True).fill("40")
        await page.get_by_role("button", name="Inject").click()
        clear = page.get_by_role("button", name=re.compile(r"^Clear fault .*node-1~node-2"))
        await clear.wait_for()
        await page.locator(".link.faulty").wait_for()
        await page.locator(".newest .fault-healed").wait_for()
        await page.locator("tr", has_text=re.compile("node-1 . node-2")).get_by_text("drained").wait_for()
        await look.shoot("mesh-fault")
        await clear.click()
        await page.get_by_text("No fault is in force").wait_for()

        await page.get_by_role("button", name="Halt…").click()
        await page.get_by_label(re.compile("^Why")).fill("a look at <b>it</b>")
        await page.get_by_role("dialog").get_by_role("button", name="Halt").click()
        await page.locator(".banner.bad", has_text="a look at <b>it</b>").wait_for()
        await look.open("health")
        await page.locator(".banner.bad", has_text="The loop is halted").wait_for()
        await look.open("mesh")
        await page.get_by_role("button", name="Resume").click()
        await page.locator(".banner.bad").wait_for(state="detached")

        assert look.complaints == []


@pytest.mark.slow
@needs_browser
async def test_every_view_is_legible_in_dark_and_light_fits_a_phone_and_names_its_controls(
    mesh: str,
    tmp_path: Path,
) -> None:
    looks: Mapping[str, Mapping[str, Any]] = {
        "dark": {"color_scheme": "dark"},
        "light": {"color_scheme": "light"},
        "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}, "has_touch": True},
    }
    found: list[str] = []
    async with browser() as chromium:
        for name, options in looks.items():
            async with looking(chromium, mesh, tmp_path, **options) as look:
                for view in VIEWS:
                    await look.open(view)
                    await look.page.locator("main > *:not(.waiting)").first.wait_for()
                    if view == "phases":
                        # It asks the store first, which has its first minute only now.
                        await look.page.locator(".panel").first.wait_for()
                    await look.shoot(f"{view or 'loop'}-{name}")
                    count, poor, unnamed, wider = await look.legibility()
                    assert count > 10, (name, view)
                    found += [f"{name} {view}: {each}" for each in [*poor, *unnamed]]
                    if wider > 0:
                        found.append(f"{name} {view}: {wider} pixels wider than the window")
                found += [f"{name}: {each}" for each in look.complaints]

    assert found == []


@pytest.mark.slow
@needs_browser
async def test_the_page_says_that_the_service_is_gone_and_when_it_tries_again(tmp_path: Path) -> None:
    async with browser() as chromium:
        async with service(tmp_path, "--nodes", "3", "--duration", "60") as address:
            context = looking(chromium, address, tmp_path)
            look = await context.__aenter__()
            await look.open()
            await look.page.locator(".connection.live").wait_for()
        try:
            await look.page.locator(".connection", has_text=re.compile(r"Reconnecting in \d+ s")).wait_for()
            await look.page.locator(".banner", has_text="Connection lost").wait_for()
            await look.shoot("gone")
            assert await look.page.locator(".cell").count() > 0
        finally:
            await context.__aexit__(None, None, None)


@pytest.mark.slow
@needs_browser
async def test_a_service_that_wants_a_token_is_seen_once_the_token_is_given(tmp_path: Path) -> None:
    token = "correct-horse-battery-staple"
    async with (
        service(tmp_path, "--nodes", "3", "--duration", "60", MAPEK_WEB_TOKEN=token) as address,
        browser() as chromium,
        looking(chromium, address, tmp_path) as look,
    ):
        await look.open()
        await look.page.get_by_label("Token").fill("something else")
        await look.page.get_by_role("button", name="Open").click()
        await look.page.get_by_text("The service said").wait_for()
        await look.shoot("token")
        assert await look.page.locator(".cell").count() == 0
        await look.page.get_by_label("Token").fill(token)
        await look.page.get_by_role("button", name="Open").click()
        await look.page.locator(".cell").first.wait_for()

        assert token not in look.page.url


@needs_browser
@pytest.mark.slow
async def test_an_address_that_was_mistyped_leads_on_and_breaks_nothing(mesh: str, tmp_path: Path) -> None:
    async with seen(mesh, tmp_path) as look:
        for view in ("nonsense", "x%E0%A4%A", "phases?range=-1&op=nonsense"):
            await look.open(view)
            await look.page.locator("main section, main .view").first.wait_for()
        await look.open("nonsense")
        await look.page.get_by_role("link", name="To the loop").click()
        await look.page.locator(".cell").first.wait_for()

        assert await look.page.locator("#app > .waiting").count() == 0
        assert look.complaints == []


@needs_browser
@pytest.mark.slow
async def test_without_javascript_the_page_says_what_else_there_is(mesh: str, tmp_path: Path) -> None:
    async with seen(mesh, tmp_path, java_script_enabled=False) as look:
        await look.open()

        assert await look.page.get_by_role("heading", name="This page needs JavaScript").is_visible()
        assert await look.page.locator("noscript code").first.is_visible()


def test_the_vendored_libraries_are_what_their_table_says() -> None:
    table = (STATIC / "lib" / "README.md").read_text()

    rows = dict(re.findall(r"^\| `([\w/.]+)` .*`([0-9a-f]{64})` \|$", table, re.MULTILINE))
    files = {
        str(path.relative_to(STATIC / "lib"))
        for path in (STATIC / "lib").rglob("*")
        if path.suffix in {".js", ".css"}
    }

    assert set(rows) == files
    for name, digest in rows.items():
        assert hashlib.sha256((STATIC / "lib" / name).read_bytes()).hexdigest() == digest, name
        assert (STATIC / "lib" / name).with_name("LICENSE").is_file()


def test_the_page_asks_nothing_of_any_other_host() -> None:
    own = [
        path
        for path in STATIC.rglob("*")
        if path.suffix in {".js", ".css", ".html"} and "lib" not in path.parts
    ]

    assert len(own) > 10
    for path in own:
        assert not re.search(
            r"""(?:src|href|url\(|import|fetch\()\s*[=("'`]*\s*(?:https?:)?//\w""", path.read_text()
        ), path
