"""Raft's section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mapek_runtime.errors import ConfigError

from .etcd.settings import EtcdEngine

__all__ = ["EtcdEngine", "RaftSettings", "check_timing", "members_of"]

_Seconds = Annotated[float, msgspec.Meta(ge=0.001, le=600.0)]
_MOST_NAME = 64
_Member = Annotated[str, msgspec.Meta(min_length=1, max_length=_MOST_NAME)]
_Members = Annotated[tuple[_Member, ...], msgspec.Meta(max_length=64)]


class RaftSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Consensus: who agrees, by what engine, and how long a node waits for the others."""

    engine: Literal["embedded", "etcd"] = "embedded"
    """What keeps the log that a majority agrees on: the nodes themselves, over the mesh's links, or an etcd
    cluster, which many runtimes share."""
    members: _Members = ()
    """All nodes of the group, the same list at each of them; a majority must live. Two lists are two groups,
    so stop all nodes before you change it. Empty: the nodes of this process where it runs several; with one
    node alone nothing is agreed upon, and a warning says so."""
    heartbeat: _Seconds = 0.05
    """Seconds between the leader's signs of life; less than a third of `election_least`."""
    election_least: _Seconds = 0.3
    """Seconds without a sign of life after which the first node may stand for election."""
    election_most: _Seconds = 0.6
    """Seconds after which the last one does; each draws its own between the two."""
    patience: _Seconds = 1.0
    """Seconds that a claim waits for a majority; after them it is answered with `NoConsensus`."""
    etcd: EtcdEngine = EtcdEngine()


def check_timing(settings: RaftSettings) -> None:
    """Raises `ConfigError` for times with which no leader would stay one."""
    least, most, heartbeat = settings.election_least, settings.election_most, settings.heartbeat
    if least <= 3 * heartbeat:
        raise ConfigError(
            f"[raft] election_least is {least!r} and heartbeat is {heartbeat!r}; a node must miss more than "
            "three signs of life before it stands for election: election_least must be above "
            f"{3 * heartbeat:g}"
        )
    if most <= least:
        raise ConfigError(
            f"[raft] election_most is {most!r} and election_least is {least!r}; election_most must be above "
            "it, or all nodes stand for election at once"
        )


def members_of(settings: RaftSettings, nodes: tuple[str, ...]) -> tuple[str, ...]:
    """All nodes of the group, sorted; empty where one node alone was told of no others.

    Raises `ConfigError` for a list that names a node twice, or not the nodes of this process, and for a name
    that is too long.
    """
    long = [node for node in nodes if len(node) > _MOST_NAME]
    if long:
        raise ConfigError(
            f"[raft] {long[0]!r} has {len(long[0])} characters; a member's name has at most {_MOST_NAME}"
        )
    if not settings.members:
        return tuple(sorted(nodes)) if len(nodes) > 1 else ()
    members = set(settings.members)
    if len(members) < len(settings.members):
        raise ConfigError(
            f"[raft] members is {list(settings.members)!r}, which names a node twice; each counts once "
            "towards a majority"
        )
    strangers = [node for node in nodes if node not in members]
    if strangers:
        raise ConfigError(
            f"[raft] members is {list(settings.members)!r} and {', '.join(strangers)} is to run here; "
            "members must name every node of the group, this one too, the same list at each of them"
        )
    return tuple(sorted(members))
