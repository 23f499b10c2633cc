"""Declaring spans: the signature is the schema.

    mesh = SpanGroup("mesh")

    @mesh.span("routing")
    def route_calculation(source: SourceNode, destination: str, hops: int = 0) -> None:
        "The best path between two nodes was computed."

The declaration becomes a typed factory: a call checks its arguments as any call does and gives a
`SpanScope`. The body of the function is never run. Like a dataclass's `__init__`, the factory is
compiled from the signature once, so a span costs one call and one dictionary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, Protocol, cast, get_args, get_origin, get_type_hints, overload

from opentelemetry.trace import SpanKind

from mapek_runtime.errors import SpanSpecError

from .active import LateTracer
from .late import LateScope
from .scope import SpanScope
from .span import Span
from .tracer import Tracer

__all__ = ["Key", "NodeId", "SpanFactory", "SpanGroup", "SpanSpec"]

P = ParamSpec("P")
Q = ParamSpec("Q")


@dataclass(frozen=True, slots=True)
class Key:
    """The attribute key of a parameter, carried by its annotation: `Annotated[str, Key("node_id")]`."""

    name: str


NodeId = Annotated[str, Key("node_id")]
"""The autonomic node a span speaks of."""


class SpanSpec:
    """One declared span: its name, its keys, and what is filled in at its end."""

    __slots__ = (
        "constants",
        "derived",
        "doc",
        "elapsed",
        "floats",
        "has_success",
        "keys",
        "name",
        "tracer",
        "types",
    )

    def __init__(
        self,
        name: str,
        doc: str,
        tracer: LateTracer,
        keys: Mapping[str, str],
        types: Mapping[str, Any],
        constants: Mapping[str, Any],
        derived: Mapping[str, Callable[[Mapping[str, Any]], Any]],
        elapsed: str | None,
    ) -> None:
        self.name = name
        self.doc = doc
        self.tracer = tracer
        self.keys = keys
        self.types = types
        self.floats = frozenset(parameter for parameter, kind in types.items() if kind is float)
        self.constants = constants
        self.derived = derived
        self.elapsed = elapsed
        self.has_success = "success" in keys.values()

    def late(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes for values that became known late; TypeError for an undeclared name."""
        pairs = {}
        for parameter, value in values.items():
            key = self.keys.get(parameter)
            if key is None:
                raise TypeError(
                    f"span {self.name!r} declares no {parameter!r}; it has {', '.join(self.keys)}"
                )
            if value is not None:
                pairs[key] = _number(value) if parameter in self.floats else value
        return pairs

    def scope(
        self,
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> LateScope:
        """A scope that looks for a provider when it is entered."""
        return LateScope(self, attributes, name=name, kind=kind)

    def finish(self, span: Any) -> None:
        """Fill the elapsed time, in milliseconds, where nobody gave one."""
        key = self.elapsed
        if (
            key is not None
            and type(span) is Span
            and span._start_time is not None
            and not span._attributes.get(key)
        ):
            span._attributes[key] = (span._tracer.now() - span._start_time) / 1e6


class SpanFactory(Protocol[Q]):
    """A declared span: call it with its arguments to get a scope."""

    spec: SpanSpec

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> SpanScope:
        """A scope for one span."""


class SpanGroup:
    """The spans of one component; span names are `component.operation`.

    Raises `SpanSpecError` at import when a declaration is wrong.
    """

    def __init__(self, name: str) -> None:
        if not name or name.strip(".") != name:
            raise SpanSpecError(f"span group {name!r}: a component's name is a word such as 'mesh'")
        self.name = name
        self.specs: dict[str, SpanSpec] = {}
        """Declared spans by the name of the declaring function."""
        self._tracer = LateTracer(f"mapek.{name}")

    @overload
    def span(self, declaration: Callable[P, None], /) -> SpanFactory[P]: ...

    @overload
    def span(
        self,
        operation: str | None = None,
        /,
        *,
        constants: Mapping[str, Any] | None = None,
        derived: Mapping[str, Callable[[Mapping[str, Any]], Any]] | None = None,
        elapsed: str | None = None,
    ) -> Callable[[Callable[P, None]], SpanFactory[P]]: ...

    def span(
        self,
        declaration: Callable[P, None] | str | None = None,
        /,
        *,
        constants: Mapping[str, Any] | None = None,
        derived: Mapping[str, Callable[[Mapping[str, Any]], Any]] | None = None,
        elapsed: str | None = None,
    ) -> Any:
        """Declare a span.

        `operation` is the second half of its name (the function's name by default), `constants` are
        always recorded, `derived` computes attributes from the arguments by parameter name, and
        `elapsed` names the attribute that gets the span's own duration in milliseconds when it is
        still 0 at the end.
        """
        if callable(declaration):
            return self._declare(declaration, declaration.__name__, {}, {}, None)

        def decorate(function: Callable[P, None]) -> SpanFactory[P]:
            return self._declare(
                function, declaration or function.__name__, constants or {}, derived or {}, elapsed
            )

        return decorate

    def _declare(
        self,
        function: Callable[P, None],
        operation: str,
        constants: Mapping[str, Any],
        derived: Mapping[str, Callable[[Mapping[str, Any]], Any]],
        elapsed: str | None,
    ) -> SpanFactory[P]:
        where = f"span {self.name}.{operation} ({function.__qualname__})"
        signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
        keys: dict[str, str] = {}
        types: dict[str, Any] = {}
        for parameter in signature.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise SpanSpecError(f"{where}: *{parameter.name} has no attribute key; name each parameter")
            if parameter.name not in hints:
                raise SpanSpecError(f"{where}: parameter {parameter.name!r} has no annotation")
            key, kind = _key(parameter.name, hints[parameter.name])
            if key in keys.values():
                raise SpanSpecError(f"{where}: two parameters have the key {key!r}")
            keys[parameter.name] = key
            types[parameter.name] = kind
        everything = {*keys.values(), *constants, *derived}
        if elapsed is not None:
            everything.add(elapsed)
        if function.__name__ in self.specs:
            raise SpanSpecError(f"{where}: {function.__name__} is declared twice in group {self.name!r}")
        spec = SpanSpec(
            f"{self.name}.{operation}",
            inspect.getdoc(function) or "",
            self._tracer,
            keys,
            types,
            dict(constants),
            dict(derived),
            elapsed,
        )
        self.specs[function.__name__] = spec
        factory = _compile(function, signature, spec)
        return cast("SpanFactory[P]", factory)


def _key(name: str, hint: Any) -> tuple[str, Any]:
    if get_origin(hint) is Annotated:
        kind, *extras = get_args(hint)
        for extra in extras:
            if isinstance(extra, Key):
                return extra.name, kind
        return name, kind
    return name, hint


def _number(value: Any) -> Any:
    """`value` as a float, so that an attribute has one type; as it is where it is no number."""
    if value is None:
        return None
    try:
        return float(value)
    except Exception:  # noqa: BLE001 - a method of any object; the application is not to fail for it
        return value


def _compile(
    function: Callable[..., None], signature: inspect.Signature, spec: SpanSpec
) -> Callable[..., SpanScope]:
    """A function with the declaration's signature that makes the scope."""
    names: dict[str, Any] = {
        "_spec": spec,
        "_late": spec.tracer.get,
        "_Tracer": Tracer,
        "_LateScope": LateScope,
        "_new": object.__new__,
        "_name": spec.name,
        "_kind": SpanKind.INTERNAL,
        "_float": float,
        "_number": _number,
    }
    parameters = []
    keyword_only = False
    for index, parameter in enumerate(signature.parameters.values()):
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parameters.append("*")
            keyword_only = True
        if parameter.default is parameter.empty:
            parameters.append(parameter.name)
        else:
            names[f"_default_{index}"] = parameter.default
            parameters.append(f"{parameter.name}=_default_{index}")
    values = [
        f"{key!r}: "
        # Two functions are two calls too many for what is a float nearly always.
        + (f"{name} if {name}.__class__ is _float else _number({name})" if name in spec.floats else name)
        for name, key in spec.keys.items()
    ]
    for index, (key, value) in enumerate(spec.constants.items()):
        names[f"_constant_{index}"] = value
        values.append(f"{key!r}: _constant_{index}")
    for index, (key, compute) in enumerate(spec.derived.items()):
        names[f"_derived_{index}"] = compute
        arguments = ", ".join(f"{name!r}: {name}" for name in spec.keys)
        values.append(f"{key!r}: _derived_{index}({{{arguments}}})")
    if spec.elapsed is not None and spec.elapsed not in spec.keys.values():
        values.append(f"{spec.elapsed!r}: 0.0")
    attributes = f"{{{', '.join(values)}}}"
    source = f"""
def {function.__name__}({", ".join(parameters)}):
    tracer = _late()
    if type(tracer) is not _Tracer:
        return _LateScope(_spec, {attributes})
    scope = _new(tracer.scope_class or tracer.likely_class())
    scope._tracer = tracer
    scope._name = _name
    scope._kind = _kind
    scope._attributes = {attributes}
    scope._spec = _spec
    scope._token = None
    scope._plain = {spec.elapsed is None}
    return scope
"""
    exec(source, names)  # noqa: S102 - compiled from a signature, as dataclasses does
    factory: Callable[..., SpanScope] = names[function.__name__]
    factory.__doc__ = function.__doc__
    factory.__module__ = function.__module__
    factory.__qualname__ = function.__qualname__
    factory.spec = spec  # type: ignore[attr-defined]
    return factory
