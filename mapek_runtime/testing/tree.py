"""Traces as a drawing: one line a span, children indented below their parent.

    mape_k.cycle success=true
      mape_k.monitor metrics_count=3
        mesh.node_discovery nodes_discovered=...

A word `key=value` is an attribute. Facts of the span itself begin with `@`: `@status=error`,
`@kind=client`, `@events=[finding,retry]`, `@links=[mape_k.cycle#1]` (the name of the other span and
the number of its trace). `...` stands for any value. A span that has not ended is marked `(open)`.
Text that would read as something else, or holds blanks, is quoted as in JSON.
"""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Node", "Tree", "render", "tree"]

ANY = "..."
OPEN = "(open)"

_BARE = re.compile(r"[^\s\"\[\]{}=,]+")
_QUOTED = r'"(?:\\.|[^"\\])*"'
_TOKEN = re.compile(rf'\(open\)|(?P<key>[^\s=]+)=(?P<value>{_QUOTED}|\[(?:{_QUOTED}|[^\]"])*\]|\S*)')


@dataclass(frozen=True, slots=True)
class Node:
    """A span in a drawing; `facts` are the words behind its name, as text."""

    name: str
    facts: Mapping[str, str] = field(default_factory=dict)
    children: Sequence[Node] = ()
    is_open: bool = False


class Tree:
    """One or several traces, drawn.

    Two trees are equal when they draw the same. Where one was recorded and the other was written
    down, the recorded one is compared by the attributes that the written one names, and by those it
    was itself asked for.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, roots: Sequence[Node], *, asked: Iterable[str] | None = None) -> None:
        self.roots = tuple(roots)
        self.asked = None if asked is None else tuple(asked)
        """The attributes a recorded tree was asked for; None for a tree that was written down."""

    def lines(self, *, beside: Tree | None = None) -> list[str]:
        """The drawing; `beside` a written tree, with the attributes that are named there."""
        others = beside.roots if beside is not None else ()
        return [line for root, other in _aligned(self.roots, others) for line in self._draw(root, other, 0)]

    def difference(self, written: Tree) -> list[str]:
        """How this tree differs from `written`: lines with `-` are missing, with `+` unexpected."""
        changes = difflib.ndiff(written.lines(), self.lines(beside=written))
        return [line for line in changes if not line.startswith("?")]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        if other.asked is None:
            return self.lines(beside=other) == other.lines()
        if self.asked is None:
            return other == self
        return self.lines() == other.lines()

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return 'tree("""\n' + textwrap.indent(str(self), "    ") + '\n""")'

    def _draw(self, node: Node, other: Node | None, depth: int) -> list[str]:
        keys = [*node.facts] if self.asked is None else [*self.asked]
        hidden: Mapping[str, str] = {}
        if other is not None and self.asked is not None:
            # In the order of the written line, so that the order of words does not matter.
            keys = [*other.facts, *(key for key in keys if key not in other.facts)]
            hidden = {key: value for key, value in other.facts.items() if value == ANY}
        words = [f"{key}={hidden.get(key, node.facts[key])}" for key in keys if key in node.facts]
        if node.is_open:
            words.append(OPEN)
        lines = [" ".join(["  " * depth + node.name, *words])]
        for child, its_other in _aligned(node.children, other.children if other is not None else ()):
            lines.extend(self._draw(child, its_other, depth + 1))
        return lines


def tree(drawing: str) -> Tree:
    """The tree that `drawing` shows, to compare a recorded one with.

    Raises ValueError for a line that cannot be read or is indented under nothing.
    """
    roots: list[Node] = []
    above: list[tuple[int, list[Node]]] = []
    for line in textwrap.dedent(drawing).splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] >= indent:
            above.pop()
        if indent and not above:
            raise ValueError(f"{line!r} is indented under no span")
        children: list[Node] = []
        (above[-1][1] if above else roots).append(_parse(line.strip(), children))
        above.append((indent, children))
    return Tree(roots)


def render(value: Any) -> str:
    """An attribute value as it stands in a drawing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) and not _reads_as_other(value) else json.dumps(value)
    if isinstance(value, Sequence):
        return "[" + ",".join(render(item) for item in value) + "]"
    return json.dumps(str(value))


def _reads_as_other(text: str) -> bool:
    if text in {"true", "false", ANY}:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse(line: str, children: list[Node]) -> Node:
    name, _, rest = line.partition(" ")
    facts: dict[str, str] = {}
    is_open = False
    position = 0
    rest = rest.strip()
    while position < len(rest):
        match = _TOKEN.match(rest, position)
        if match is None:
            raise ValueError(f"{rest[position:]!r} in {line!r} is not a word such as key=value")
        if match.group("key") is None:
            is_open = True
        else:
            value = match.group("value")
            facts[match.group("key")] = render(json.loads(value)) if value.startswith('"') else value
        position = match.end()
        while position < len(rest) and rest[position].isspace():
            position += 1
    return Node(name, facts, children, is_open)


def _aligned(nodes: Sequence[Node], others: Sequence[Node]) -> list[tuple[Node, Node | None]]:
    """Each node with the one it is to be compared with: paired in order, by name."""
    pairs: list[tuple[Node, Node | None]] = [(node, None) for node in nodes]
    names, other_names = [node.name for node in nodes], [other.name for other in others]
    for block in difflib.SequenceMatcher(None, other_names, names, autojunk=False).get_matching_blocks():
        for step in range(block.size):
            pairs[block.b + step] = (nodes[block.b + step], others[block.a + step])
    return pairs
