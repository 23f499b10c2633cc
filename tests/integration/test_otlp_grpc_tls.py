"""OTLP over gRPC and TLS: who is trusted, who is not, and who has to say who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from mapek_runtime.errors import ConfigError, TransportError
from mapek_runtime.export.otlp.grpc_exporter import OTLPGrpcSpanExporter
from tests.integration.certificates import Authority, Issued, authority
from tests.integration.grpc_collector import exporter, grpc_collector


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return authority(tmp_path)


def read(path: str | Path) -> bytes:
    return Path(path).read_bytes()


def server(issued: Issued, clients: Authority | None = None) -> Any:
    return grpc.ssl_server_credentials(
        [(read(issued.key), read(issued.certificate))],
        root_certificates=read(clients.certificate) if clients else None,
        require_client_auth=clients is not None,
    )


async def test_a_server_of_the_given_authority_is_trusted(
    ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ours.certificate))
    async with grpc_collector(credentials=server(ours.issue("server"))) as there:
        async with exporter(f"https://{there.address}") as sender:
            await sender.send(b"body", 1)

        assert there.bodies == [b"body"]


async def test_an_address_without_a_scheme_is_secure_unless_said_otherwise(
    ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", str(ours.certificate))
    async with grpc_collector(credentials=server(ours.issue("server"))) as secure:
        async with exporter(secure.address) as sender:
            await sender.send(b"secure", 1)
        assert secure.bodies == [b"secure"]

    async with grpc_collector() as plain, exporter(plain.address, insecure=True) as sender:
        await sender.send(b"plain", 1)
        assert plain.bodies == [b"plain"]


async def test_credentials_may_be_given(ours: Authority) -> None:
    credentials = grpc.ssl_channel_credentials(read(ours.certificate))
    async with grpc_collector(credentials=server(ours.issue("server"))) as there:
        async with exporter(f"https://{there.address}", credentials=credentials) as sender:
            await sender.send(b"body", 1)

        assert there.bodies == [b"body"]


@pytest.mark.parametrize("wrong", ["authority", "expired", "name", "plain server"])
async def test_a_server_that_cannot_be_trusted_gets_nothing(
    wrong: str, ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    trusted = authority(tmp_path / "other") if wrong == "authority" else ours
    issued = ours.issue("server", expired=wrong == "expired")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(trusted.certificate))
    options = (("grpc.ssl_target_name_override", "elsewhere"),) if wrong == "name" else ()
    credentials = None if wrong == "plain server" else server(issued)
    async with grpc_collector(credentials=credentials) as there:
        async with exporter(f"https://{there.address}", timeout=0.4, channel_options=options) as sender:
            with pytest.raises(TransportError) as caught:
                await sender.send(b"body", 1)

        assert caught.value.error_type == "UNAVAILABLE"
        assert there.bodies == []


async def test_a_client_says_who_it_is(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ours.issue("client")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ours.certificate))
    async with grpc_collector(credentials=server(ours.issue("server"), ours)) as there:
        async with exporter(f"https://{there.address}", timeout=0.4) as nobody:
            with pytest.raises(TransportError, match="UNAVAILABLE"):
                await nobody.send(b"of nobody", 1)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(client.certificate))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(client.key))
        async with exporter(f"https://{there.address}") as sender:
            await sender.send(b"of the client", 1)

        assert there.bodies == [b"of the client"]


def test_files_that_cannot_be_used_are_refused(
    ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "missing.pem"))
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        OTLPGrpcSpanExporter("https://host:4317")

    (tmp_path / "broken.pem").write_text("no certificate")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "broken.pem"))
    with pytest.raises(ConfigError, match=r"broken\.pem"):
        OTLPGrpcSpanExporter("https://host:4317")


def test_files_are_left_alone_where_nothing_is_secured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "missing.pem")

    assert OTLPGrpcSpanExporter("http://host:4317").endpoint == "http://host:4317"


def test_credentials_for_an_insecure_connection_are_a_mistake() -> None:
    with pytest.raises(ConfigError, match="https://"):
        OTLPGrpcSpanExporter("http://host:4317", credentials=grpc.ssl_channel_credentials())
