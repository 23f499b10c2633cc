"""A process with one node of the etcd engine: says on lines of JSON who leads and what it manages.

    python etcd_runtime.py NODE PREFIX FLEET ENDPOINT...

FLEET is a list with commas. Only changes are told: `at` is when it was seen first, `last` when what was
before was seen last, on the clock that all processes of the machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from mapek_domains.raft.etcd.session import open_etcd
from mapek_domains.raft.etcd.settings import EtcdEngine
from mapek_domains.raft.settings import RaftSettings
from tests.integration.etcd_session import context


async def main(node: str, prefix: str, fleet: str, *endpoints: str) -> None:
    """Tell until killed."""
    targets = tuple(each for each in fleet.split(",") if each)
    engine = EtcdEngine(endpoints=endpoints, prefix=prefix, fleet=targets, dial=30.0)
    async with open_etcd(RaftSettings(engine="etcd", etcd=engine), context(node)) as session:
        before: tuple[bool, list[str]] = (False, [])
        last = time.monotonic()
        while True:
            now = session.leader(node) == node, sorted(session.owned(node))
            at = time.monotonic()
            if now != before:
                told = {"leads": now[0], "owned": now[1], "at": at, "last": last}
                sys.stdout.write(f"{json.dumps(told)}\n")
                sys.stdout.flush()
            before, last = now, at
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
