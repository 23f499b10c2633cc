"""The loop inside an existing aiohttp application.

The runtime lives as long as the application does (`cleanup_ctx`). A request that meets trouble asks
for a cycle at once: the cycle is a trace of its own, linked to the request's span.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from aiohttp import web

from mapek_runtime import Action, Cycle, Finding, Observation, Outcome, Runtime

RUNTIME = web.AppKey("runtime", Runtime)
STOCK = web.AppKey("stock", dict[str, int])


class Stock:
    """Watches the shelf and fills it."""

    handles = ("refill",)

    def __init__(self, shelf: dict[str, int]) -> None:
        self.shelf = shelf

    async def monitor(self, cycle: Cycle) -> Iterable[Observation]:
        """How many of each there are."""
        return [Observation(name="stock", value=count, target=item) for item, count in self.shelf.items()]

    async def analyze(self, cycle: Cycle) -> Iterable[Finding]:
        """An empty place is a finding."""
        return [Finding(target=i, problem="sold out") for i, n in cycle.readings("stock").items() if n < 1]

    async def plan(self, cycle: Cycle) -> Iterable[Action]:
        """Refill it."""
        return [Action(name="refill", target=finding.target, finding=finding) for finding in cycle.findings]

    async def execute(self, cycle: Cycle, action: Action) -> Outcome:
        """Put five on the shelf."""
        self.shelf[action.target] += 5
        return Outcome(action=action, success=True, changed=f"{self.shelf[action.target]} on the shelf")


async def buy(request: web.Request) -> web.Response:
    """Sell one, or say that it is sold out and ask the loop to look."""
    shelf, item = request.app[STOCK], request.match_info["item"]
    if shelf.get(item, 0) < 1:
        request.app[RUNTIME].trigger("sold out")
        raise web.HTTPServiceUnavailable(text=f"{item} is sold out; try again\n")
    shelf[item] -= 1
    return web.Response(text=f"{shelf[item]} left\n")


async def autonomic(app: web.Application) -> AsyncIterator[None]:
    """The loop runs while the application does."""
    async with Runtime(Stock(app[STOCK]), node_id="shop", interval=60) as runtime:
        app[RUNTIME] = runtime
        yield


def application() -> web.Application:
    """The shop, with two apples."""
    app = web.Application()
    app[STOCK] = {"apple": 2}
    app.router.add_post("/buy/{item}", buy)
    app.cleanup_ctx.append(autonomic)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=8080)
