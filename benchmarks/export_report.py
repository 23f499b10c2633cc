"""What the figures of `benchmarks.export` mean: its tables, what was promised, and the notes below.

Medians of the rounds, with the lowest and the highest behind them; differences and ratios are taken
within a round before their median is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from . import export_senders as senders
from .export_load import SPANS_A_CYCLE
from .export_rounds import SLOW, SLOW_SECONDS, Measured, Result, Spread

__all__ = ["accounts", "added_lag", "alone", "cpu", "dead", "delivered", "lag", "saturation", "speed"]

RATIO_TARGET = 8.0
LAG_TARGET_MS = 1.0
ENOUGH_ROUNDS = 10
ALONE = 0.9
BUSY, BUSY_FOR = 0.8, 0.3
"""A receiver that takes so much of a core, for such a part of the time, may be what limits the sender."""

Column = tuple[str, Callable[[Measured, str], str]]


def speed(measured: Measured) -> str:
    """How many spans were made, how many arrived, and what the loop felt of it."""
    return _table(
        measured,
        [
            ("created/s", _spread(lambda result: result.created_per_s)),
            ("delivered/s", _spread(lambda result: result.delivered_per_s)),
            ("lost %", _spread(_lost, 2)),
            *_LAG,
            ("CPU", _median(lambda result: result.cpu, 2)),
            ("us/span", _median(lambda result: result.cpu_us_per_span, 1)),
            ("GC", _median(lambda result: result.gc, 2)),
            ("receiver", _median(lambda result: result.receiver_busy, 2)),
            ("RSS MB", _median(lambda result: result.run.rss_mb)),
        ],
    )


def dead(measured: Measured) -> str:
    """The same for a collector that is slow or gone, with the shutdown."""
    return _table(
        measured,
        [
            ("created/s", _spread(lambda result: result.created_per_s)),
            ("delivered/s", _median(lambda result: result.delivered_per_s)),
            ("lost %", _spread(_lost, 1)),
            *_LAG,
            ("shutdown s", _tail),
            ("lag there", _median(lambda result: result.run.tail_lag_max_ms, 1)),
            ("RSS MB", _median(lambda result: result.run.rss_mb)),
        ],
    )


def lag(measured: Measured) -> str:
    """What the loop and the processor feel at a rate, beside no tracing in the same round."""

    def added(figure: Callable[[Result], float], digits: int) -> Callable[[Measured, str], str]:
        def cell(of: Measured, sender: str) -> str:
            found = of.added(sender, senders.NOTHING, figure) if sender != senders.NOTHING else None
            return _with_range(found, digits)

        return cell

    return _table(
        measured,
        [
            ("created/s", _median(lambda result: result.created_per_s)),
            ("lost %", _spread(_lost, 2)),
            *_LAG,
            ("p99 added ms", added(lambda result: result.run.lag_p99_ms, 2)),
            ("max added ms", added(lambda result: result.run.lag_max_ms, 1)),
            ("CPU", _median(lambda result: result.cpu, 3)),
            ("us/span added", added(lambda result: result.cpu_us_per_span, 1)),
        ],
    )


def added_lag(measured: Measured) -> str:
    """What was promised of the lag at a steady rate."""
    lines = []
    for sender in (senders.OURS_HTTP, senders.OURS_GRPC):
        found = measured.added(sender, senders.NOTHING, lambda result: result.run.lag_p99_ms)
        if found is None:
            continue
        rounds = len(measured.pairs(sender, senders.NOTHING))
        few = "" if rounds >= ENOUGH_ROUNDS else f" (a claim needs {ENOUGH_ROUNDS})"
        lines.append(
            f"{sender}: p99 added {found.median:.2f} ms in the median of {rounds} paired rounds{few}; "
            f"target {LAG_TARGET_MS:g}: {_met(found.median <= LAG_TARGET_MS)}"
        )
    return "\n".join(lines)


def cpu(measured: Measured) -> str:
    """Which piece of a span's way costs what, by leaving out what comes after it."""
    ours = [
        ("make and end it", senders.OURS_MADE, senders.NOTHING),
        ("ring and batch task", senders.OURS_NOT_ENCODED, senders.OURS_MADE),
        ("encode", senders.OURS_NOT_SENT, senders.OURS_NOT_ENCODED),
        ("send over HTTP", senders.OURS_HTTP, senders.OURS_NOT_SENT),
        ("send over gRPC", senders.OURS_GRPC, senders.OURS_NOT_SENT),
        ("whole, HTTP", senders.OURS_HTTP, senders.NOTHING),
        ("whole, gRPC", senders.OURS_GRPC, senders.NOTHING),
        ("whole, behind the SDK's tracer", senders.BEHIND_SDK, senders.NOTHING),
    ]
    stock = [
        ("make and end it", senders.SDK_MADE, senders.NOTHING),
        ("ring and batch task", senders.SDK_NOT_ENCODED, senders.SDK_MADE),
        ("encode", senders.SDK_NOT_SENT, senders.SDK_NOT_ENCODED),
        ("send over HTTP", senders.SDK_HTTP, senders.SDK_NOT_SENT),
        ("send over gRPC", senders.SDK_GRPC, senders.SDK_NOT_SENT),
        ("whole, HTTP", senders.SDK_HTTP, senders.NOTHING),
        ("whole, gRPC", senders.SDK_GRPC, senders.NOTHING),
    ]
    by_stock = {piece: (one, without) for piece, one, without in stock}
    rows = [["", "mapek us/span", "SDK us/span", "ratio"]]
    for piece, one, without in ours:
        mine = measured.added(one, without, _us)
        other, ratio = by_stock.get(piece), None
        theirs = measured.added(*other, _us) if other else None
        if mine is not None and theirs is not None and theirs.median > 0:
            ratio = mine.median / theirs.median
        rows.append(
            [
                piece,
                _with_range(mine, 2),
                _with_range(theirs, 2),
                f"{ratio:.2f}" if ratio is not None else "-",
            ]
        )
    base = measured.spread(senders.NOTHING, _us)
    notes = [
        f"the program itself (an await a cycle): {_with_range(base, 2)} us a span, left out above",
        "each row is a difference of two processes, so it also holds what they do to one another: the SDK's "
        "batches are made in a thread that competes for the interpreter's lock, and that is in its rows",
        "the CPU time of gRPC's own threads is in its rows; which of it is framing and which is copying, "
        "the process cannot tell",
        "the encoder by itself, against the SDK's: python -m benchmarks.encode",
        "making a span by itself, against the SDK's: python -m benchmarks.span --pieces",
    ]
    return "\n".join([measured.case.title, *_aligned(rows), *notes, *_failures(measured)])


