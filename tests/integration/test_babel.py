"""A real Babel mesh in network namespaces: built, broken, healed by the loop, and removed.

Skipped with the reason where rights or programs are missing. Nothing here asserts how fast it is:
`python -m benchmarks.mesh` measures that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mapek_domains.mesh.babel.control import BabelControl, BabelRefused
from mapek_domains.mesh.babel.loops import BabelLoops
from mapek_domains.mesh.babel.mesh import BabelMesh
from mapek_domains.mesh.engine import link_id
from mapek_domains.mesh.lab import BabelSettings, Lab, registry, require, sweep
from mapek_domains.mesh.lab.commands import app
from mapek_domains.mesh.lab.namespace import NETNS
from mapek_domains.mesh.lab.registry import entries
from mapek_runtime.errors import EngineUnavailable

FAST = BabelSettings(hello=0.2, update=1.0)


@pytest.fixture(scope="module", autouse=True)
def rights() -> None:
    try:
        require()
    except EngineUnavailable as error:
        pytest.skip(str(error))


async def eventually(condition: Callable[[], bool], what: str, limit: float = 15.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.02)


async def converged(loops: BabelLoops) -> None:
    names = loops.mesh.lab.topology.nodes
    await eventually(
        lambda: all(node.route(other) for node in loops.mesh.nodes.values() for other in names),
        "a route from every node to every other",
    )
    # Until the detectors trust the links, they want longer runs of misses.
    await asyncio.sleep(1.0)


async def answered(lab: Lab, source: str, destination: str) -> bool:
    """Whether it is, within some seconds: nodes on the way may change their routes a moment later."""
    for _ in range(10):
        if await _answered_now(lab, source, destination):
            return True
    return False


async def _answered_now(lab: Lab, source: str, destination: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", lab.namespace(source), "ping", "-n", "-q", "-c", "3", "-i", "0.05"),
        *("-W", "1", "-I", lab.topology.identity(source), lab.topology.identity(destination)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    return await process.wait() == 0


async def test_a_silent_blackhole_is_healed_by_the_loop() -> None:
    # Hellos so slow that Babel alone would need half a minute.
    slow = BabelSettings(hello=1.0, update=4.0)
    async with Lab(settings=slow) as lab, BabelLoops(lab) as loops:
        await converged(loops)
        first = loops.mesh.nodes["n1"]
        broken = link_id("n1", first.route("n6")[1])
        blackholed = first.route("n6")[1]

        await lab.drop(broken, towards=blackholed)

        await eventually(lambda: len(loops.carried_out("drain")) > 0, "a drain")
        await eventually(
            lambda: len(first.route("n6")) == 4 and first.route("n6")[1] != blackholed, "a way round"
        )
        assert await answered(lab, "n1", "n6")
        assert {target for _, target in loops.carried_out("drain")} == {broken}
        for node in ("n1", blackholed):
            assert [r.link for r in loops.mesh.nodes[node].links() if r.drained] == [broken]
        assert tuple(sorted(("n1", blackholed))) not in first.edges()


async def test_the_command_socket_is_verified_by_what_it_did() -> None:
    async with Lab(settings=FAST) as lab:
        control = BabelControl(lab.daemons["n1"].socket)
        await control.open()
        try:
            assert set((await control.dump()).interfaces) == {"to-n2", "to-n3"}

            await control.flush_interface("to-n2")
            await control.flush_interface("to-n2")
            assert set((await control.dump()).interfaces) == {"to-n3"}

            await control.add_interface("to-n2", "rxcost 200")
            await control.add_interface("to-n2", "rxcost 300")
            state = await control.dump()
            assert set(state.interfaces) == {"to-n2", "to-n3"}
            assert state.refused == 0
            for nonsense in ("to n2", "", "x" * 16, "a\nquit"):
                with pytest.raises(BabelRefused, match="is no interface name"):
                    await control.flush_interface(nonsense)
        finally:
            await control.aclose()


async def test_both_ends_of_a_drained_link_flush_it_and_both_add_it_again() -> None:
    async with Lab(settings=FAST) as lab, BabelMesh(lab) as mesh:
        n1, n2 = mesh.nodes["n1"], mesh.nodes["n2"]
        await eventually(lambda: bool(n1.route("n6")) and ("n1", "n2") in n1.edges(), "a converged mesh")
        controls = [BabelControl(lab.daemons[node].socket) for node in ("n1", "n2")]
        for control in controls:
            await control.open()

        async def used() -> list[bool]:
            dumps = [await control.dump() for control in controls]
            return ["to-n2" in dumps[0].interfaces, "to-n1" in dumps[1].interfaces]

        # The link is dead in both directions: the other end can only learn of it by another way.
        await lab.drop("n1~n2", towards="n1")
        await lab.drop("n1~n2", towards="n2")
        try:
            assert "flushed" in await n1.drain("n1~n2")
            await eventually(lambda: any(r.link == "n1~n2" and r.drained for r in n2.links()), "n2 told")
            await asyncio.sleep(0.2)
            assert await used() == [False, False]

            await lab.heal("n1~n2")
            assert "added" in await n1.undrain("n1~n2")
            await eventually(lambda: not any(r.drained for r in n2.links()), "n2 told again")
            await eventually(lambda: ("n1", "n2") in n1.edges(), "the link in use")
            assert await used() == [True, True]
        finally:
            for control in controls:
                await control.aclose()


async def test_an_unknown_link_is_refused_with_the_links_there_are() -> None:
    async with Lab(settings=FAST) as lab, BabelMesh(lab) as mesh:
        with pytest.raises(EngineUnavailable, match="no link 'n1~n6'; it has n1~n2, n1~n3"):
            await mesh.nodes["n1"].drain("n1~n6")
        with pytest.raises(EngineUnavailable, match="'n9' is no node of this lab"):
            await mesh.nodes["n1"].restart("n9")


async def test_two_labs_do_not_meet() -> None:
    async with Lab(settings=FAST) as one, Lab(settings=FAST) as other:
        assert one.entry.token != other.entry.token
        assert not set(map(one.namespace, one.topology.nodes)) & set(
            map(other.namespace, other.topology.nodes)
        )
        await one.kill("n1")
        assert one.daemons["n1"].pid() is None
        assert other.daemons["n1"].pid() is not None


async def test_a_lab_that_is_left_leaves_nothing() -> None:
    async with Lab(settings=FAST) as lab:
        namespaces = [NETNS / lab.namespace(node) for node in lab.topology.nodes]
        pids = [daemon.pid() for daemon in lab.daemons.values()]
        token, folder = lab.entry.token, Path(lab.entry.folder)
        assert all(path.exists() for path in namespaces)

    assert not any(map(_exists, namespaces))
    assert not any(_runs(pid) for pid in pids)
    assert not _exists(folder)
    assert token not in set(entries())


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.05, 0.07])
async def test_a_lab_cancelled_while_it_is_built_leaves_nothing(
    delay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "labs")
    folder = tmp_path / "lab"
    folder.mkdir()
    before = _children()
    lab = Lab(settings=FAST, folder=folder)

    task = asyncio.create_task(lab.up())
    await asyncio.sleep(delay)
    tokens = tuple(entries())
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
        # It was quicker than the cancellation.
        await lab.down()

    assert not any((NETNS / f"mapek-{token}-n{n}").exists() for token in tokens for n in range(1, 7))
    assert tuple(entries()) == ()
    assert list(folder.iterdir()) == []
    assert _children() == before


async def test_what_a_crash_left_behind_is_swept_and_a_lab_in_use_is_not() -> None:
    script = (
        "import asyncio, os, sys\n"
        "from mapek_domains.mesh.lab import Lab\n"
        "async def main():\n"
        "    lab = Lab(); await lab.up()\n"
        "    print(lab.entry.token, lab.entry.folder, *(d.pid() for d in lab.daemons.values()), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    output, _ = await process.communicate()
    token, folder, *pids = output.decode().split()
    assert process.returncode == -signal.SIGKILL
    assert all(_runs(int(pid)) for pid in pids)

    async with Lab(settings=FAST) as in_use:
        swept = await sweep()

        assert token in swept
        assert in_use.entry.token not in swept
        assert in_use.daemons["n1"].pid() is not None
    assert not any((NETNS / f"mapek-{token}-n{n}").exists() for n in range(1, 7))
    assert not any(_runs(int(pid)) for pid in pids)
    assert not _exists(Path(folder))


def test_up_status_and_down_from_the_command_line(tmp_path: Path) -> None:
    state = ["--state", str(tmp_path / "lab")]
    cli = CliRunner()
    try:
        up = cli.invoke(app, ["up", "--hello", "0.2", "--update", "1", *state])
        again = cli.invoke(app, ["up", *state])
        status = cli.invoke(app, ["status", "--json", *state])
    finally:
        down = cli.invoke(app, ["down", *state])

    assert (up.exit_code, again.exit_code, status.exit_code, down.exit_code) == (0, 2, 0, 0), up.output
    assert "a lab is up" in again.output
    nodes = {row["node"]: row for row in json.loads(status.stdout)["nodes"]}
    assert list(nodes) == ["n1", "n2", "n3", "n4", "n5", "n6"]
    assert {n["node"] for n in nodes["n2"]["neighbours"]} == {"n1", "n4", "n5"}
    assert {r["destination"] for r in nodes["n1"]["routes"]} == {"n2", "n3", "n4", "n5", "n6"}
    assert not any(_runs(row["pid"]) for row in nodes.values())
    assert not any((NETNS / row["namespace"]).exists() for row in nodes.values())
    assert list((tmp_path / "lab").iterdir()) == []
    assert cli.invoke(app, ["status", *state]).exit_code == 2


@pytest.mark.slow
async def test_under_60_percent_loss_on_one_link_no_healthy_link_is_drained() -> None:
    async with Lab(settings=FAST) as lab, BabelLoops(lab) as loops:
        await converged(loops)
        lossy = link_id(*loops.mesh.nodes["n1"].route("n6")[:2])

        await lab.drop(lossy, towards="n1", share=0.6)
        await asyncio.sleep(30)

        assert {target for _, target in loops.carried_out("drain")} == {lossy}
        assert await answered(lab, "n1", "n6")


@pytest.mark.slow
async def test_a_link_that_is_good_again_is_used_again() -> None:
    async with Lab(settings=FAST) as lab, BabelLoops(lab) as loops:
        await converged(loops)
        n1 = loops.mesh.nodes["n1"]

        await lab.drop("n1~n2", towards="n2")
        await eventually(lambda: ("n1", "n2") not in n1.edges(), "the link out of use")
        await lab.heal("n1~n2")

        await eventually(lambda: ("n1", "n2") in n1.edges(), "the link in use again", limit=40)
        assert {target for _, target in loops.carried_out("undrain")} == {"n1~n2"}


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "healer"), [("n2", "n1"), ("n5", "n2"), ("n1", "n2")])
async def test_a_killed_daemon_is_restarted_by_its_lowest_live_neighbour(victim: str, healer: str) -> None:
    async with Lab(settings=FAST) as lab, BabelLoops(lab) as loops:
        await converged(loops)
        before = lab.daemons[victim].pid()

        await lab.kill(victim)
        await eventually(lambda: len(loops.carried_out("restart")) > 0, "a restart")

        assert loops.carried_out("restart") == ((healer, victim),)
        assert lab.daemons[victim].pid() not in (None, before)
        others = [node for name, node in loops.mesh.nodes.items() if name != victim]
        await eventually(lambda: all(node.nodes()[victim] for node in others), "the victim known to live")
        await eventually(
            lambda: all(
                node.route(victim) and loops.mesh.nodes[victim].route(node.node_id) for node in others
            ),
            "routes to the victim and from it",
            limit=40,
        )


@pytest.mark.slow
async def test_a_host_that_stalls_makes_no_link_bad() -> None:
    async with Lab(settings=FAST) as lab, BabelLoops(lab) as loops:
        await converged(loops)

        for stall in (0.1, 0.25, 0.5, 1.0, 0.15, 0.3):
            # The whole process stands still, with all nodes in it.
            time.sleep(stall)  # noqa: ASYNC251 - that is the fault
            await asyncio.sleep(0.4)

        assert loops.carried_out("drain") == ()
        assert loops.carried_out("restart") == ()


def _children() -> set[int]:
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in found if _runs(int(pid))}


def _exists(path: Path) -> bool:
    return path.exists()


def _runs(pid: int | None) -> bool:
    if pid is None:
        return False
    with contextlib.suppress(OSError):
        # A process that ended and was not fetched by its parent is gone for us.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
