"""How many of the spans of an asyncio program reach a collector, how fast, and at what cost?

`python -m benchmarks.export` compares our processor with the SDK's over OTLP/HTTP and over gRPC: each
variant is a process of its own, the variants take turns in every round, the receiver is another
process, and everything is at its default settings. Then the encoder against the SDK's, and how long a
shutdown takes when nobody listens. Cycles of six spans with four attributes, one `sleep(0)` a cycle.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource

__all__ = ["main"]

RESOURCE = {"service.name": "benchmark"}
OURS, SDK_HTTP, SDK_GRPC, NOTHING = "mapek", "sdk-http", "sdk-grpc", "no tracing"
VARIANTS = (OURS, SDK_HTTP, SDK_GRPC, NOTHING)
TICK = 0.005
SHUTDOWN_TIMEOUT = 60.0


def main() -> None:
    """Run the benchmark and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="load time of a variant in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0, help="spans a second; 0 is as fast as possible")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(
            json.dumps(
                asyncio.run(_run_variant(options.variant, options.port, options.seconds, options.rate))
            )
        )
        return
    report = {
        "machine": f"{platform.platform()}, {_cpu()}",
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}",
        "seconds": options.seconds,
        "rounds": options.rounds,
        "rate": options.rate,
        "export": _measure_export(options.seconds, options.rounds, options.rate),
        "encode": _measure_encode(),
        "shutdown": _measure_shutdown(),
    }
    print(json.dumps(report) if options.json else _table(report))


# End to end


def _measure_export(seconds: float, rounds: int, rate: float) -> dict[str, Any]:
    receiver = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.receiver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert receiver.stdin is not None
    assert receiver.stdout is not None
    try:
        ports = json.loads(receiver.stdout.readline())
        runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
        for number in range(rounds):
            order = VARIANTS[number % len(VARIANTS) :] + VARIANTS[: number % len(VARIANTS)]
            for variant in order:
                _ask(ports["http"], "reset")
                run = _in_process(variant, ports["grpc" if variant == SDK_GRPC else "http"], seconds, rate)
                run["received"] = received = json.loads(_ask(ports["http"], "count"))["spans"]
                run["delivered_per_s"] = received / (run["load_s"] + run["tail_s"])
                run["lost_percent"] = (
                    100 * (1 - run["received"] / run["created"]) if variant != NOTHING else 0.0
                )
                runs[variant].append(run)
    finally:
        receiver.stdin.close()
        receiver.wait(10)
    found: dict[str, Any] = {variant: _spread(list_of) for variant, list_of in runs.items()}
    best = [
        max(http["delivered_per_s"], grpc["delivered_per_s"])
        for http, grpc in zip(runs[SDK_HTTP], runs[SDK_GRPC], strict=True)
    ]
    ratios = [run["delivered_per_s"] / stock for run, stock in zip(runs[OURS], best, strict=True) if stock]
    found["delivered, ours / the SDK's better one"] = _median_and_range(ratios)
    return found


def _in_process(variant: str, port: int, seconds: float, rate: float) -> dict[str, float]:
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.export", "--variant", variant, "--port", str(port),
            "--seconds", str(seconds), "--rate", str(rate),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + SHUTDOWN_TIMEOUT + 60,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def _run_variant(variant: str, port: int, seconds: float, rate: float) -> dict[str, float]:
    logging.disable(logging.CRITICAL)  # in every variant: drop warnings cost time
    provider, shutdown = _provider(variant, port)
    tracer = provider.get_tracer("benchmark") if provider is not None else None
    lags: list[float] = []
    over = False

    async def tick() -> None:
        while not over:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            lags.append(time.perf_counter() - before - TICK)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.1)
    lags.clear()
    gc.collect()
    cpu, start = time.process_time(), time.perf_counter()
    created = 0
    while (now := time.perf_counter()) - start < seconds:
        if not rate or created < rate * (now - start):
            created += _cycle(tracer)
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(0.001)
    loaded, cpu_used = time.perf_counter(), time.process_time() - cpu
    over = True
    await ticker
    lags.sort()
    await shutdown()
    return {
        "created": created,
        "created_per_s": created / (loaded - start),
        "load_s": loaded - start,
        "tail_s": time.perf_counter() - loaded,
        "lag_p99_ms": 1000 * lags[int(len(lags) * 0.99)],
        "lag_max_ms": 1000 * lags[-1],
        "cpu": cpu_used / (loaded - start),
        "cpu_us_per_span": 1e6 * (time.process_time() - cpu) / created,
    }


