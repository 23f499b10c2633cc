"""`Runtime`, whatever happens to it: each cycle is one whole trace, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from mapek_runtime import Action, Cycle, Finding, Insight, Observation, Outcome, Runtime
from mapek_runtime.testing import AutojumpClock, Recorder

SIX = ["cycle", "monitor", "analyze", "plan", "execute", "knowledge"]
WAYS = ["fine", "fine", "fine", "slow", "hang", "raise", "swallow", "wrong"]

ways = st.lists(st.sampled_from(WAYS), min_size=1, max_size=7)
# Round numbers, so that things happen at the same moment, and turns of the loop in between.
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 0.7, 1.0, 1.5, 3.0]),
        st.integers(0, 5),
        st.sampled_from(["trigger", "trigger", "pause", "resume", "nothing"]),
    ),
    max_size=12,
)


class Unruly:
    """A plugin whose n-th call goes the n-th of `ways`, over and over."""

    def __init__(self, ways: Sequence[str]) -> None:
        self.ways = ways
        self.calls = 0

    async def _go(self, values: Any) -> Any:
        way = self.ways[self.calls % len(self.ways)]
        self.calls += 1
        if way == "raise":
            raise LookupError("unruly")
        if way == "wrong":
            return 7
        try:
            await asyncio.sleep({"slow": 0.7, "hang": 1000.0, "swallow": 1000.0}.get(way, 0.0))
        except asyncio.CancelledError:
            if way != "swallow":
                raise
        return values

    async def monitor(self, cycle: Cycle) -> Sequence[Observation]:
        return await self._go([Observation(name="x", value=1.0)])  # type: ignore[no-any-return]

    async def analyze(self, cycle: Cycle) -> Sequence[Finding]:
        return await self._go([Finding(target="t", problem="p")])  # type: ignore[no-any-return]

    async def plan(self, cycle: Cycle) -> Sequence[Action]:
        return await self._go(  # type: ignore[no-any-return]
            [
                Action(name="fix", target="t", finding=f, inverse="unfix", verify_within=2.0)
                for f in cycle.findings
            ]
        )

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        return await self._go(Outcome(action=action, success=True))  # type: ignore[no-any-return]

    async def verify(self, cycle: Cycle, action: Action) -> bool | None:
        return await self._go(None)  # type: ignore[no-any-return]

    async def learn(self, cycle: Cycle) -> Sequence[Insight]:
        return await self._go([Insight(name="noted")])  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None)
@given(
    ways=ways,
    steps=steps,
    overlap=st.sampled_from(["skip", "queue", "cancel"]),
    end=st.sampled_from(["stop", "cancel", "leave"]),
)
async def test_every_cycle_is_a_whole_trace_and_nothing_is_left(
    ways: list[str],
    steps: list[tuple[float, int, str]],
    overlap: Literal["skip", "queue", "cancel"],
    end: str,
) -> None:
    before = asyncio.all_tasks()
    limits: Any = {f"{phase}_limit": 1.5 for phase in SIX[1:]}
    with AutojumpClock(), Recorder() as recorder:
        async with Runtime(Unruly(ways), interval=1.0, overlap=overlap, **limits) as runtime:
            for number, (seconds, turns, what) in enumerate(steps):
                await asyncio.sleep(seconds)
                for _ in range(turns):
                    await asyncio.sleep(0)
                if what == "trigger":
                    runtime.trigger(f"request {number}")
                elif what != "nothing":
                    getattr(runtime, what)()
            if end != "leave":
                await getattr(runtime, end)()
        assert asyncio.all_tasks() == before

        cycles = recorder.named("mape_k.cycle")
        assert recorder.open == ()
        assert len(recorder.spans) == 6 * len(cycles)
        assert [(span.attributes or {})["cycle"] for span in cycles] == list(range(1, len(cycles) + 1))
        for number, span in enumerate(cycles):
            names = ["cycle", *(child.name.removeprefix("mape_k.") for child in recorder.children(span))]
            assert names == SIX
            assert span.parent is None
            if number:
                assert cycles[number - 1].get_span_context() in [link.context for link in span.links]
        counts = runtime.statistics()
        assert counts.cycles == len(cycles)
