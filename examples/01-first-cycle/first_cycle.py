"""A first cycle: a room that is too hot is cooled, and the next cycle sees that it worked."""

import asyncio

from mapek_runtime import Action, Finding, Observation, Outcome, Runtime


class Room:
    handles, temperature = ("cool",), 31.0

    async def monitor(self, cycle):
        return [Observation(name="temperature", value=self.temperature, unit="Cel", target="room")]

    async def analyze(self, cycle):
        return [Finding(target=t, problem="hot") for t, v in cycle.readings("temperature").items() if v > 25]

    async def plan(self, cycle):
        return [Action(name="cool", target=finding.target, finding=finding) for finding in cycle.findings]

    async def execute(self, cycle, action):
        self.temperature -= 10
        return Outcome(action=action, success=True, changed=f"{self.temperature} degrees")


async def main():
    async with Runtime(Room(), interval=0.1) as runtime:
        cycle = await runtime.wait(cycles=2)
    print("; ".join(insight.message for insight in cycle.insights))


asyncio.run(main())
