"""What spans have in common, read once for a query: operations and sources.

A condition on names, services or attributes of resources is decided here, on some hundreds of rows, and
becomes a set of numbers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import ItemsView, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from mapek_runtime.store.attributes import as_dict
from mapek_runtime.store.model import SPAN_KINDS, STATUSES

__all__ = ["Dictionary", "OperationRow", "Operations", "SourceRow", "kind_of", "status_of"]


class OperationRow(NamedTuple):
    """A row of the operation table."""

    service: str
    name: str
    kind: str


class SourceRow(NamedTuple):
    """What a row of the source table says."""

    service: str
    resource: dict[str, Any]
    name: str
    """Of the instrumentation scope."""
    version: str
    scope: dict[str, Any]


class Operations(Mapping[int, OperationRow]):
    """Operations by their number, each read when it is asked for, and all when they are gone through.

    Where a program names its spans by what they handle there are as many as spans: what shows twenty of them
    is not to wait for all.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows: dict[int, OperationRow] = {}
        self._has_all = False

    def __getitem__(self, number: int) -> OperationRow:
        row = self._rows.get(number)
        if row is None:
            found = self._connection.execute(
                "SELECT service, name, kind FROM operation WHERE id = ?", (number,)
            ).fetchone()
            if found is None:
                raise KeyError(number)
            service, name, kind = found
            row = self._rows[number] = OperationRow(service, name, kind_of(kind))
        return row

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def items(self) -> ItemsView[int, OperationRow]:
        """All of them."""
        return self._all().items()

    def _all(self) -> dict[int, OperationRow]:
        if not self._has_all:
            rows = self._connection.execute("SELECT id, service, name, kind FROM operation")
            self._rows = {
                number: OperationRow(service, name, kind_of(kind)) for number, service, name, kind in rows
            }
            self._has_all = True
        return self._rows


class Dictionary:
    """Operations and sources as they are during one query; each is read when it is first asked for."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @cached_property
    def operations(self) -> Operations:
        """Operations by their number."""
        return Operations(self._connection)

    @cached_property
    def sources(self) -> dict[int, SourceRow]:
        """Sources by their number."""
        rows = self._connection.execute("SELECT id, service, resource, scope FROM source")
        return {number: _source(service, resource, scope) for number, service, resource, scope in rows}


def kind_of(number: int) -> str:
    """The word for a kind; a number that OTLP does not know is unspecified."""
    return SPAN_KINDS[number] if 0 <= number < len(SPAN_KINDS) else SPAN_KINDS[0]


def status_of(number: int) -> str:
    """The word for a status; a number that OTLP does not know is unset."""
    return STATUSES[number] if 0 <= number < len(STATUSES) else STATUSES[0]


@lru_cache(maxsize=1024)
def _source(service: str, resource: bytes, scope: bytes) -> SourceRow:
    library = InstrumentationScope.FromString(scope)
    return SourceRow(
        service,
        as_dict(Resource.FromString(resource).attributes),
        library.name,
        library.version,
        as_dict(library.attributes),
    )
