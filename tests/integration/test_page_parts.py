"""The pure parts of the page: the tree of a trace, its critical path, the story of a cycle, queries.

They are run in a browser, from the files as they are served, without a service.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mapek_runtime.web

from .browser import browsing

if TYPE_CHECKING:
    from playwright.async_api import Page

STATIC = Path(mapek_runtime.web.__file__).parent / "static"
SPAN = """
    const span = (span_id, parent_id, start, duration, more = {}) => ({
      span_id, parent_id, name: span_id, service: "x", start: String(start), duration: String(duration),
      attributes: {}, events: [], ...more,
    });
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    async with browsing(tmp_path_factory.mktemp("parts")) as opened:
        yield await opened.page("http://page.test/icons/mapek.svg", files=STATIC)


async def run(page: Page, module: str, code: str) -> Any:
    """What `code` gives, with the names of one of the page's modules in `it`."""
    return await page.evaluate(
        f"async () => {{ const it = await import('/parts/{module}.js'); {SPAN} {code} }}"
    )


async def test_the_critical_path_is_what_the_duration_was_made_of(page: Page) -> None:
    path = await run(
        page,
        "tree",
        """
        const tree = it.treeOf([
          span("root", "", 1000, 100), span("early", "root", 1010, 30), span("side", "root", 1015, 10),
          span("late", "root", 1050, 90), span("in", "late", 1060, 20),
        ]);
        return Object.fromEntries(it.criticalPath(tree));
        """,
    )

    # `late` outlasts the root, which it holds up to its end; `side` held up nothing.
    assert path == {
        "root": [[40, 50], [0, 10]],
        "early": [[10, 40]],
        "late": [[80, 100], [50, 60]],
        "in": [[60, 80]],
    }


async def test_spans_that_are_each_others_parents_are_shown_once(page: Page) -> None:
    names = await run(
        page,
        "tree",
        """
        const chain = [...Array(100000).keys()].map(i => span(`s${i}`, i ? `s${i - 1}` : "gone", 5, 5));
        const tree = it.treeOf([span("a", "b", 5, 5), span("b", "a", 5, 5), span("c", "c", 5, 5), ...chain]);
        const deepest = tree.nodes.reduce((most, node) => Math.max(most, node.depth), 0);
        it.criticalPath(tree);
        return [tree.nodes.length, deepest, tree.roots.map(node => node.span.span_id).sort()];
        """,
    )

    assert names == [100_003, 99_999, ["a", "c", "s0"]]


@pytest.mark.parametrize(
    ("query", "narrower"),
    [
        ("", "{ duration >= 5ms && duration <= 1s }"),
        ("{ }", "{ duration >= 5ms && duration <= 1s }"),
        ('name="a" OR b=1', '(name="a" OR b=1) AND duration >= 5ms AND duration <= 1s'),
        (
            '{ name = "}" || .b } | count() > 2',
            '{ (name = "}" || .b) && duration >= 5ms && duration <= 1s } | count() > 2',
        ),
        ("{ .a } >> { .b }", None),
        ("{ .a } || { .b }", None),
    ],
    ids=["nothing", "every span", "the seed's", "a stage", "a relation", "either"],
)
async def test_bounds_go_where_they_belong_in_a_query(page: Page, query: str, narrower: str | None) -> None:
    code = f"return it.narrowed({json.dumps(query)}, '5ms', '1s');"

    assert await run(page, "narrow", code) == narrower


@pytest.mark.parametrize(
    ("query", "narrower"),
    [
        ("", "{ .x = 1 }"),
        ('service="shop"', '{ resource.service.name = "shop" && .x = 1 }'),
        ("{ .a || .b } | count() > 2", "{ (.a || .b) && .x = 1 } | count() > 2"),
        ("{ .a && .b }", "{ .a && .b && .x = 1 }"),
        ("{ .a } >> { .b }", None),
    ],
    ids=["nothing", "the seed's", "a stage", "one more", "a relation"],
)
async def test_a_value_is_added_to_a_query(page: Page, query: str, narrower: str | None) -> None:
    canonical = '{ resource.service.name = "shop" }' if query else "{ }"
    code = f"return it.narrowedBy({json.dumps(query)}, {json.dumps(canonical)}, '.x = 1');"

    assert await run(page, "narrow", code) == narrower


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0"), (7, "7 ns"), (999_960, "1 ms"), (1_254_000, "1.25 ms"), (61_000_000_000, "1.02 min")],
    ids=str,
)
async def test_a_duration_has_three_digits_and_its_unit(page: Page, ns: int, text: str) -> None:
    assert await run(page, "amounts", f"return it.duration({ns});") == text