def delivered(measured: Measured) -> str:
    """What was promised of a healthy collector: nothing lost, and so many times what the SDK delivers."""
    lines = []
    best = _best_of_sdk(measured)
    for sender in (senders.OURS_HTTP, senders.OURS_GRPC, senders.BEHIND_SDK):
        results = measured.results.get(sender, ())
        if not results:
            continue
        worst = max(map(_lost, results))
        line = f"{sender}: at most {worst:.2f}% lost; target 0: {_met(worst == 0)}"
        ratios = [
            result.delivered_per_s / best[result.number] for result in results if best.get(result.number)
        ]
        found = Spread.of(ratios)
        if found is not None:
            line += f"; delivers {_with_range(found, 1)} times the SDK's better one"
            if sender != senders.BEHIND_SDK:
                line += f"; target {RATIO_TARGET:g}: {_met(found.median >= RATIO_TARGET)}"
        lines.append(line)
    return "\n".join(lines)


def alone(measured: Measured) -> str:
    """A warning when others kept the processor from what was measured."""
    found = measured.spread(senders.NOTHING, lambda result: result.cpu)
    if found is None or found.low >= ALONE:
        return ""
    return (
        f"the machine was busy with something else: a process that only computes had {found.low:.2f} to "
        f"{found.high:.2f} of a core, so what is said a second is too low and every lag too long"
    )


def accounts(measured: Measured) -> str:
    """What our processors say of their spans, beside what the collector has counted, over all rounds."""
    lines = []
    for sender, results in measured.results.items():
        if not senders.sends(sender):
            continue
        said: Counter[str] = Counter()
        agree = True
        for result in results:
            account = result.run.account
            if account is None:
                continue
            said.update(account)
            # Delivery is at least once: what timed out may have arrived all the same.
            agree &= (
                account["ended"] == result.run.created
                and account["exported"] <= result.delivered
                and not account["out of balance"]
            )
        if not said:
            continue
        terms = ", ".join(f"{term} {count:,}" for term, count in said.items() if count)
        came = sum(result.delivered for result in results)
        twice = sum(result.received.repeated for result in results)
        lines.append(
            f"{sender}, its own account: {terms or 'nothing'}; the collector: {came:,}"
            + (f" and {twice:,} of them again" if twice else "")
            + f": {'they agree' if agree else 'THEY DISAGREE'}"
        )
    return "\n".join(lines)


