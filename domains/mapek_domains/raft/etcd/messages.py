"""The values of `store` as etcd's messages, and back."""

from __future__ import annotations

from typing import Any

from aetcd import rpc

from .store import Compare, Delete, Deletion, KeyValue, Operation, Put

__all__ = [
    "encoded_key",
    "end_of",
    "found_in",
    "from_event",
    "from_pair",
    "to_compare",
    "to_operation",
]


def to_compare(each: Compare) -> Any:
    """A comparison of a transaction."""
    if each.what == "created":
        kind = {"target": rpc.Compare.CREATE, "create_revision": each.equals}
    elif each.what == "modified":
        kind = {"target": rpc.Compare.MOD, "mod_revision": each.equals}
    else:
        kind = {"target": rpc.Compare.VERSION, "version": each.equals}
    return rpc.Compare(key=encoded_key(each.key), result=rpc.Compare.EQUAL, **kind)


def to_operation(each: Operation) -> Any:
    """An operation of a transaction."""
    if isinstance(each, Put):
        put = rpc.PutRequest(key=encoded_key(each.key), value=each.value, lease=each.lease)
        return rpc.RequestOp(request_put=put)
    if isinstance(each, Delete):
        delete = rpc.DeleteRangeRequest(key=encoded_key(each.key), prev_kv=True)
        return rpc.RequestOp(request_delete_range=delete)
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=encoded_key(each.key)))


def found_in(response: Any) -> KeyValue | None:
    """What the answer to one operation holds, as `Answer.found` says."""
    which = response.WhichOneof("response")
    if which == "response_range":
        pairs = response.response_range.kvs
    elif which == "response_delete_range":
        pairs = response.response_delete_range.prev_kvs
    else:
        return None
    return from_pair(pairs[0]) if pairs else None


def from_pair(pair: Any) -> KeyValue:
    """A key as etcd has it."""
    return KeyValue(
        key=pair.key.decode(errors="surrogateescape"),
        value=pair.value,
        created=pair.create_revision,
        modified=pair.mod_revision,
        version=pair.version,
        lease=pair.lease,
    )


def from_event(event: Any) -> KeyValue | Deletion:
    """What a watch tells of one key."""
    if event.type == rpc.Event.DELETE:
        return Deletion(event.kv.key.decode(errors="surrogateescape"), event.kv.mod_revision)
    return from_pair(event.kv)


def encoded_key(key: str) -> bytes:
    """A key in bytes, with what was escaped."""
    return key.encode(errors="surrogateescape")


def end_of(prefix: str) -> bytes:
    """The end of the range of all keys that begin with `prefix`."""
    encoded = encoded_key(prefix)
    return encoded[:-1] + bytes((encoded[-1] + 1,))
