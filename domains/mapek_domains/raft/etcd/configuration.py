"""What all nodes are configured with: a key whose version, which etcd counts, is the epoch.

A change is written where the version is the one that was expected, so that of two changes at a time one is
second. When the answer to it was lost, etcd's history says whether it was done.
"""

from __future__ import annotations

import secrets

from mapek_domains.raft import spans
from mapek_runtime.errors import MapekError, NoConsensus

from .store import Answer, Compacted, Compare, Get, KeyValue, Put, Store
from .values import Configured, Keys, Refused, decoded, encoded
from .view import View

__all__ = ["Configuration"]


class Configuration:
    """What is agreed upon under a name. Bound each call: it waits until etcd has answered."""

    def __init__(self, store: Store, view: View, keys: Keys) -> None:
        self._store = store
        self._view = view
        self._keys = keys

    def known(self, name: str) -> tuple[str, int]:
        """See `Consensus.configured`."""
        found = self._view.configuration.known.get(name)
        return ("", 0) if found is None else (found.value.value, found.key.version)

    async def configure(self, name: str, value: str, *, expected: int | None = None) -> int:
        """See `Consensus.configure`; the value that it has already is no change."""
        path, request = self._keys.configuration + name, secrets.token_hex(8)
        written = encoded(Configured(value=value, request=request))
        known, version = self.known(name)
        if expected not in (None, version):
            known, version = "", expected or 0
        while True:
            # What is known may be old: etcd says whether it still is so, without being changed.
            same = version > 0 and known == value
            answer = await self._transact(path, version, None if same else written)
            if answer.succeeded:
                if same:
                    return version
                await self._view.reached(answer.revision)
                return version + 1
            found = answer.found[0]
            if found is not None and answer.attempts > 1:
                done = await self._was_done(found, version + 1, request)
                if done:
                    await self._view.reached(done)
                    return version + 1
            known, version = self._read(found)
            if expected not in (None, version):
                raise MapekError(
                    f"configuration {name!r} is of epoch {version}, and {expected} was expected; look at "
                    "what it is now before changing it"
                )

    def _read(self, found: KeyValue | None) -> tuple[str, int]:
        if found is None:
            return "", 0
        try:
            return decoded(found.value, Configured).value, found.version
        except Refused as refused:
            raise MapekError(
                f"etcd has under {found.key} what is not this runtime's, and it is left alone: {refused}"
            ) from None

    async def _transact(self, path: str, version: int, written: bytes | None) -> Answer:
        guard, put = Compare(path, "version", version), () if written is None else (Put(path, written),)
        with spans.commit_entries(1, 0) as span:
            answer = await self._store.transact((guard,), put, (Get(path),))
            span.set(entries_count=int(answer.succeeded) * len(put), commit_index=answer.revision)
        return answer

    async def _was_done(self, found: KeyValue, version: int, request: str) -> int:
        """The revision at which that request wrote that version of the key; 0 when another one did."""
        pair: KeyValue | None = found
        try:
            while pair is not None and pair.version > version:
                pair = await self._store.read_at(pair.key, pair.modified - 1)
        except Compacted:
            raise NoConsensus(
                f"etcd has compacted the history in which it stands whether {found.key} was configured"
            ) from None
        if pair is None or pair.version != version:
            return 0
        try:
            mine = decoded(pair.value, Configured).request == request
        except Refused:
            mine = False
        return pair.modified if mine else 0
