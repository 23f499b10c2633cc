"""Every setting of the runtime, frozen, each with its docstring.

Knows values only. Where they come from is the business of `sources`, how they are read that of
`decode`. The sections of domains and plugins are declared by them, not here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .address import ADDRESS
from .hierarchy import HierarchySettings
from .web import WebSettings

__all__ = [
    "CopySettings",
    "CycleSamplingSettings",
    "ExportSettings",
    "GuardSettings",
    "KnowledgeSettings",
    "LogSettings",
    "LoopSettings",
    "MetricsSettings",
    "NodeSettings",
    "RunSettings",
    "SamplerSettings",
    "Settings",
    "SpoolSettings",
    "StoreSettings",
    "WatchSettings",
]

Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Address = Annotated[
    str,
    msgspec.Meta(
        pattern=ADDRESS,
        extra={"address": True, "words": "an address such as http://localhost:4318/v1/traces"},
    ),
]
Endpoint = Annotated[
    str,
    msgspec.Meta(
        pattern=f"^$|{ADDRESS}",
        extra={"address": True, "words": "an address such as http://localhost:4318/v1/traces"},
    ),
]
ExporterName = Literal["auto", "otlp", "otlp-sdk", "console", "memory", "none"]
Protocol = Literal["http/protobuf", "grpc"]


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guard rails: what keeps a loop that is wrong from doing harm."""

    cooldown: NonNegative = 3.0
    """Seconds after an action on a target before the next one on it."""
    hysteresis: AtLeastOne = 1
    """Cycles in a row that a finding must be made before it is acted upon."""
    actions_per_minute: AtLeastOne = 12
    """Actions within any sixty seconds, over all targets of a node."""
    fleet_share: Share = 0.5
    """Share of the known targets that may be acted upon and not yet restored; at least one may."""
    max_failures: AtLeastOne = 3
    """Failed repairs of a target after which it is left alone and escalated."""
    escalation: NonNegative = 600.0
    """Seconds for which an escalated target is left alone."""


class LoopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The loop: when a cycle starts, and how long a phase may take."""

    interval: Positive = 1.0
    """Seconds from one cycle to the next, kept without drift."""
    jitter: NonNegative = 0.0
    """Seconds by which a start may be late, at random; the schedule itself does not move."""
    overlap: Literal["skip", "queue", "cancel"] = "skip"
    """What a tick does while a cycle still runs: nothing, one more cycle after it, or end it."""
    monitor_limit: Positive = 10.0
    """Seconds that Monitor may take."""
    analyze_limit: Positive = 10.0
    """Seconds that Analyze may take."""
    plan_limit: Positive = 10.0
    """Seconds that Plan may take."""
    execute_limit: Positive = 30.0
    """Seconds that Execute may take."""
    knowledge_limit: Positive = 10.0
    """Seconds that Knowledge may take."""
    monitor_retries: Count = 0
    """Further attempts at Monitor when every monitor failed."""
    analyze_retries: Count = 0
    """Further attempts at Analyze."""
    plan_retries: Count = 0
    """Further attempts at Plan."""
    retry_delay: NonNegative = 0.05
    """Seconds before the first further attempt; doubled for each one after it."""
    dry_run: bool = False
    """Plan and show, execute nothing."""
    guard: GuardSettings = GuardSettings()
    """The guard rails."""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which nodes live in this process."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "node-1"
    """The name of the one node of a deployment."""
    count: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    """Run a demonstration of so many nodes, node-1 and on, in this process. Unset: one node where
    there is a configuration file, else five."""


class RunSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run: how long, with which faults, and what it writes on standard output."""

    chaos: bool = False
    """Make faults on purpose, by a schedule that the seed decides."""
    seed: Count = 0
    """The same seed gives the same faults."""
    heal: bool = True
    """Act on what is found; without it the loop only watches."""
    duration: Positive | None = None
    """Seconds after which the run ends by itself; unset: never."""
    json: bool = False
    """Write one JSON object a line on standard output, the summary last."""


class CopySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another collector that gets every span as well, with nothing of the first one's but TLS files,
    compression and timeout: headers often carry a key, and that is for one collector."""

    endpoint: Address
    """The full address, as in `export.endpoint`."""
    protocol: Protocol | None = None
    """How OTLP is sent there; unset: as `export.protocol` says."""
    headers: Annotated[dict[str, str], msgspec.Meta(extra={"secret": True})] = {}
    """Headers of its own."""


class ExportSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where spans go."""

    exporter: ExporterName | tuple[ExporterName, ...] = "auto"
    """auto: otlp where an endpoint is known, else the trace store where there is one (`[store]`), else
    memory, which keeps the newest spans. otlp: this
    package's asyncio exporter. otlp-sdk: the one of opentelemetry-exporter-otlp, in a thread of its own;
    for both OTEL_EXPORTER_OTLP_TIMEOUT is in milliseconds, as specified. console: one line a span. none:
    nothing is exported, and no copies. Of a list each gets every span."""
    endpoint: Endpoint = ""
    """The full address that takes OTLP, such as http://localhost:4318/v1/traces, or for grpc
    http://localhost:4317, where a path does not count; unset: these two."""
    protocol: Protocol = "http/protobuf"
    """How OTLP is sent."""
    copies: Annotated[
        tuple[Address | CopySettings, ...],
        msgspec.Meta(
            extra={"words": "a list of addresses, or of tables with endpoint, protocol and headers"},
        ),
    ] = ()
    """Further collectors that get every span as well, each with a queue and an account of its own."""
    queue_size: AtLeastOne | None = None
    """Ended spans that may wait; unset: 65,536."""
    batch_size: AtLeastOne | None = None
    """Spans in one request; unset: 512, and up to 8,192 while there is a backlog."""
    delay: Positive | None = None
    """Seconds after which a batch that is not full is sent; unset: 5."""
    timeout: Positive | None = None
    """Seconds that one export may take; unset: 30."""
    shutdown: Positive = 5.0
    """Seconds at the end of a run for what is still queued."""

    def __post_init__(self) -> None:
        if not self.exporter:
            raise ValueError("exporter is an empty list; it must name one, or be 'none'")
        if len(self.exporters) > 1 and "none" in self.exporters:
            raise ValueError(f"exporter is {list(self.exporters)!r}; 'none' must stand alone")

    @property
    def exporters(self) -> tuple[str, ...]:
        """The names of the exporters, each once."""
        return tuple(dict.fromkeys([self.exporter] if isinstance(self.exporter, str) else self.exporter))


class SpoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What waits on disk while a collector is away, and is sent when it is back, by this process or the
    next. Only what goes by `otlp` and to `export.copies` is spooled."""

    enabled: bool | None = None
    """Unset: on for `mapek run`, as far as the folder can be written; off for a library's `tracing()`."""
    directory: str = ""
    """The folder for it, with one in it for each address; unset: the folder `spool` in the state folder.
    What waits for an address stays until a process sends there again."""
    max_bytes: Annotated[int, msgspec.Meta(ge=8_388_608)] = 268_435_456
    """Bytes of what one process keeps for one collector; beyond it the oldest go and are counted."""
    max_age: Positive = 86_400.0
    """Seconds after which what waits is too old to be sent."""
    fsync: Literal["always", "segment", "never"] = "segment"
    """When the disk is told to keep it: after each batch, when a file is full, or as the system likes.
    A killed process loses nothing either way; a power cut may."""
    rate: AtLeastOne = 8_388_608
    """Bytes a second that are sent of what waited, after the fresh spans: about 40,000 spans."""


class CycleSamplingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a cycle itself decides that its spans are kept, and which."""

    decide: bool = False
    """Hold the spans of a cycle until it ends; keep it for an anomaly, an action, an error or an unusual
    duration, and else by the share below. A cycle whose context leaves the process before a cause is
    found goes by the share alone."""
    quiet_ratio: Share = 0.01
    """Share of the cycles without a cause that are kept."""
    slow: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    """Times the usual duration (the median of the last 512 cycles) from which a cycle may be unusual; it
    must also be among the slowest hundredth."""
    most_spans_per_cycle: AtLeastOne = 4096
    """Ended spans of one cycle that may wait; a larger one goes by the share at once."""
    most_held_spans: AtLeastOne = 65_536
    """Ended spans of all open cycles that may wait; beyond it the oldest cycles go by the share."""


class SamplerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which traces are recorded. What a root decides holds for its whole trace."""

    type: Literal["otel", "const", "probabilistic", "probability", "adaptive", "remote"] = "otel"
    """otel: what OTEL_TRACES_SAMPLER says, every trace where it is unset. const: all or none.
    probabilistic: a share, as traceidratio. probability: a share that is consistent between nodes and
    recorded as `ot=th:`. adaptive: a budget of traces a second. remote: what a Jaeger server says."""
    param: NonNegative | None = None
    """const: 1 or 0, unset 1. probabilistic, probability: the share, unset 1. adaptive: traces a second
    over all operations, unset 10. remote: the share until the server has answered, unset 0.001."""
    endpoint: Annotated[str, msgspec.Meta(pattern=r"^$|^https?://[^/\s]+")] = ""
    """The server that a remote sampler asks over HTTP; unset: http://localhost:5778."""
    interval: Positive = 60.0
    """Seconds from one question to that server to the next."""
    operations: AtLeastOne = 100
    """Names of root spans that an adaptive sampler tells apart; the others share one entry."""

    def __post_init__(self) -> None:
        right = None
        if self.param is None or self.type == "otel":
            return
        if self.type == "const" and self.param not in {0, 1}:
            right = "0 or 1"
        elif self.type == "adaptive" and not 0 < self.param < float("inf"):
            right = "a number above 0"
        elif self.type not in {"const", "adaptive"} and not self.param <= 1:
            right = "a number from 0 to 1"
        if right is not None:
            raise ValueError(f"param is {self.param:g}; with type {self.type!r} it must be {right}")


class KnowledgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a node keeps what it learned."""

    store: Literal["auto", "sqlite", "memory"] = "auto"
    """sqlite: one file a node under the state folder. auto: the same, but a demonstration has its
    files in a folder of its own that is removed at the end, so that what it learned of made-up
    faults does not change the next run."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines below this level are not written."""
    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, else json."""


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked at while spans are open. Off, because it costs half a span for each one."""

    heartbeat: NonNegative = 0.0
    """Seconds after which a span that is still open is logged, and again after each such time. 0: never."""
    leaks: bool = False
    """Find spans that are never ended, and log where they were started."""


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where metrics are sent. `/metrics` of what `[web]` serves shows them in any case."""

    exporters: tuple[Literal["otlp", "prometheus"], ...] = ()
    """otlp: to a collector, by OpenTelemetry's own exporter, in a thread of its own. prometheus: on
    `/metrics` of `web.listen`, and where that is unset everything is served on localhost:9464. Empty:
    nowhere."""
    endpoint: Endpoint = ""
    """The full address that takes OTLP metrics, such as http://localhost:4318/v1/metrics; unset: the
    collector that gets the spans, else what OTEL_EXPORTER_OTLP_* says."""
    interval: Positive | None = None
    """Seconds from one export to the next; unset: 60."""
    timeout: Positive | None = None
    """Seconds that one export may take; unset: 10."""


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded trace store: spans are kept in a file, and answered for by `mapek traces`, the page and
    the query APIs."""

    enabled: bool | None = None
    """Unset: on for `mapek run` unless `export.exporter` is none, as far as the folder can be written; off
    for a library's `tracing()`. With a store, `export.exporter` auto without an endpoint means the store
    alone; a collector that is named gets every span as well."""
    path: str = ""
    """The file, on a local disk; unset: `traces.sqlite` in the state folder."""
    max_age: Positive = 604_800.0
    """Seconds after which spans are deleted."""
    max_bytes: Annotated[int, msgspec.Meta(ge=8_388_608)] = 1_073_741_824
    """Bytes of the file; beyond it the oldest spans are deleted."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, but for the sections of domains and plugins."""

    service_name: Annotated[str, msgspec.Meta(min_length=1)] = "x0tta6bl4"
    """`service.name` of every span."""
    domains: tuple[str, ...] = ("mesh", "raft", "crdt", "fl")
    """Domains that start: names of installed ones, or MODULE:NAME."""
    plugins: tuple[str, ...] = ()
    """Further plugins: names of installed ones, or MODULE:NAME."""
    state: str = ""
    """The folder for what is kept between runs; unset: $XDG_STATE_HOME/mapek, or
    ~/.local/state/mapek."""
    node: NodeSettings = NodeSettings()
    loop: LoopSettings = LoopSettings()
    run: RunSettings = RunSettings()
    export: ExportSettings = ExportSettings()
    spool: SpoolSettings = SpoolSettings()
    store: StoreSettings = StoreSettings()
    sampler: SamplerSettings = SamplerSettings()
    cycles: CycleSamplingSettings = CycleSamplingSettings()
    watch: WatchSettings = WatchSettings()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    hierarchy: HierarchySettings = HierarchySettings()
    log: LogSettings = LogSettings()
