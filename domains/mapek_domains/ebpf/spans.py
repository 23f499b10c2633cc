"""Spans of programs in the kernel (eBPF)."""

from __future__ import annotations

from typing import Annotated

from mapek_runtime import Key, SpanGroup

__all__ = ["ebpf", "kprobe_trigger", "perfbuf_read", "program_compilation", "program_execution"]

Program = Annotated[str, Key("program")]
Kernel = Annotated[str, Key("kernel")]
Events = Annotated[int, Key("events")]
Probe = Annotated[str, Key("probe")]
Function = Annotated[str, Key("function")]
Buffer = Annotated[str, Key("buffer")]

ebpf = SpanGroup("ebpf")


@ebpf.span("compile")
def program_compilation(program_name: Program, kernel_version: Kernel) -> None:
    """A program was built for a kernel."""


@ebpf.span("execute")
def program_execution(program_name: Program, event_count: Events = 0) -> None:
    """A program ran in the kernel and saw `event_count` events."""


@ebpf.span("kprobe")
def kprobe_trigger(probe_name: Probe, kernel_function: Function) -> None:
    """A probe on a kernel function fired."""


@ebpf.span("perfbuf_read")
def perfbuf_read(buffer_name: Buffer, events_read: Events = 0) -> None:
    """Events were read from the buffer that the kernel fills."""
