"""A real browser for the tests of the page: Debian's Chromium, driven by Playwright.

Where one of the two is missing the test is skipped, and says so. What goes wrong inside the page (an
exception that nobody caught, an error on its console, a request that left the service) fails the test
that had it open.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page, Request, Route

__all__ = ["PHONE", "SCREEN", "Opened", "browsing", "until"]

SCREEN = (1280, 800)
PHONE = (360, 740)
_PATIENCE = 15_000
"""Milliseconds that Playwright waits for what is to appear, on a machine that is busy."""
_STATUS = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")
"""Chromium says this on the console of every 4xx answer, also of one that the page expects."""


class Opened:
    """A browser, the pages that a test opened in it, and what went wrong in them."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser = browser
        self._folder = Path(os.environ.get("MAPEK_SCREENSHOTS") or folder)
        self._hosts: set[str] = set()
        self.problems: list[str] = []

    async def page(
        self,
        address: str,
        *,
        theme: str = "dark",
        size: tuple[int, int] = SCREEN,
        files: Path | None = None,
        **options: Any,
    ) -> Page:
        """A page at `address`, in a context of its own; `theme` is dark or light.

        With `files` nobody is asked: that folder is what the address serves.

        `options` are those of Playwright's `new_context`, such as `reduced_motion` or `has_touch`.
        """
        self._hosts.add(urlsplit(address).netloc)
        context = await self._browser.new_context(
            color_scheme="light" if theme == "light" else "dark",
            viewport={"width": size[0], "height": size[1]},
            **options,
        )
        context.set_default_timeout(_PATIENCE)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("console", self._said)
        page.on("request", self._asked)
        if files is not None:
            await page.route("**/*", lambda route: _serve(route, files))
        await page.goto(address)
        return page

    async def close_pages(self) -> None:
        """Close every page; the browser stays."""
        for context in self._browser.contexts:
            await context.close()

    async def picture(self, page: Page, name: str, *, full: bool = False) -> Path:
        """A screenshot, kept as `name`.png: in the test's folder, or where MAPEK_SCREENSHOTS says."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.png"
        await page.screenshot(path=path, full_page=full)
        return path

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not _STATUS.match(message.text):
            self.problems.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme in ("http", "https") and url.netloc not in self._hosts:
            self.problems.append(f"left the service: {request.url}")


async def until(page: Page, expression: str) -> None:
    """Wait until an expression of JavaScript is true in the page.

    Playwright's own `wait_for_function` looks from inside the page, whose security policy forbids that.
    """
    async with asyncio.timeout(_PATIENCE / 1000):
        # There is nothing in the page to wait for but what it looks like.
        while not await page.evaluate(expression):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _serve(route: Route, files: Path) -> None:
    path = files / urlsplit(route.request.url).path.lstrip("/")
    if path.is_file():
        await route.fulfill(path=path)
    else:
        await route.fulfill(status=404)


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Opened]:
    """Chromium without a window inside the block; screenshots go to `folder`.

    On leaving the block whatever went wrong in its pages is an assertion error.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no program chromium: apt install chromium")
    playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
    # Chromium's sandbox refuses to run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=chromium, args=[*arguments, "--disable-dev-shm-usage"]
        )
        try:
            opened = Opened(browser, folder)
            yield opened
        finally:
            await browser.close()
    assert not opened.problems, "\n".join(opened.problems)