def _cycle(tracer: Any) -> int:
    attributes = {"node_id": "node-1", "cycle": 7, "confidence": 0.5, "success": True}
    if tracer is None:
        return 6
    with tracer.start_as_current_span("mape_k.cycle", attributes=dict(attributes)):
        for name in ("monitor", "analyze", "plan", "execute", "knowledge"):
            with tracer.start_as_current_span(f"mape_k.{name}", attributes=dict(attributes)):
                pass
    return 6


def _provider(variant: str, port: int) -> tuple[Any, Callable[[], Any]]:
    async def nothing() -> None:
        """There is nothing to shut down."""

    if variant == NOTHING:
        return None, nothing
    processor: Any
    if variant == OURS:
        from mapek_runtime.export.batch import BatchSpanProcessor
        from mapek_runtime.export.otlp_http import OTLPSpanExporter
        from mapek_runtime.trace import TracerProvider

        provider: sdk.TracerProvider = TracerProvider(resource=Resource(RESOURCE))
        processor = BatchSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces"))
        provider.add_span_processor(processor)
        return provider, lambda: processor.ashutdown(SHUTDOWN_TIMEOUT)
    from opentelemetry.sdk.trace.export import BatchSpanProcessor as StockProcessor

    exporter: Any
    if variant == SDK_HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as StockHttp

        exporter = StockHttp(f"http://127.0.0.1:{port}/v1/traces")
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as StockGrpc

        exporter = StockGrpc(f"http://127.0.0.1:{port}", insecure=True)
    provider = sdk.TracerProvider(resource=Resource(RESOURCE))
    provider.add_span_processor(StockProcessor(exporter))
    return provider, lambda: asyncio.to_thread(provider.shutdown)


# The encoder


