"""The page of a real run: a fault that it makes is seen, healed and explained."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mapek_runtime.service.controls import FIRST_NUMBER
from tests.integration.running import address_of, start

SENDS = {"X-Mapek": "1"}


class Followed:
    """The live events of a run, as they come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.seen: list[tuple[str, Any]] = []

    async def until(self, kind: str, /, **fields: Any) -> Any:
        """The next event of that kind with those values."""
        event = ""
        async with asyncio.timeout(40):
            async for raw in self._response.content:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: "):
                    data = json.loads(line[6:])
                    self.seen.append((event, data))
                    if event == kind and all(data.get(key) == value for key, value in fields.items()):
                        return data
        raise EOFError(kind)


@pytest.mark.slow
async def test_a_fault_that_the_page_makes_is_seen_healed_and_explained(tmp_path: Path) -> None:
    process = await start(
        tmp_path, "--nodes", "5", "--listen", "127.0.0.1:0", "--duration", "120", "--seed", "3"
    )
    lines: list[dict[str, Any]] = []
    try:
        url = await address_of(process, lines)
        async with aiohttp.ClientSession(url) as session, session.get("/page/live") as live:
            followed = Followed(live)
            first = await followed.until("cycle")
            assert [phase["phase"] for phase in first["phases"]] == [
                "monitor", "analyze", "plan", "execute", "knowledge",
            ]  # fmt: skip
            while not (await followed.until("health"))["spans"]["exported"]:
                pass
            async with session.get("/page/state") as response:
                state = await response.json()
            assert [node["id"] for node in state["nodes"]] == [f"node-{n}" for n in range(1, 6)]
            assert len(state["links"]) == 7
            assert state["controls"]["faults"]
            assert state["controls"]["targets"]["node.crash"] == [f"node-{n}" for n in range(1, 6)]
            link = state["controls"]["targets"]["link.down"][0]

            asked = json.dumps({"kind": "link.blackhole", "target": link, "seconds": 20}).encode()
            async with session.post("/page/inject", data=asked, headers=SENDS) as response:
                assert (response.status, await response.json()) == (200, {"number": FIRST_NUMBER})
            told = await followed.until("event", name="fault.injected")
            assert (told["fields"]["by"], told["fields"]["number"]) == ("page", FIRST_NUMBER)
            async with session.post("/page/inject", data=asked, headers=SENDS) as response:
                assert response.status == 409
            await followed.until("event", name="link.drained")
            healed = await followed.until("event", name="fault.healed")
            assert healed["fields"]["number"] == FIRST_NUMBER

            acted = next(
                data
                for event, data in followed.seen
                if event == "cycle" and data["actions"] and data["success"]
            )
            assert f"→ drain {link}: done" in acted["line"]
            async with session.get(f"/page/trace/{acted['trace_id']}") as response:
                decided = await response.json()
            names = {span["name"] for span in decided["spans"]}
            assert {"mape_k.cycle", "mape_k.monitor", "mape_k.knowledge"} <= names
            plan = next(span for span in decided["spans"] if span["name"] == "mape_k.plan")
            assert "option.chosen" in [event["name"] for event in plan["events"]]

            mesh = await followed.until("mesh")
            assert [fault["number"] for fault in mesh["faults"]] == [FIRST_NUMBER]
            asked = json.dumps({"number": FIRST_NUMBER}).encode()
            async with session.post("/page/clear", data=asked, headers=SENDS) as response:
                assert response.status == 200, await response.text()
            await followed.until("event", name="fault.cleared")
            async with session.post("/page/halt", data=b'{"reason":"a test"}', headers=SENDS) as response:
                assert response.status == 200
            while not (await followed.until("mesh"))["halted"]:
                pass
            async with session.post("/page/resume", data=b"{}", headers=SENDS) as response:
                assert response.status == 200
            report = (await followed.until("health"))["report"]
            assert (report["injected"], report["healed"]) == (1, 1)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

    assert process.returncode == 0, err.decode()
    summary = json.loads(out.decode().splitlines()[-1])
    assert (summary["faults_injected"], summary["faults_healed"]) == (1, 1)
    assert b"Traceback" not in err


@pytest.mark.slow
async def test_faults_of_chaos_are_shown_as_chaos_and_left_to_it(tmp_path: Path) -> None:
    process = await start(tmp_path, "--chaos", "--listen", "127.0.0.1:0", "--duration", "30", "--seed", "1")
    try:
        url = await address_of(process, [])
        async with aiohttp.ClientSession(url) as session, session.get("/page/live") as live:
            followed = Followed(live)
            number = (await followed.until("event", name="fault.injected"))["fields"]["number"]
            async with session.get("/page/state") as response:
                faults = (await response.json())["faults"]
            async with session.post(
                "/page/clear", data=json.dumps({"number": number}).encode(), headers=SENDS
            ) as response:
                refused = response.status, (await response.json())["error"]
            healed = await followed.until("event", name="fault.healed")
        process.send_signal(signal.SIGINT)
        await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

    assert [(fault["number"], fault["by"]) for fault in faults] == [(number, "chaos")]
    assert refused[0] == 409
    assert "which clears it itself" in refused[1]
    assert "healed after" in healed["line"]