def saturation(measured: Measured) -> str:
    """Where the lag at full speed comes from, and what would lower it."""
    turn = {
        sender: measured.spread(sender, lambda result: _turn_ms(result, measured.case.producers))
        for sender in measured.case.senders
    }
    bare, made = turn.get(senders.NOTHING), turn.get(senders.OURS_MADE)
    if bare is None or made is None:
        return ""
    lines = []
    for sender in (senders.OURS_HTTP, senders.OURS_GRPC):
        whole = turn.get(sender)
        if whole is None:
            continue
        lines.append(
            f"{sender}: a turn of the loop took {whole.median:.2f} ms: {bare.median:.2f} without tracing, "
            f"{made.median - bare.median:.2f} for making {SPANS_A_CYCLE * measured.case.producers:,} spans, "
            f"{whole.median - made.median:.2f} for exporting; the garbage collector had "
            f"{100 * _middle(measured, sender, lambda result: result.gc):.0f}% of it all, "
            f"{_middle(measured, sender, lambda result: result.run.gc_max_ms):.0f} ms at once"
        )
    if lines:
        lines.append(
            "what would lower it: uvloop (the first part), sampling or fewer producers in a turn (the "
            "second, which no exporter can split), a smaller slice or a cheaper encoder (the third; a "
            "smaller slice fills the queue), spans that wait encoded instead of as objects, gc.freeze() or "
            "a higher threshold in the program (the garbage collector)"
        )
    return "\n".join(lines)


def _best_of_sdk(measured: Measured) -> dict[int, float]:
    """The better one of the SDK's two in each round."""
    best: dict[int, float] = {}
    for sender in (senders.SDK_HTTP, senders.SDK_GRPC):
        for result in measured.results.get(sender, ()):
            best[result.number] = max(best.get(result.number, 0.0), result.delivered_per_s)
    return best


def _turn_ms(result: Result, producers: int) -> float:
    return 1000 * result.run.load_s * producers * SPANS_A_CYCLE / result.run.created


def _lost(result: Result) -> float:
    return result.lost_percent


def _middle(measured: Measured, sender: str, figure: Callable[[Result], float]) -> float:
    found = measured.spread(sender, figure)
    return found.median if found is not None else 0.0


def _us(result: Result) -> float:
    return result.cpu_us_per_span


def _spread(figure: Callable[[Result], float], digits: int = 0) -> Callable[[Measured, str], str]:
    def cell(measured: Measured, sender: str) -> str:
        if figure is _lost and not senders.sends(sender):
            return "-"
        return _with_range(measured.spread(sender, figure), digits)

    return cell


def _median(figure: Callable[[Result], float], digits: int = 0) -> Callable[[Measured, str], str]:
    def cell(measured: Measured, sender: str) -> str:
        found = measured.spread(sender, figure)
        return f"{found.median:,.{digits}f}" if found is not None else "-"

    return cell


def _tail(measured: Measured, sender: str) -> str:
    found = measured.spread(sender, lambda result: result.run.tail_s)
    if found is None:
        return "-"
    capped = any(result.run.tail_capped for result in measured.results[sender])
    return (">= " if capped else "") + f"{found.median:.2f}"


_LAG: Sequence[Column] = (
    ("lag p50 ms", _median(lambda result: result.run.lag_p50_ms, 1)),
    ("p99 ms", _spread(lambda result: result.run.lag_p99_ms, 1)),
    ("max ms", _median(lambda result: result.run.lag_max_ms, 1)),
)


def _table(measured: Measured, columns: Iterable[Column]) -> str:
    columns = list(columns)
    rows = [["", *(title for title, _ in columns)]]
    rows += [
        [sender, *(cell(measured, sender) for _, cell in columns)]
        for sender, results in measured.results.items()
        if results
    ]
    title = measured.case.title
    if measured.case.collector == SLOW:
        title += f" ({1000 * SLOW_SECONDS:g} ms a request)"
    return "\n".join([title, *_aligned(rows), *_busy(measured), *_failures(measured)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _busy(measured: Measured) -> list[str]:
    busy = [
        sender
        for sender, results in measured.results.items()
        if any(result.receiver_busy > BUSY and result.receiving > BUSY_FOR for result in results)
    ]
    return [f"the receiver was busy and may be the limit: {'; '.join(busy)}"] if busy else []


def _failures(measured: Measured) -> list[str]:
    return [f"{sender}: not measured: {reason}" for sender, reason in measured.failures.items()]


def _with_range(found: Spread | None, digits: int) -> str:
    if found is None:
        return "-"
    median, low, high = (f"{value:,.{digits}f}" for value in found)
    return median if low == high else f"{median} ({low} to {high})"


def _met(fulfilled: bool) -> str:
    return "met" if fulfilled else "not met"
