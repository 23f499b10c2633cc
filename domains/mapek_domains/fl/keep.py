"""The model of a node on disk, so that a process that starts again begins with it.

A file is four letters and a version, the digest of the rest, and the model as it travels. One that is not
that, or is of another kind or shape of model, is set aside and not looked at again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from .aggregate import refusal
from .learner import Weights
from .wire import MOST, Model, Version, WireError, arrays, decode, encode, weights_of

__all__ = ["load", "path_of", "save"]

_HEAD = b"MKFL\x01"
_DIGEST = 16


def path_of(state: Path, node_id: str) -> Path:
    """Where the model of a node is kept."""
    # A node's name is free text; its file must stay in the folder.
    name = "".join(c if c.isalnum() or c in "-_." else f"%{ord(c):02x}" for c in node_id)
    return state / "fl" / f"{name.lstrip('.') or '%2e'}.model"


def save(path: Path, version: Version, kind: str, weights: Weights) -> None:
    """Keep a model in place of the one before; raises OSError, and then the one before is still there."""
    frame = encode(Model(version, kind, arrays(weights)))
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(_HEAD + _digest(frame) + frame)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def load(
    path: Path, kind: str, like: Weights, *, on_broken: Callable[[str], None] = lambda _reason: None
) -> tuple[Version, Weights] | None:
    """The model that was kept; None where there is none, or none that can be used.

    A file that cannot be used is renamed, and `on_broken` told why. Raises OSError for one that cannot be
    read.
    """
    try:
        if path.stat().st_size > len(_HEAD) + _DIGEST + MOST:
            raise WireError("too_long")
        return _read(path.read_bytes(), kind, like)
    except FileNotFoundError:
        return None
    except WireError as error:
        path.replace(path.with_name(f"{path.name}.broken"))
        on_broken(error.reason)
        return None


def _read(content: bytes, kind: str, like: Weights) -> tuple[Version, Weights]:
    head, rest = content[: len(_HEAD)], content[len(_HEAD) :]
    if head != _HEAD:
        raise WireError("not_ours")
    digest, frame = rest[:_DIGEST], rest[_DIGEST:]
    if digest != _digest(frame):
        raise WireError("digest")
    model = decode(frame)
    if not isinstance(model, Model):
        raise WireError("invalid")
    if model.kind != kind:
        raise WireError("kind")
    weights = weights_of(model.model)
    reason = refusal(weights, 1, like=like)
    if reason is not None:
        raise WireError(reason)
    return model.version, weights


def _digest(frame: bytes) -> bytes:
    return hashlib.blake2b(frame, digest_size=_DIGEST).digest()
