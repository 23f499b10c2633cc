"""What can be set: the leaves of a tree of structs, with type, default and docstring."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import msgspec.inspect

from .secrecy import LISTS, alternatives, is_discreet, is_marked, strip_secrets

__all__ = [
    "Leaf",
    "describe_type",
    "is_list",
    "is_struct",
    "leaves",
    "takes_text",
    "takes_words",
    "variable_of",
]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting: its dotted path, its type, its default and the struct that declares it."""

    path: str
    type: Any
    default: Any
    owner: type[msgspec.Struct]

    @property
    def doc(self) -> str:
        """What its docstring says; read from the source file, so not on a running loop."""
        return _docstrings(self.owner).get(self.path.rpartition(".")[2], "")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.path)

    @property
    def secret(self) -> bool:
        """Whether its value is never shown; declared with `msgspec.Meta(extra={"secret": True})`."""
        return is_marked(msgspec.inspect.type_info(self.type), "secret")

    @property
    def discreet(self) -> bool:
        """Whether a value of it may hold something that is not shown."""
        return is_discreet(msgspec.inspect.type_info(self.type))

    def shown(self, value: Any) -> Any:
        """A value of it, right or wrong, without what is secret in it: for screens, errors and log lines."""
        return strip_secrets(value, msgspec.inspect.type_info(self.type))


def variable_of(path: str) -> str:
    """The environment variable of a dotted path: `loop.guard.cooldown` → `MAPEK_LOOP_GUARD_COOLDOWN`."""
    return "MAPEK_" + path.replace(".", "_").upper()


def takes_words(kind: Any) -> bool:
    """Whether a type is, or may be, a list that a variable can hold as `a,b`."""
    infos = alternatives([msgspec.inspect.type_info(kind)])
    return any(isinstance(info, LISTS) for info in infos)


def takes_text(kind: Any) -> bool:
    """Whether a type is text and nothing else, so that `[` is a character like any other."""
    info = msgspec.inspect.type_info(kind)
    return isinstance(
        info.type if isinstance(info, msgspec.inspect.Metadata) else info, msgspec.inspect.StrType
    )


def is_list(kind: Any) -> bool:
    """Whether a type is a list and nothing else."""
    info = msgspec.inspect.type_info(kind)
    return isinstance(info.type if isinstance(info, msgspec.inspect.Metadata) else info, LISTS)


def is_struct(kind: Any) -> bool:
    """Whether a type is a struct, and so a section."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def leaves(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[Leaf]:
    """The settings of a struct and of the structs in it, in their order."""
    hints = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        path = f"{prefix}.{field.name}" if prefix else field.name
        kind = hints[field.name]
        if is_struct(kind):
            yield from leaves(kind, path)
            continue
        default: Any = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        yield Leaf(path, kind, default, struct)


@functools.cache
def _docstrings(struct: type) -> dict[str, str]:
    # The string after an attribute is not kept at run time, so it is read from the source.
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(struct)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
    for node, after in itertools.pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[node.target.id] = " ".join(after.value.value.split())
    return found


def describe_type(kind: Any) -> str:
    """What a value of that type looks like, in words: `a number above 0`."""
    return _describe(msgspec.inspect.type_info(kind))


def _describe(info: msgspec.inspect.Type) -> str:
    if isinstance(info, msgspec.inspect.Metadata):
        return str((info.extra or {}).get("words") or _describe(info.type))
    match info:
        case msgspec.inspect.UnionType(types=types) | msgspec.inspect.TupleType(item_types=types):
            return _describe_several(info, types)
        case msgspec.inspect.IntType():
            return "a whole number" + _bounds(info)
        case msgspec.inspect.FloatType():
            return "a number" + _bounds(info)
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.StrType(min_length=least, max_length=most, pattern=pattern):
            words = "text"
            if least or most:
                words += f" of {least or 0} to {most} characters" if most else " that is not empty"
            return words + (f" matching {pattern}" if pattern else "")
        case msgspec.inspect.LiteralType(values=values):
            return "one of " + ", ".join(repr(value) for value in values)
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            return f"a list of {_describe(item)}"
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return f"a table of {_describe(key)} = {_describe(value)}"
        case _:
            return type(info).__name__.removesuffix("Type").lower()


def _bounds(info: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    words = []
    for bound, word in ((info.gt, "above"), (info.ge, "from"), (info.lt, "below"), (info.le, "to")):
        if bound is not None:
            words.append(f"{word} {int(bound) if bound == int(bound) else bound}")
    return " " + " ".join(words) if words else ""


def _describe_several(info: msgspec.inspect.Type, types: tuple[msgspec.inspect.Type, ...]) -> str:
    match types:
        case _ if isinstance(info, msgspec.inspect.TupleType):
            return "a list of " + ", ".join(_describe(each) for each in types)
        case (one, msgspec.inspect.VarTupleType(item_type=item)) if one == item:
            return f"{_describe(one)}, or a list of these"
        case _:
            return " or ".join(
                "unset" if isinstance(each, msgspec.inspect.NoneType) else _describe(each) for each in types
            )
