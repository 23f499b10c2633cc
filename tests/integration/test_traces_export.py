"""`mapek traces export`: what is in the store is in the file, for tools that know nothing of us."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mapek_runtime.store import TraceStore
from mapek_runtime.store.otlp_json import from_json
from mapek_runtime.store.query import parse
from tests.unit.store.filling import NOW, SECOND, attribute, request, span

from .running import environment

LIMIT = 60.0
MS = 1_000_000


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def everything() -> Span:
    """A span that has something of everything."""
    values = {
        "text": 'ü "quoted"', "number": (1 << 62) + 1, "ratio": 0.5, "endless": math.inf, "yes": True,
        "bytes": b"\x00\xff", "list": ["a", "b"],
    }  # fmt: skip
    made = span(
        7, 2, 1, name="shop.pay", start=NOW + 123, duration=5 * MS, status=2, kind=3, attributes=values
    )
    made.status.message = "declined"
    made.events.add(name="retry", time_unix_nano=NOW + 200).attributes.append(attribute("attempt", 2))
    made.links.add(trace_id=(9).to_bytes(16, "big"), span_id=(8).to_bytes(8, "big"))
    return made


@pytest.fixture(scope="module")
async def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "traces.sqlite"
    async with TraceStore(path, max_age=1e10) as store:
        await store.send(request(span(7, 1, name="shop.order", start=NOW), everything(), region="north"), 2)
        for part in range(25):
            many = [
                span(100 + part, i + 1, name="many", start=NOW + (part * 1000 + i + 1) * SECOND)
                for i in range(1000)
            ]
            await store.send(request(*many, service="loop"), len(many))
        # Sent again, as a sender does that has heard no answer.
        await store.send(request(everything(), region="north"), 1)
    return path


async def export(file: Path, *arguments: str, store: Path, folder: Path) -> tuple[int, str, str]:
    async with asyncio.timeout(LIMIT):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapek_runtime.service.cli", "traces", "export", str(file), *arguments,
            "--store", str(store), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment(folder, COLUMNS="160"),
        )  # fmt: skip
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


def columns(file: Path) -> Any:
    # pyarrow has no types.
    return pytest.importorskip("pyarrow.parquet").read_table(file)


async def test_parquet_has_a_row_for_each_span_with_everything_in_it(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "spans.parquet"

    code, output, errors = await export(file, store=path, folder=tmp_path)

    assert (code, errors) == (0, "")
    assert output.startswith(f"25,002 spans in {file}")
    table = columns(file)
    assert table.num_rows == 25_002
    assert [str(table.schema.field(name).type) for name in ("start", "duration_ns", "attributes")] == [
        "timestamp[ns, tz=UTC]", "int64", "string",
    ]  # fmt: skip
    assert names(tmp_path) == ["spans.parquet"]
    rows = table.drop_columns(["start"]).slice(0, 2).to_pylist()
    (root, paid) = sorted(rows, key=lambda row: row["span_id"])
    assert (root["parent_id"], paid["parent_id"]) == (None, f"{1:016x}")
    assert (paid["trace_id"], paid["span_id"]) == (f"{7:032x}", f"{2:016x}")
    assert (paid["service"], paid["name"], paid["kind"]) == ("shop", "shop.pay", "client")
    assert (paid["status"], paid["status_message"], paid["scope"]) == ("error", "declined", "tests")
    assert paid["duration_ns"] == 5 * MS
    starts = table.column("start").cast("int64").to_pylist()
    assert starts[:2] == [NOW, NOW + 123]
    assert json.loads(paid["attributes"]) == {
        "text": 'ü "quoted"', "number": (1 << 62) + 1, "ratio": 0.5, "endless": "inf", "yes": True,
        "bytes": "AP8=", "list": ["a", "b"],
    }  # fmt: skip
    assert json.loads(paid["resource"]) == {"service.name": "shop", "region": "north"}
    assert json.loads(paid["events"]) == [{"name": "retry", "time": NOW + 200, "attributes": {"attempt": 2}}]
    assert json.loads(paid["links"]) == [{"trace_id": f"{9:032x}", "span_id": f"{8:016x}", "attributes": {}}]


async def test_lines_of_otlp_are_what_any_store_takes_again(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"

    code, _, errors = await export(file, "{ span.text != nil }", store=path, folder=tmp_path)
    again = tmp_path / "again.sqlite"
    async with TraceStore(again, max_age=1e10) as store:
        for line in file.read_bytes().splitlines():
            message, problems = from_json(line)
            assert not problems
            await store.send(message.SerializeToString(), 1)
        stored = await store.trace(f"{7:032x}")
        whole = await store.durations(parse(""))

    assert (code, errors) == (0, "")
    assert stored is not None
    assert [each.span_id for each in whole.spans] == [f"{2:016x}"]
    assert everything().events[0].SerializeToString() in stored.data


@pytest.mark.slow
async def test_a_query_and_a_time_choose_what_is_written(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    since = datetime.fromtimestamp(NOW // SECOND + 101, UTC).isoformat()
    until = datetime.fromtimestamp(NOW // SECOND + 2101, UTC).isoformat()

    code, output, _ = await export(
        file, 'service="loop"', "--since", since, "--until", until, store=path, folder=tmp_path
    )

    starts = [
        int(one["startTimeUnixNano"])
        for line in file.read_bytes().splitlines()
        for group in msgspec.json.decode(line)["resourceSpans"]
        for scoped in group["scopeSpans"]
        for one in scoped["spans"]
    ]
    assert (code, output.split()[0]) == (0, "2,000")
    assert starts == [NOW + second * SECOND for second in range(101, 2101)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "query", "code", "words"),
    [
        ("spans.csv", "", 2, "ends in '.csv'; it must end in .parquet, or in .jsonl"),
        ("spans", "", 2, "ends in ''; it must end in .parquet"),
        ("spans.jsonl", "name = ", 2, "column"),
        ("away/spans.jsonl", "", 1, "cannot be written: No such file or directory; name a file in a folder"),
    ],
)
async def test_what_cannot_be_written_leaves_nothing_behind(
    path: Path, tmp_path: Path, name: str, query: str, code: int, words: str
) -> None:
    found, output, errors = await export(tmp_path / name, query, store=path, folder=tmp_path)

    assert (found, output) == (code, "")
    assert words in errors
    assert names(tmp_path) == []


async def test_without_pyarrow_it_is_said_how_to_get_it(path: Path, tmp_path: Path) -> None:
    # A package of that name that cannot be imported stands for none.
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "pyarrow.py").write_text("raise ModuleNotFoundError('pyarrow')\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        f"import sys; sys.path.insert(0, {str(hidden)!r}); import mapek_runtime.service.cli as it; it.main()",
        "traces", "export", str(tmp_path / "spans.parquet"), "--store", str(path),
        stderr=asyncio.subprocess.PIPE, env=environment(tmp_path),
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        _, errors = await process.communicate()

    assert process.returncode == 2
    assert b"pip install 'mapek-runtime[parquet]', or name a file that ends in .jsonl" in errors


@pytest.mark.slow
async def test_a_file_that_is_there_is_replaced_only_by_a_whole_one(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    file.write_text("before\n")

    refused, _, _ = await export(file, "name =", store=path, folder=tmp_path)
    kept = file.read_text()
    code, _, _ = await export(file, 'name="shop.pay"', store=path, folder=tmp_path)

    assert (refused, kept) == (2, "before\n")
    assert (code, len(file.read_bytes().splitlines())) == (0, 1)
