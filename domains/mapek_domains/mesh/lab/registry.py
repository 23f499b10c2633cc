"""Which labs there are on this machine, so that a crash leaves nothing behind for ever.

Every lab has an entry, written before its first namespace is made. While a process builds or uses
the lab it holds a lock on the entry; the kernel lets go of it however the process ends. An entry
that nobody holds and that was not kept on purpose (`mapek lab up`) is stale and may be removed.
Only what an entry names is ever removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from mapek_runtime.errors import EngineUnavailable

__all__ = ["Claim", "Entry", "entries"]

REGISTRY = Path("/run/mapek-lab")
"""Beside /run/netns on purpose: private where that is private, gone after a boot as that is."""

_TOKEN = re.compile(r"[0-9a-f]{6}")
_Node = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,11}\Z")]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One lab, as written to its file."""

    token: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{6}\Z")]
    nodes: tuple[_Node, ...]
    folder: str
    """Where its sockets, pid files and logs are."""
    kept: bool = False
    """Left running on purpose."""
    remove_folder: bool = False
    """The folder was made for this lab alone."""

    def namespace(self, node: str) -> str:
        """The namespace of a node: no other lab has one of that name."""
        return f"mapek-{self.token}-{node}"


class Claim:
    """The lock on one entry; held while the lab is built or used."""

    def __init__(self, entry: Entry, descriptor: int) -> None:
        self.entry = entry
        self._descriptor = descriptor

    @classmethod
    def new(cls, nodes: tuple[str, ...], folder: Path, *, remove_folder: bool) -> Claim:
        """Write an entry of its own and lock it."""
        try:
            REGISTRY.mkdir(mode=0o700, exist_ok=True)
            while True:
                token = secrets.token_hex(3)
                flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
                with suppress(FileExistsError):
                    descriptor = os.open(REGISTRY / token, flags, 0o600)
                    break
        except OSError as error:
            raise EngineUnavailable(
                f"babel: the list of labs {str(REGISTRY)!r} cannot be written ({error}); needs root or a "
                "private /run in a user namespace"
            ) from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        claim = cls(
            Entry(token=token, nodes=nodes, folder=str(folder), remove_folder=remove_folder), descriptor
        )
        claim._write()
        return claim

    @classmethod
    def take(cls, token: str) -> Claim | None:
        """Lock an entry that exists; None while somebody else holds it, or when it cannot be read."""
        try:
            descriptor = os.open(REGISTRY / token, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            entry = msgspec.json.decode(os.pread(descriptor, 65536, 0), type=Entry)
            if entry.token == token:
                return cls(entry, descriptor)
        except (OSError, msgspec.MsgspecError):
            pass
        os.close(descriptor)
        return None

    def keep(self) -> None:
        """Leave the lab running when this process ends."""
        self.entry = msgspec.structs.replace(self.entry, kept=True)
        self._write()

    def release(self) -> None:
        """Let go; a lab that is not kept is stale from now on."""
        os.close(self._descriptor)

    def forget(self) -> None:
        """The lab is gone: take its entry away and let go."""
        (REGISTRY / self.entry.token).unlink(missing_ok=True)
        self.release()

    def _write(self) -> None:
        payload = msgspec.json.encode(self.entry)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, payload, 0)


def entries() -> Iterator[str]:
    """The tokens of all labs there are."""
    try:
        names = sorted(path.name for path in REGISTRY.iterdir())
    except OSError:
        return
    yield from (name for name in names if _TOKEN.fullmatch(name))
