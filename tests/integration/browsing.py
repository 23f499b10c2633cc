"""The page of a real service in a real browser, for tests.

Screenshots are left in the folder that `MAPEK_SCREENSHOTS` names, or in pytest's own.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .running import address_of, environment, start

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

__all__ = ["CHAOS", "Look", "browser", "looking", "needs_browser", "running", "seen", "service"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHAOS = ("--nodes", "5", "--chaos", "--seed", "7", "--duration", "60")
LEGIBILITY = Path(__file__).with_name("legibility.js").read_text()
_PATIENT = 20_000
"""Milliseconds: this machine may be busy. What has to be quick is measured by itself."""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def shots(folder: Path) -> Path:
    """Where screenshots go."""
    chosen = Path(os.environ.get("MAPEK_SCREENSHOTS") or folder)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


@dataclass
class Look:
    """A page that is open, and what its browser complained of."""

    page: Page
    address: str
    shots: Path
    complaints: list[str] = field(default_factory=list)

    async def open(self, view: str = "") -> None:
        await self.page.goto(f"{self.address}/#/{view}")

    async def legibility(self) -> tuple[int, list[str], list[str], int]:
        """Texts that were looked at, those too pale, controls without a name, pixels too wide."""
        count, poor, unnamed, wider = await self.page.evaluate(LEGIBILITY)
        return count, poor, unnamed, wider

    async def shoot(self, name: str) -> None:
        await self.page.screenshot(path=self.shots / f"{name}.png")


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with api.async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield chromium
        finally:
            await chromium.close()


@asynccontextmanager
async def looking(chromium: Browser, address: str, folder: Path, **options: Any) -> AsyncIterator[Look]:
    given = {"viewport": {"width": 1366, "height": 900}, "color_scheme": "dark", **options}
    context = await chromium.new_context(**given)
    context.set_default_timeout(_PATIENT)
    look = Look(await context.new_page(), address, shots(folder))
    look.page.on("pageerror", lambda error: look.complaints.append(str(error)))
    look.page.on("console", lambda said: look.complaints.append(said.text) if said.type == "error" else None)
    try:
        yield look
    finally:
        await context.close()


@asynccontextmanager
async def service(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[str]:
    """`mapek run`, and its address."""
    process = await start(folder, *arguments, "--listen", "127.0.0.1:0", **environment)
    assert process.stdout is not None
    assert process.stderr is not None
    drains: list[asyncio.Task[bytes]] = []
    try:
        address = await asyncio.wait_for(address_of(process, []), 30)
        # Whoever does not read what it says stops it in the end.
        drains = [asyncio.create_task(stream.read()) for stream in (process.stdout, process.stderr)]
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await asyncio.gather(*drains)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[str]:
    """The same for several tests, which have loops of their own."""
    command = (sys.executable, "-m", "mapek_runtime.service.cli", "run", "--json", "--listen", "127.0.0.1:0")
    said = folder / "said"
    with (
        said.open("wb") as output,
        subprocess.Popen(
            (*command, *arguments), stdout=output, stderr=output, cwd=folder, env=environment(folder)
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while (listening := re.search(r'"address": "(http[^"]+)"', said.read_text())) is None:
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.05)
            yield listening[1]
        finally:
            process.terminate()


@asynccontextmanager
async def seen(address: str, folder: Path, **options: Any) -> AsyncIterator[Look]:
    """The page of the service at `address`, in a browser of its own."""
    async with (
        browser() as chromium,
        looking(chromium, address, folder, **options) as look,
    ):
        yield look