def _measure_encode(count: int = 512, rounds: int = 31) -> dict[str, Any]:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_by_sdk

    from mapek_runtime.export.encode import encode_spans
    from mapek_runtime.trace import TracerProvider

    found = {}
    for strings in ("unique", "repeated"):
        own = _finished(TracerProvider(resource=Resource(RESOURCE)), strings, count)
        stock = _finished(sdk.TracerProvider(resource=Resource(RESOURCE)), strings, count)
        for spans in (own, stock):
            assert encode_spans(spans) == encode_by_sdk(spans).SerializeToString()
        work: dict[str, Callable[[], object]] = {
            "sdk": lambda spans=stock: encode_by_sdk(spans).SerializeToString(),  # type: ignore[misc]
            "own spans": lambda spans=own: encode_spans(spans),  # type: ignore[misc]
            "spans of the SDK": lambda spans=stock: encode_spans(spans),  # type: ignore[misc]
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for number in range(rounds + 1):
            for name, encode in work.items():
                gc.collect()
                start = time.perf_counter()
                encode()
                if number:
                    times[name].append((time.perf_counter() - start) / count * 1e9)
        found[strings] = {
            name: {
                "ns_per_span": statistics.median(values),
                "ratio": _median_and_range([a / b for a, b in zip(values, times["sdk"], strict=True)]),
            }
            for name, values in times.items()
        }
    return found


def _finished(provider: sdk.TracerProvider, strings: str, count: int) -> list[Any]:
    draw = random.Random(7)
    spans: list[Any] = []

    class Keep(sdk.SpanProcessor):
        def on_end(self, span: sdk.ReadableSpan) -> None:
            spans.append(span)

    provider.add_span_processor(Keep())
    tracer = provider.get_tracer("benchmark")
    for number in range(count // 2):
        text = f"node-{draw.random()}" if strings == "unique" else f"node-{number % 5}"
        attributes: dict[str, Any] = {
            "node_id": text, "cycle": number, "confidence": draw.random(), "success": True,
            "reason": text + "!", "size": 100_000 + number,
        }  # fmt: skip
        outer = tracer.start_as_current_span("mape_k.cycle", attributes=attributes)
        with outer, tracer.start_as_current_span("mape_k.monitor", attributes=attributes):
            pass
    return spans


# Shutdown without a collector


def _measure_shutdown(timeout: float = 2.0) -> dict[str, float]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            refused = taken.getsockname()[1]
        return {
            "timeout_s": timeout,
            "connection refused_s": asyncio.run(_shutdown(refused, timeout)),
            "never answers_s": asyncio.run(_shutdown(silent.getsockname()[1], timeout)),
        }


async def _shutdown(port: int, timeout: float) -> float:
    logging.disable(logging.CRITICAL)
    provider, _ = _provider(OURS, port)
    for _ in range(1000):
        _cycle(provider.get_tracer("benchmark"))
    processor: Any = provider._active_span_processor._span_processors[0]
    start = time.perf_counter()
    await processor.ashutdown(timeout)
    assert processor.statistics().balanced
    logging.disable(logging.NOTSET)
    return time.perf_counter() - start


# Figures


def _median_and_range(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _spread(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {key: _median_and_range([run[key] for run in runs]) for key in runs[0]}


def _ask(port: int, what: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        return f"{len(models)} x {models[0]}" if models else platform.machine()
    except OSError:
        return platform.machine()


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['machine']}; {report['interpreter']}",
        f"{report['rounds']} rounds of {report['seconds']:g} s, "
        + (f"{report['rate']:g} spans/s" if report["rate"] else "as fast as possible")
        + "; median (lowest to highest)",
        "",
        f"{'':12}{'created/s':>30}{'delivered/s':>30}{'lost %':>24}"
        f"{'lag p99 ms':>22}{'max ms':>10}{'CPU':>6}{'us/span':>9}",
    ]
    for variant in VARIANTS:
        row = report["export"][variant]
        lines.append(
            f"{variant:12}{_cell(row['created_per_s'], 0):>30}{_cell(row['delivered_per_s'], 0):>30}"
            f"{_cell(row['lost_percent'], 1):>24}{_cell(row['lag_p99_ms'], 1):>22}"
            f"{row['lag_max_ms']['median']:>10.1f}{row['cpu']['median']:>6.2f}"
            f"{row['cpu_us_per_span']['median']:>9.1f}"
        )
    ratio = report["export"]["delivered, ours / the SDK's better one"]
    lines += [
        "",
        f"delivered, ours / the SDK's better one: {_cell(ratio, 1)}",
        "",
        "encode and serialize, per span",
    ]
    for strings, rows in report["encode"].items():
        for name, row in rows.items():
            lines.append(
                f"  {strings + ' strings':18}{name:18}{row['ns_per_span']:>8.0f} ns"
                f"   ratio {_cell(row['ratio'], 3)}"
            )
    shutdown = report["shutdown"]
    lines += ["", f"ashutdown({shutdown['timeout_s']:g}) with 6,000 spans waiting"]
    lines += [f"  {name[:-2]:22}{value:.2f} s" for name, value in shutdown.items() if name != "timeout_s"]
    return "\n".join(lines)


def _cell(value: dict[str, float], digits: int) -> str:
    return f"{value['median']:,.{digits}f} ({value['min']:,.{digits}f} to {value['max']:,.{digits}f})"


if __name__ == "__main__":
    main()
