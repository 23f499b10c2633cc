"""A worker that died is started again by the next cycle, and the trace says so."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from mapek_runtime.testing import Recorder, check_plugin, run_cycle, tree


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keep_alive", Path(__file__).parent / "keep_alive.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["keep_alive"] = module
    spec.loader.exec_module(module)
    return module


async def test_the_plugin_keeps_the_contract() -> None:
    async with load().KeepAlive("sleep", "60") as plugin:
        await check_plugin(plugin)


async def test_a_dead_worker_is_started_again(recorder: Recorder) -> None:
    async with load().KeepAlive("sleep", "60") as plugin:
        plugin.process.kill()
        await plugin.process.wait()
        recorder.clear()

        cycle = await run_cycle(plugin)

        assert [outcome.success for outcome in cycle.outcomes] == [True]
        assert plugin.process.returncode is None
    assert recorder.tree() == tree("""
        mape_k.cycle
          mape_k.monitor
          mape_k.analyze
          mape_k.plan
          mape_k.execute
            worker.start
          mape_k.knowledge
    """)
