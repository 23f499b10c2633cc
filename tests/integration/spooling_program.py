"""A program that creates spans at a steady rate, exports them with a spool, and says how it stands.

`python -m tests.integration.spooling_program ADDRESS FOLDER RATE` runs until its standard input is
closed, then shuts down. A line of JSON every 0.1 s, and one at the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from mapek_runtime import BatchSpanProcessor, OTLPSpanExporter, TracerProvider
from mapek_runtime.export.retry import Backoff
from mapek_runtime.export.spool import SpooledExporter

__all__ = ["main"]


async def main(address: str, folder: str, rate: float) -> None:
    """Run until standard input is closed."""
    # Asked often enough that a test need not wait long for a collector that is back.
    exporter = SpooledExporter(
        OTLPSpanExporter(address, timeout=5), folder, backoff=Backoff(initial=0.1, maximum=0.5)
    )
    processor = BatchSpanProcessor(exporter, schedule_delay_millis=200)
    provider = TracerProvider(ALWAYS_ON, Resource({"service.name": "spooling"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    processor.start()
    tracer = provider.get_tracer("spooling")
    stopped = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    created, started, told = 0, time.monotonic(), 0.0
    while not stopped.done():
        now = time.monotonic()
        while created < rate * (now - started):
            with tracer.start_as_current_span("work", attributes={"number": created}):
                created += 1
        if now - told > 0.1:
            told = now
            say(processor, created)
        await asyncio.sleep(0.005)
    await processor.ashutdown(5)
    say(processor, created)


def say(processor: BatchSpanProcessor, created: int) -> None:
    """Print the account."""
    now = processor.statistics()
    resident = next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text("utf-8").splitlines()
        if line.startswith("VmRSS")
    )
    account = now._asdict() | {"dropped": dict(now.dropped), "sinks": None}
    more = {"created": created, "balanced": now.balanced, "resident_kb": resident}
    sys.stdout.write(json.dumps(account | more) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
