"""The server of a run: rounds of Flower with the aggregation of the fl domain."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from flwr.app import Context, MetricRecord  # type: ignore[import-not-found]
from flwr.serverapp import Grid, ServerApp  # type: ignore[import-not-found]

import mapek_runtime

from .records import record_of, weights_of
from .strategy import Ours
from .told import Scored, learner_of, settings_of

__all__ = ["app", "main"]


def main(grid: Grid, context: Context) -> None:
    """Learn for as many rounds as the run says."""
    asyncio.run(_traced(grid, context))


app = ServerApp()
app.main()(main)


async def _traced(grid: Grid, context: Context) -> None:
    # Flower has handlers for its signals.
    async with mapek_runtime.tracing(service_name="flower-server", handle_signals=False):
        await asyncio.to_thread(_learn, grid, context)


def _learn(grid: Grid, context: Context) -> None:
    config: dict[str, Any] = dict(context.run_config)
    learner, rounds, patience = learner_of(config), int(config["rounds"]), float(config["patience"])
    strategy = Ours(settings_of(config), rounds=rounds)
    began = time.monotonic()

    def report(number: int, arrays: Any) -> Any:
        line = {"round": number, **strategy.of_round, "seconds": round(time.monotonic() - began, 1)}
        if isinstance(learner, Scored):
            line["accuracy"] = learner.accuracy(weights_of(arrays))
        if config["report"]:
            with Path(config["report"]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return MetricRecord({"accuracy": line["accuracy"]}) if "accuracy" in line else None

    _wait_for(grid, int(config["clients"]), patience)
    strategy.start(
        grid=grid,
        initial_arrays=record_of(learner.initial()),
        num_rounds=rounds,
        timeout=patience,
        evaluate_fn=report,
    )


def _wait_for(grid: Grid, clients: int, patience: float) -> None:
    until = time.monotonic() + patience
    while (there := len(list(grid.get_node_ids()))) < clients:
        if time.monotonic() > until:
            raise TimeoutError(f"{there} SuperNodes are there after {patience:g} s, and clients is {clients}")
        time.sleep(0.5)