async def test_a_bound_is_rounded_away_from_what_was_brushed_and_read_back(page: Page) -> None:
    code = "return ['down', 'up'].map(way => it.bound(1234567, way)).flatMap(t => [t, it.parseDuration(t)]);"

    assert await run(page, "amounts", code) == ["1.23ms", 1_230_000, "1.24ms", 1_240_000]


@pytest.mark.parametrize(
    ("before", "kind", "field", "text"),
    [
        ("na", "field", None, "na"),
        ('name="mape', "value", "name", "mape"),
        ('name="mape_k.cycle" AND node', "field", None, "node"),
        ("{ span.node_id = ", "value", "span.node_id", ""),
        ('{ span.node_id = "a b', "value", "span.node_id", "a b"),
        ("{ duration >", "value", "duration", ""),
        ('name="a" ', "join", None, ""),
        ("duration ", "operator", "duration", ""),
        ("{ .a } ", "none", None, ""),
    ],
    ids=str,
)
async def test_what_is_being_written_is_known(
    page: Page, before: str, kind: str, field: str | None, text: str
) -> None:
    code = f"const t = {json.dumps(before)}; return it.writing(t, t.length, t.startsWith('{{'));"
    found = await run(page, "suggest", code)

    assert (found["kind"], found.get("field") if kind != "field" else None, found["text"]) == (
        kind,
        field,
        text,
    )


async def test_the_story_of_a_cycle_tells_guard_rails_from_reasons_of_the_domain(page: Page) -> None:
    told = await run(
        page,
        "story",
        """
        const event = (name, attributes) => ({name, time: "6", attributes});
        const plan = span("p", "r", 5, 5, {name: "mape_k.plan", events: [
          event("option.chosen", {action: "drain", target: "a~b", reason: "dead", success_rate: 0.5}),
          event("option.rejected", {action: "wait", target: "a~b", rule: "too slow", reason: "4 s"}),
          event("option.rejected", {action: "restart", target: "b", rule: "cooldown", reason: "2 s ago"}),
        ]});
        const analyze = span("a", "r", 5, 5, {name: "mape_k.analyze", events: [event("finding", {
          problem: "link.dead", target: "a~b", confidence: 1, anomaly: true, "evidence.metric": ["m", "n"],
          "evidence.value": [3, 4], "evidence.threshold": [2, 5], "evidence.unit": ["1", "s"],
          "evidence.rule": ["", "later"],
        })]});
        const other = span("x", "elsewhere", 5, 5, {name: "mape_k.execute"});
        const skipped = span("e", "r", 9, 0, {name: "mape_k.execute", attributes: {skipped: true}});
        const root = span("r", "", 5, 9, {name: "mape_k.cycle", attributes: {node_id: "n1", cycle: 3}});
        const story = it.storyOf([root, other, plan, analyze, skipped]);
        return {...story, states: story.phases.map(phase => phase.state), none: it.storyOf([other].slice(1))};
        """,
    )

    assert [option["rail"] for option in told["rejected"]] == [False, True]
    assert told["chosen"][0]["successRate"] == 0.5
    assert [(e["value"], e["threshold"]) for e in told["findings"][0]["evidence"]] == [(3, 2), (4, 5)]
    assert told["states"] == ["absent", "ok", "ok", "skipped", "absent"]
    assert told["none"] is None


async def test_the_story_is_told_in_words_whatever_a_sender_wrote(page: Page) -> None:
    told = await run(
        page,
        "story",
        """
        const odd = {target: {a: 1}, action: ["b", null], reason: null, problem: 7, "parameter.p": {c: 2}};
        const failed = {status: "error", status_message: "x".repeat(1e5)};
        const plan = span("p", "r", 5, 5, {
          name: "mape_k.plan", ...failed, events: [{name: "option.chosen", time: "6", attributes: odd}],
        });
        const root = span("r", "", 5, 9, {
          name: "mape_k.cycle", attributes: {node_id: ["n"], cycle: {}, trigger: 1},
        });
        const story = it.storyOf([root, plan]);
        const said = [story.node, story.cycle, story.trigger, ...Object.values(story.chosen[0])];
        return {
          said: said.filter((each) => typeof each === "string"),
          parameters: story.chosen[0].parameters,
          reason: story.phases[2].reason.length,
        };
        """,
    )

    assert told["said"] == ['["n"]', "{}", "1", '["b",null]', '{"a":1}', "", "7"]
    assert told["parameters"] == [["p", '{"c":2}']]
    assert told["reason"] < 2100
