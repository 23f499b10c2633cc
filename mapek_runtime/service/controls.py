"""What the buttons of the page do: make and clear faults, halt and resume the loops.

Faults of the page have numbers of their own and are told apart from those of `--chaos`, which clears its
own. All of them are cleared when the block is left.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mapek_runtime.errors import ConfigError, MapekError
from mapek_runtime.loop import Fault, FaultInjector
from mapek_runtime.loop.domain import NamesTargets
from mapek_runtime.web.state import ControlRefused, Offered

from .faults import FaultsInForce
from .state import halt, halt_file, resume

__all__ = ["FIRST_NUMBER", "RunControls"]

logger = logging.getLogger(__name__)

FIRST_NUMBER = 1_000_001
"""Of the faults of the page: further than any schedule counts."""
_LONGEST = 3600.0
_MOST = 32
_LAST_CLEAR = 2.0
_LONGEST_REASON = 500


@dataclass(slots=True)
class _Made:
    fault: Fault
    injector: FaultInjector
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is made or cleared: each waits for the end of the other."""
    told: bool = False
    """Whether it was told that it is in force."""
    timer: asyncio.Task[None] | None = None


class RunControls:
    """Implements `Controls` over the domains that can make faults and the halt file in `folder`.

    Raises `ControlRefused` with what is wrong and what would be right. `allowed` is `web.control`.
    """

    def __init__(
        self,
        *,
        injectors: Callable[[], Sequence[FaultInjector]],
        in_force: FaultsInForce,
        folder: Path,
        emit: Callable[[str, Mapping[str, Any]], None],
        allowed: bool = True,
    ) -> None:
        self._injectors = injectors
        self._in_force = in_force
        self._folder = folder
        self._emit = emit
        self._allowed = allowed
        self._made: dict[int, _Made] = {}
        self._count = 0
        self._open = False
        self._halting = asyncio.Lock()

    async def __aenter__(self) -> RunControls:
        self._open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        timers = [made.timer for made in self._made.values() if made.timer is not None]
        for timer in timers:
            timer.cancel()
        if timers:
            await asyncio.wait(timers)
        async with asyncio.TaskGroup() as group:
            for number in tuple(self._made):
                group.create_task(self._end(number), name=f"clear fault {number}")

    def offered(self) -> Offered:
        """Which buttons there are."""
        if not (self._allowed and self._open):
            return Offered(faults=False, halt=self._allowed)
        targets: dict[str, tuple[str, ...]] = {}
        for injector in self._injectors():
            for kind in injector.kinds():
                names = tuple(injector.targets(kind)) if isinstance(injector, NamesTargets) else ()
                targets[kind] = (*targets.get(kind, ()), *names)
        return Offered(faults=bool(targets), halt=True, kinds=tuple(targets), targets=targets)

    async def inject(self, kind: str, target: str, seconds: float | None) -> int:
        """Make a fault that clears itself after `seconds`, and give its number."""
        self._check()
        injectors = self._injectors()
        if not injectors:
            raise ControlRefused(
                "no running domain can make faults; the embedded mesh can, as a demonstration: "
                "`mapek run` without --config, or with --nodes 5"
            )
        injector = next((each for each in injectors if kind in each.kinds()), None)
        if injector is None:
            kinds = ", ".join(each for one in injectors for each in one.kinds())
            raise ControlRefused(f"kind is {kind[:64]!r}; it must be one of {kinds}", status=400)
        if seconds is not None and not 0 < seconds <= _LONGEST:
            raise ControlRefused(
                f"seconds is {seconds!r}; it must be more than 0 and at most {_LONGEST:g}", status=400
            )
        if len(self._made) >= _MOST:
            raise ControlRefused(f"{_MOST} faults of the page are in force; clear one first")
        already = self._in_force.on(target)
        if already is None and any(made.fault.target == target for made in self._made.values()):
            raise ControlRefused(f"{target} is being changed at this moment; try again")
        if already is not None:
            # To clear one of two faults of a link would mend both.
            by = "of --chaos" if already.by == "chaos" else "of the page"
            raise ControlRefused(
                f"{target} has the fault {already.kind} {by} already; wait until it is cleared, "
                "or choose another target"
            )
        self._count += 1
        number = FIRST_NUMBER - 1 + self._count
        now = asyncio.get_running_loop().time()
        fault = Fault(number=number, kind=kind, target=target, at=now, duration=seconds or 0.0)
        # Before it is made: it must be cleared even if the making is cut off.
        made = self._made[number] = _Made(fault, injector)
        try:
            async with made.changing:
                await injector.inject(fault)
        except MapekError as error:
            self._made.pop(number, None)
            raise ControlRefused(str(error), status=400) from None
        except asyncio.CancelledError:
            self._end_soon(made)
            raise
        except Exception:
            logger.exception("fault %d (%s on %s) could not be made", number, kind, target)
            # What there is of it goes too.
            await self._end(number)
            raise ControlRefused(f"{kind} on {target} could not be made; the log says why") from None
        if not self._open:
            await self._end(number)
            raise ControlRefused("the run ends")
        made.told = True
        self._emit(
            "fault.injected",
            {"number": number, "kind": kind, "target": target, "seconds": seconds, "by": "page"},
        )
        if seconds is not None:
            self._end_soon(made, seconds)
        return number

    async def clear(self, number: int) -> None:
        """Take a fault of the page away."""
        self._check()
        made = self._made.get(number)
        if made is None:
            other = self._in_force.numbered(number)
            if other is not None:
                raise ControlRefused(
                    f"{other.kind} on {other.target} was made by --chaos, which clears it itself"
                    + (f" {other.seconds:g} s after it was made" if other.seconds else "")
                )
            raise ControlRefused(f"no fault in force has the number {number}", status=404)
        if not await self._end(number):
            raise ControlRefused(
                f"{made.fault.kind} on {made.fault.target} could not be cleared; the log says why", status=409
            )

    async def halt(self, reason: str) -> None:
        """From the next cycle on no loop acts; a reason that is empty says that it was the page."""
        self._check_allowed()
        legible = "".join(sign if sign.isprintable() else " " for sign in reason)
        said = " ".join(legible.split())[:_LONGEST_REASON] or "halted from the page"
        try:
            # Two at once would take the file from each other.
            async with self._halting:
                await asyncio.to_thread(halt, self._folder, said)
        except ConfigError as error:
            raise ControlRefused(str(error)) from None
        self._emit("halted", {"reason": said})

    async def resume(self) -> None:
        """Let the loops act again."""
        self._check_allowed()
        try:
            async with self._halting:
                was_halted = await asyncio.to_thread(resume, self._folder)
        except ConfigError as error:
            raise ControlRefused(str(error)) from None
        if not was_halted:
            raise ControlRefused("the loops are not halted")
        self._emit("resumed", {})

    async def halted(self) -> str | None:
        """Why the loops are halted, whoever did it; None when they may act."""
        return await asyncio.to_thread(_read, halt_file(self._folder))

    def _check_allowed(self) -> None:
        if not self._allowed:
            raise ControlRefused("the page may not change this run: web.control is false", status=403)

    def _check(self) -> None:
        self._check_allowed()
        if not self._open:
            raise ControlRefused("the run is not running: it starts or it ends")

    def _end_soon(self, made: _Made, seconds: float = 0.0) -> None:
        # In an empty context: what it does belongs to no request.
        made.timer = asyncio.get_running_loop().create_task(
            self._end_after(made.fault.number, seconds),
            name=f"fault {made.fault.number}",
            context=contextvars.Context(),
        )

    async def _end_after(self, number: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._end(number)

    async def _end(self, number: int) -> bool:
        """Clear a fault and tell it; False when that failed, which is logged."""
        made = self._made.get(number)
        if made is None:
            return True
        fault = made.fault
        try:
            async with asyncio.timeout(_LAST_CLEAR), made.changing:
                if self._made.get(number) is not made:
                    # Somebody else has cleared it meanwhile.
                    return True
                await made.injector.clear(fault)
                del self._made[number]
        except Exception:
            logger.exception("fault %d (%s on %s) could not be cleared", number, fault.kind, fault.target)
            return False
        if made.timer is not None and made.timer is not asyncio.current_task():
            made.timer.cancel()
        if made.told:
            self._emit("fault.cleared", {"number": number, "kind": fault.kind, "target": fault.target})
        return True


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip() or "no reason given"
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return f"{path} cannot be read ({error}); the loops stay careful"
