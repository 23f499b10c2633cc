"""Rules of the configuration that hold for every input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mapek_runtime.config import Settings, Sources, Value, decode, leaves, read_sources, variable_of
from mapek_runtime.errors import ConfigError

INTERVAL = "loop.interval"
_numbers = st.floats(min_value=0.001, max_value=1e6, allow_nan=False)
_toml: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_paths = st.sampled_from([leaf.path for leaf in leaves(Settings)])


def refusal(sources: Sources) -> str | None:
    try:
        decode(sources)
    except ConfigError as error:
        return str(error)
    return None


@given(
    file=st.none() | _numbers,
    variable=st.none() | _numbers,
    flag=st.none() | _numbers,
)
def test_the_strongest_layer_that_has_a_value_gives_it(
    file: float | None, variable: float | None, flag: float | None
) -> None:
    sources = Sources(
        file=Path("x.toml"),
        tree={} if file is None else {"loop": {"interval": file}},
        variables={} if variable is None else {variable_of(INTERVAL): repr(variable)},
        flags={} if flag is None else {INTERVAL: Value(flag, "--interval")},
    )

    configuration = decode(sources)

    given_ = [value for value in (flag, variable, file) if value is not None]
    assert configuration.settings.loop.interval == (given_[0] if given_ else 1.0)
    assert configuration.is_default(INTERVAL) == (not given_)


@given(
    tree=st.dictionaries(st.sampled_from(["loop", "run", "domains", "x", ""]) | st.text(max_size=5), _toml)
)
def test_any_file_gives_settings_or_a_config_error(tree: dict[str, Any]) -> None:
    message = refusal(Sources(file=Path("x.toml"), tree=tree))

    assert message is None or message.startswith("x.toml")


@given(path=_paths, text=st.text(alphabet=st.characters(exclude_characters="\0"), max_size=20))
def test_any_variable_gives_settings_or_a_config_error_that_names_it(path: str, text: str) -> None:
    name = variable_of(path)

    message = refusal(read_sources(environ={name: text}))

    assert message is None or message.startswith(name)


@given(
    name=st.sampled_from(["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_RESOURCE_ATTRIBUTES"]),
    text=st.text(max_size=20),
)
def test_no_otel_value_stops_the_start(name: str, text: str) -> None:
    decode(read_sources(environ={name: text}))
