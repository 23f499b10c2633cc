"""Every exception of the runtime, drawn as a tree.

```
MapekError
├── ConfigError                 a setting is wrong; stops the start
├── PluginError
│   ├── PluginNotFound          no plugin or domain of that name
│   ├── PluginConflict          two plugins of one name
│   └── PluginContractError     a phase method with the wrong signature
├── SpanSpecError (TypeError)   a span declaration is wrong; raised at import
├── SpanReused (RuntimeError)   a span scope entered twice
├── PhaseError
│   ├── PhaseFailed             every plugin of the phase failed; carries the ExceptionGroup
│   └── PhaseTimeout (TimeoutError)  the phase ran past its limit
├── KnowledgeError              knowledge could not be kept on disk; it is still in memory
├── QueryError                  a query cannot be read
├── StoreError                  the trace store cannot be opened, read or written
├── NoConsensus                 no majority of the nodes answered in time
├── EngineUnavailable           an engine lacks a right, a program or a kernel feature
└── ExportError                 never leaves the batch task
    ├── EncodeError             a span could not be encoded
    ├── SpoolError              the disk did not take spans, or not give them back
    ├── TransportError          the collector did not take a batch
    └── TransportRejected       the collector took the request and refused spans
```

A class stands here when a caller would do something different on it.
"""

from __future__ import annotations

from unicodedata import combining, east_asian_width

__all__ = [
    "ConfigError",
    "EncodeError",
    "EngineUnavailable",
    "ExportError",
    "KnowledgeError",
    "MapekError",
    "NoConsensus",
    "PhaseError",
    "PhaseFailed",
    "PhaseTimeout",
    "PluginConflict",
    "PluginContractError",
    "PluginError",
    "PluginNotFound",
    "QueryError",
    "SpanReused",
    "SpanSpecError",
    "SpoolError",
    "StoreError",
    "TransportError",
    "TransportRejected",
]


class MapekError(Exception):
    """The root of all errors of the runtime."""


class ConfigError(MapekError):
    """A setting is wrong: says the file or variable, the key, the value and what would be right."""


class PluginError(MapekError):
    """A plugin cannot be used."""


class PluginNotFound(PluginError):
    """No plugin or domain has that name."""


class PluginConflict(PluginError):
    """Two plugins have one name."""


class PluginContractError(PluginError):
    """A phase method has the wrong signature; the message shows the expected one."""


class SpanSpecError(MapekError, TypeError):
    """The declaration of a span is wrong."""


class SpanReused(MapekError, RuntimeError):
    """A span scope was entered a second time; ask the factory for a new one."""


class PhaseError(MapekError):
    """A phase of a cycle did not come to its end."""

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message)
        self.phase = phase


class PhaseFailed(PhaseError):
    """Every plugin of the phase failed."""

    def __init__(self, message: str, *, phase: str, causes: ExceptionGroup[Exception]) -> None:
        super().__init__(message, phase=phase)
        self.causes = causes


class PhaseTimeout(PhaseError, TimeoutError):
    """The phase ran past its limit."""


class KnowledgeError(MapekError):
    """Knowledge could not be written to disk. What was learned is still in memory and is tried again."""


class QueryError(MapekError):
    """A query cannot be read: what was written, the column, and what would be right.

    `text` is the query, `column` the place in it, counted in characters from 1; both are None where the
    fault is of no one place. A column one past the end says that the text ends too early.
    """

    def __init__(self, message: str, *, text: str | None = None, column: int | None = None) -> None:
        super().__init__(message if column is None else f"column {column}: {message}")
        self.text = text
        self.column = column

    def pointer(self, width: int = 100) -> str:
        """The line of the query with a caret below the column, cut to `width`; empty without a column."""
        if self.text is None or self.column is None:
            return ""
        before, after = self.text[: self.column - 1], self.text[self.column - 1 :]
        before, after = before.rpartition("\n")[2], after.partition("\n")[0]
        if len(before) > width // 2:
            before = "…" + before[1 - width // 2 :]
        room = max(width - len(before), 2)
        if len(after) > room:
            after = after[: room - 1] + "…"
        # What a terminal would act on is not sent to it.
        shown = ["".join(c if c.isprintable() else " " for c in part) for part in (before, after)]
        wide = sum(east_asian_width(c) in {"W", "F"} for c in shown[0])
        narrow = sum(combining(c) != 0 for c in shown[0])
        return f"{shown[0]}{shown[1]}\n{' ' * (len(shown[0]) + wide - narrow)}^"


class StoreError(MapekError):
    """The trace store cannot be opened, read or written: the path, what failed, what would be right."""


class NoConsensus(MapekError):
    """No majority of the nodes answered in time.

    What was asked for may have been agreed upon all the same, or may be later; to ask again is safe.
    """


class EngineUnavailable(MapekError):
    """An engine cannot run here.

    The message says which engine, what is missing (a right, a program, a kernel feature), how to
    get it, and what the embedded default is.
    """


class ExportError(MapekError):
    """Spans could not be delivered; ends at the batch task, as a counter and a log line."""


class EncodeError(ExportError):
    """A span could not be encoded as OTLP."""


class SpoolError(ExportError):
    """The disk did not do what the spool needs: says the path, what failed, and what would be right."""


class TransportError(ExportError):
    """The collector did not take a batch.

    `retryable` says whether the same batch may be sent again, `retry_after` (seconds) how long the
    collector asked to wait; None when it did not say. `error_type` is the value of the `error.type`
    attribute: an HTTP status, a gRPC status name or the name of an exception. `status_code` is the
    number that the collector answered, of HTTP or gRPC; None when it did not answer.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        error_type: str = "transport",
        status_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.error_type = error_type
        self.status_code = status_code


class TransportRejected(ExportError):
    """The collector answered with partial success and refused `rejected_spans` of the batch."""

    def __init__(self, message: str, *, rejected_spans: int) -> None:
        super().__init__(message)
        self.rejected_spans = rejected_spans
