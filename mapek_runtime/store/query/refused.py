"""What TraceQL has and this store has not: its name, and what can be written instead."""

from __future__ import annotations

from .source import did_you_mean, shown

__all__ = ["AGGREGATES", "COMPARISONS", "STAGES", "refused_symbol", "refused_word", "unknown_stage"]

AGGREGATES = ("count", "avg", "min", "max", "sum")
STAGES = (*AGGREGATES, "select", "by")
COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "=~", "!~")

_ARITHMETIC = {"+", "-", "*", "/", "%", "^", "**"}
_NEGATED = {"!>": ">", "!>>": ">>", "!<": "<", "!<<": "<<", "!~": "~"}
_UNION = {"&>": ">", "&>>": ">>", "&<": "<", "&<<": "<<", "&~": "~"}
_METRICS = {
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
    "topk",
    "bottomk",
}
_MISSPELLED = {
    "and": "&&",
    "or": "||",
    "not": "!",
    "null": "nil",
    "none": "nil",
    "undefined": "nil",
}


def refused_symbol(symbol: str, *, spansets: bool) -> str:
    """Why an operator cannot stand where it does, and what can; empty when it is only out of place."""
    if symbol == "==":
        return "== is no operator; write ="
    if symbol == "&":
        return "& is no operator; write &&"
    if symbol == "|" and not spansets:
        return "| stands behind the braces; between conditions write ||"
    if symbol in _ARITHMETIC:
        return f"arithmetic ({symbol}) is not known here; compare the field with the number itself"
    if spansets and symbol in _NEGATED:
        plain = _NEGATED[symbol]
        return (
            f"the negated relation {symbol} is not known here; write {plain}, or choose spans by conditions"
        )
    if symbol in _UNION:
        plain = _UNION[symbol]
        return (
            f"the union relation {symbol} is not known here; write {plain}, which gives the spans right of it"
            ", or ask for each side"
        )
    if spansets and symbol in COMPARISONS:
        return f"{symbol} compares fields inside braces; spansets are joined by && || > >> < << ~"
    return ""


def refused_word(word: str) -> str:
    """Why a function or keyword is not known here, and what can be written instead; empty for any other."""
    if word in _METRICS:
        return (
            f"{word}() is a function for metrics, which are not made from queries here;"
            " write | count() > 0 or | avg(duration) > 50ms to choose traces"
        )
    if word == "with":
        return "hints, with(…), are not known here; leave them out, the newest traces come first anyway"
    if word == "coalesce":
        return "coalesce() is not known here; leave out the by(…) before it"
    if word in {"nestedSetLeft", "nestedSetRight"}:
        return f"spans are not numbered here, so there is no {word}; root spans are nestedSetParent < 0"
    if word == "parent":
        return "the parent is no field; write { … } > { … }: the left side is the parent's"
    if word.lower() in _MISSPELLED:
        return f"found {shown(word)}; TraceQL writes {_MISSPELLED[word.lower()]}"
    return ""


def unknown_stage(word: str) -> str:
    """What would be right instead of a function that is not known."""
    hint = did_you_mean(word, STAGES) or f"; after | stand {', '.join(f'{name}(…)' for name in STAGES)}"
    return refused_word(word) or f"no function is called {shown(word)}{hint}"
