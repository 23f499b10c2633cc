"""OTLP/HTTP over TLS: who is trusted, who is refused, and what is said about it."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path

import pytest

from mapek_runtime.errors import ConfigError, TransportError
from mapek_runtime.export.batch import BatchSpanProcessor
from mapek_runtime.export.otlp.http_exporter import OTLPSpanExporter
from tests.integration.certificates import Authority, Issued, authority
from tests.integration.collector import QUICK, collector, end_spans, exporter


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return authority(tmp_path, "theirs")


def serving(issued: Issued, clients: Authority | None = None) -> ssl.SSLContext:
    """How a collector speaks TLS; one that knows an authority of clients asks for a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)
    if clients is not None:
        context.load_verify_locations(clients.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_the_authority_of_the_file_is_trusted_and_connections_are_kept(ours: Authority) -> None:
    async with (
        collector(tls=serving(ours.issue("server"))) as there,
        exporter(there.url, certificate_file=ours.certificate) as sender,
    ):
        await sender.send(b"one", 1)
        await sender.send(b"two", 1)

        assert there.bodies == [b"one", b"two"]
        assert there.connections == 1


async def test_a_client_shows_its_certificate(
    ours: Authority, theirs: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = theirs.issue("client")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", ours.certificate)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", mine.certificate)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", mine.key)
    async with (
        collector(tls=serving(ours.issue("server"), clients=theirs)) as there,
        exporter(there.url) as sender,
    ):
        await sender.send(b"body", 1)

        assert there.bodies == [b"body"]


def together(issued: Issued, both: Path) -> Path:
    both.write_bytes(Path(issued.key).read_bytes() + Path(issued.certificate).read_bytes())
    return both


async def test_key_and_certificate_may_share_a_file(ours: Authority, tmp_path: Path) -> None:
    both = together(ours.issue("client"), tmp_path / "both.pem")
    async with (
        collector(tls=serving(ours.issue("server"), clients=ours)) as there,
        exporter(there.url, certificate_file=ours.certificate, client_certificate_file=both) as sender,
    ):
        await sender.send(b"body", 1)

        assert there.bodies == [b"body"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("the system's authorities only", "TLS failed: .*(self.signed|unable to get local issuer)"),
        ("another authority", "TLS failed: .*(self.signed|unable to get local issuer|verify failed)"),
        ("another host", "TLS failed: IP address mismatch"),
        ("an expired certificate", "TLS failed: certificate has expired"),
    ],
)
async def test_who_is_not_who_was_expected_is_refused_at_once(
    case: str, said: str, ours: Authority, theirs: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    trusted: str | None = ours.certificate
    server = ours.issue("server")
    match case:
        case "the system's authorities only":
            trusted = None
        case "another authority":
            server = theirs.issue("server")
        case "another host":
            server = ours.issue("server", hosts=("elsewhere",), addresses=())
        case "an expired certificate":
            server = ours.issue("server", expired=True)
    async with collector(tls=serving(server)) as there:
        sender = OTLPSpanExporter(there.url + "?key=hunter2", trusted, timeout=5, backoff=QUICK)
        processor = BatchSpanProcessor(sender)
        end_spans(processor, 3)
        await processor.aforce_flush(10)
        await processor.ashutdown(10)

        assert there.bodies == []
        assert sum(processor.statistics().dropped.values()) == 3
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("mapek")]
    assert re.search(said, line)
    assert "attempts" not in line
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (False, "TLS failed: TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        (True, "TLS failed: TLSV1_ALERT_UNKNOWN_CA"),
    ],
    ids=["no certificate", "a certificate of another authority"],
)
async def test_a_client_whom_the_collector_does_not_know_gives_up_at_once(
    own: bool, said: str, ours: Authority, theirs: Authority
) -> None:
    context = serving(ours.issue("server"), clients=ours)
    mine = theirs.issue("client") if own else None
    async with (
        collector(greeting=lambda reader, writer: refuse(context, reader, writer)) as there,
        exporter(
            there.url.replace("http://", "https://"),
            timeout=5,
            certificate_file=ours.certificate,
            client_certificate_file=mine and mine.certificate,
            client_key_file=mine and mine.key,
        ) as sender,
    ):
        with pytest.raises(TransportError, match=said) as caught:
            await sender.send(b"body", 1)

        assert not caught.value.retryable
        assert there.connections == 1


async def refuse(context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Shake hands until that fails, and say so: asyncio's own servers hang up without the alert."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    failed = False
    while not failed:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            failed = True
        writer.write(outgoing.read())
        incoming.write(await reader.read(65_536))
    await reader.read()


async def test_a_tls_address_on_a_plain_port_is_told(ours: Authority) -> None:
    async with collector() as there:
        url = there.url.replace("http://", "https://")
        async with exporter(url, timeout=0.5, certificate_file=ours.certificate) as sender:
            with pytest.raises(TransportError) as caught:
                await sender.send(b"body", 1)

        assert there.bodies == []
        # What it is depends on how the other side takes a greeting that it does not understand.
        assert caught.value.error_type in {"ClientConnectorSSLError", "ClientConnectorError", "timeout"}


async def test_a_collector_that_answers_in_plain_text_on_tls_is_told(ours: Authority) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read(1000)

    async with collector(greeting=plain) as there:
        url = there.url.replace("http://", "https://")
        async with exporter(url, timeout=5, certificate_file=ours.certificate) as sender:
            with pytest.raises(TransportError, match="TLS failed: WRONG_VERSION_NUMBER") as caught:
                await sender.send(b"body", 1)

    assert not caught.value.retryable


async def test_a_plain_address_on_a_tls_port_is_told(ours: Authority) -> None:
    async with collector(tls=serving(ours.issue("server"))) as there:
        async with exporter(there.url.replace("https://", "http://"), timeout=0.5) as sender:
            with pytest.raises(TransportError) as caught:
                await sender.send(b"body", 1)

        assert there.bodies == []
        assert re.search("not HTTP|Disconnected|reset by peer", str(caught.value))


async def test_a_handshake_that_never_ends_ends_at_the_deadline(ours: Authority) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with collector(greeting=stall) as there:
        url = there.url.replace("http://", "https://")
        async with exporter(url, timeout=0.2, certificate_file=ours.certificate) as sender:
            with pytest.raises(TransportError, match=r"no answer within 0\.2 s") as caught:
                await sender.send(b"body", 1)

    assert caught.value.error_type == "timeout"


def test_a_key_that_does_not_belong_to_its_certificate_is_refused(ours: Authority) -> None:
    one, other = ours.issue("one"), ours.issue("other")

    with pytest.raises(ConfigError, match=r"one\.pem' with the key .*other\.key' cannot be used"):
        OTLPSpanExporter(
            "https://host/v1/traces", client_certificate_file=one.certificate, client_key_file=other.key
        )


def test_files_for_tls_are_checked_for_a_plain_address_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.pem.* is not there"):
        OTLPSpanExporter("http://host/v1/traces", certificate_file=tmp_path / "missing.pem")
