"""A trace as a terminal shows it: a tree, and beside it a bar for each span on one axis of time."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from .trace_tree import Branch, TraceTree

__all__ = ["Waterfall", "show_duration"]

_BAR, _MARK = "━", "╋"
_EIGHTHS = "▏▎▍▌▋▊▉█"
_LEAST_BARS = 16
_PHASES = {"monitor": "cyan", "analyze": "blue", "plan": "magenta", "execute": "green", "knowledge": "yellow"}
"""Colours of the phases, as on the page."""
_ERROR, _CRITICAL, _OTHER, _QUIET = "red", "bold", "white", "bright_black"


class Waterfall:
    """Draws a tree into the width that there is; `title` stands above it."""

    def __init__(self, tree: TraceTree) -> None:
        self._tree = tree

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw line by line, so that a long trace begins to show at once."""
        branches = self._tree.branches
        if not branches:
            return
        width = max(40, options.max_width)
        longest = max(len(_prefix(branch)) + len(_label(branch)) for branch in branches)
        names = min(longest, max(20, width * 45 // 100))
        bars = max(_LEAST_BARS, width - names - 13)
        start, whole = self._tree.start, max(1, self._tree.end - self._tree.start)
        for branch in branches:
            line = Text(no_wrap=True, overflow="crop")
            line.append_text(_name(branch, names))
            line.append(f" {show_duration(branch.duration):>10}  ", "bold" if branch.critical else "")
            for text, style in _bar(branch, start, whole, bars):
                line.append(text, style)
            yield from line.render(console)
            yield Segment.line()


def show_duration(nanoseconds: float) -> str:
    """A duration with three digits and its unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def _name(branch: Branch, width: int) -> Text:
    prefix = _prefix(branch)
    if len(prefix) > width // 2:
        prefix = "…" + prefix[-(width // 2) + 1 :]
    name = _label(branch)
    room = width - len(prefix)
    if len(name) > room:
        name = name[: max(0, room - 1)] + "…"
    text = Text(prefix, _QUIET)
    text.append(name.ljust(room), _ERROR if branch.status == "error" else "")
    return text


def _prefix(branch: Branch) -> str:
    if not branch.guides:
        return ""
    *above, here = branch.guides
    deeper = "" if branch.depth == len(branch.guides) else f"+{branch.depth - len(branch.guides)} "
    return "".join("│ " if more else "  " for more in above) + ("├╴" if here else "└╴") + deeper


def _label(branch: Branch) -> str:
    # What a terminal would act on is not sent to it.
    name = "".join(c if c.isprintable() else " " for c in branch.name) or "(no name)"
    return f"{name} (parent {branch.parent_id} is missing)" if branch.orphan else name


def _bar(branch: Branch, start: int, whole: int, width: int) -> Iterator[tuple[str, Style]]:
    first = min(width - 1, (branch.start - start) * width // whole)
    last = min(width - 1, max(first, ((branch.end - start) * width - 1) // whole))
    length = last - first + 1
    colour = Style.parse(_colour(branch))
    yield " " * first, Style()
    marks = {min(last, max(first, (event.time - start) * width // whole)) - first for event in branch.events}
    for index in range(length):
        thin = length == 1 and branch.duration * 8 < whole // width
        sign = _EIGHTHS[0] if thin else _MARK if index in marks and length > 1 else _BAR
        yield sign, colour


def _colour(branch: Branch) -> str:
    if branch.status == "error":
        return _ERROR
    head, _, phase = branch.name.partition(".")
    colour = _PHASES.get(phase, _OTHER) if head == "mape_k" else _OTHER
    if branch.attributes.get("skipped") is True:
        colour = _QUIET
    return f"{_CRITICAL} {colour}" if branch.critical else colour
