"""From sources to something that can run: names resolved, sections read, nodes named."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import msgspec

from mapek_runtime.config import Configuration, Settings, Sources, Value, decode
from mapek_runtime.errors import MapekError, PluginConflict
from mapek_runtime.loop import Domain, NamesNodes, Registry

from .discovery import DOMAINS, PLUGINS, PluginSource, find_domain, find_plugin, installed
from .exporters import make_exporters
from .hierarchy import plugins_above
from .serving import check_serving
from .spooling import spool_folder
from .state import state_folder
from .storing import keeps_spans, store_path

__all__ = ["Prepared", "prepare", "problems"]

COMMANDS = "mapek.commands"
DEMONSTRATION_NODES = 5
DEMONSTRATION_INTERVAL = 0.1
"""Seconds between cycles where several nodes share a process: what is shown is how fast they heal."""
STORE_DELAY = 1.0
"""Seconds that a span waits for others: whoever looks at the page does not want to wait for its trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that a run needs."""

    configuration: Configuration
    domains: Sequence[Domain]
    plugins: Sequence[PluginSource]
    nodes: tuple[str, ...]
    demonstration: bool
    state: Path

    @property
    def settings(self) -> Settings:
        """The runtime's own settings."""
        return self.configuration.settings

    def make_plugins(self) -> list[object]:
        """The plugins that were named, for one node."""
        return [source.make(self.configuration.sections.get(source.name)) for source in self.plugins]


def prepare(sources: Sources, environ: Mapping[str, str]) -> Prepared:
    """Read, find and check everything; raises the first `ConfigError` or `PluginError`."""
    settings = decode(sources, strict=False).settings
    domains = [find_domain(name) for name in settings.domains]
    plugins = [find_plugin(name) for name in settings.plugins]
    return _assemble(sources, environ, domains, plugins)


def problems(sources: Sources, environ: Mapping[str, str]) -> tuple[Prepared | None, list[MapekError]]:
    """The same, but every plugin and domain that is wrong is named, not only the first."""
    found: list[MapekError] = []
    domains: list[Domain] = []
    plugins: list[PluginSource] = []
    try:
        settings = decode(sources, strict=False).settings
    except MapekError as error:
        return None, [error]
    for name in settings.domains:
        try:
            domains.append(find_domain(name))
        except MapekError as error:
            found.append(error)
    for name in settings.plugins:
        try:
            plugins.append(find_plugin(name))
        except MapekError as error:
            found.append(error)
    if found:
        # What did not load has a section too: without it every key there would be called unknown.
        return None, found
    try:
        prepared = _assemble(sources, environ, domains, plugins)
        # What a run would find only when it has begun: certificates, packages, folders.
        make_exporters(prepared.settings.export, sys.stderr)
        spool_folder(prepared.configuration, environ, by_default=True)
        store_path(prepared.configuration, environ, by_default=True)
        check_serving(prepared.configuration, environ)
    except MapekError as error:
        return None, [error]
    return prepared, []


def _assemble(
    sources: Sources, environ: Mapping[str, str], domains: Sequence[Domain], plugins: Sequence[PluginSource]
) -> Prepared:
    sections: dict[str, type[msgspec.Struct]] = {}
    above = plugins_above(decode(sources, strict=False).settings)
    owners: list[Domain | PluginSource] = [*domains, *plugins, *above]
    for owner in owners:
        if owner.settings is None:
            continue
        if owner.name in sections and sections[owner.name] is not owner.settings:
            raise PluginConflict(
                f"two domains or plugins are named {owner.name!r} and would share the section "
                f"[{owner.name}]; give one of them another `name`"
            )
        sections[owner.name] = owner.settings
    others = {*installed(DOMAINS), *installed(PLUGINS), *(each.name for each in entry_points(group=COMMANDS))}
    configuration = decode(sources, sections, others=others)
    count = configuration.settings.node.count
    named = _named_by_domains(domains, configuration) if count is None else ()
    if count is None and not named and sources.file is None:
        count = DEMONSTRATION_NODES
    presets: dict[str, Value] = {}
    if count is not None or named:
        presets["loop.interval"] = Value(DEMONSTRATION_INTERVAL, "demonstration")
    if keeps_spans(configuration.settings, by_default=True):
        presets["export.delay"] = Value(STORE_DELAY, "trace store")
    configuration = decode(sources, sections, others=others, presets=presets)
    if count is not None:
        nodes = tuple(f"node-{number}" for number in range(1, count + 1))
    else:
        nodes = named or (configuration.settings.node.id,)
    prepared = Prepared(
        configuration=configuration,
        domains=domains,
        plugins=plugins,
        nodes=nodes,
        demonstration=count is not None or bool(named),
        state=state_folder(configuration.settings, environ),
    )
    # Inspects signatures and names; domains' own plugins join them when the domains are open.
    Registry(prepared.make_plugins())
    Registry([source.make(configuration.sections.get(source.name)) for source in above])
    return prepared


def _named_by_domains(domains: Sequence[Domain], configuration: Configuration) -> tuple[str, ...]:
    """The nodes that a domain makes itself; empty when none does."""
    for domain in domains:
        if isinstance(domain, NamesNodes):
            nodes = domain.nodes(configuration.sections[domain.name])
            if nodes is not None:
                return tuple(nodes)
    return ()
