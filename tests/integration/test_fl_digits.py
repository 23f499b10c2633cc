"""Ten clients with different digits learn together: the accuracy that is promised, and with one that lies.

The coordinator, the clients and their messages are the domain's own; in each round another client is away.
`python -m benchmarks.fl` has more seeds, more poisons, and the plain mean beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.fl import LEAST_ACCURACY, METHODS, MOST_LOST, POISONS, accuracy

TRIMMED = METHODS["trimmed mean, 0.1"]


_HONEST: dict[int, list[float]] = {}


async def honest(seed: int) -> list[float]:
    """The accuracy after each round without poison, with the plain mean; learned once a seed."""
    if seed not in _HONEST:
        _HONEST[seed] = await accuracy(seed)
    return _HONEST[seed]


@pytest.mark.parametrize("seed", [0, 1])
async def test_ten_clients_of_which_one_is_away_learn_digits_in_twenty_rounds(seed: int) -> None:
    found = await honest(seed)

    assert len(found) == 20
    assert found[-1] >= LEAST_ACCURACY


@pytest.mark.parametrize("poison", [name for name in POISONS if name != "no poison"])
async def test_a_poisoned_client_of_ten_costs_the_trimmed_mean_little(poison: str) -> None:
    kind: Mapping[str, Any] = POISONS[poison]

    last = (await accuracy(0, method=TRIMMED, **kind))[-1]

    assert last >= (await honest(0))[-1] - MOST_LOST


async def test_a_poisoned_client_ruins_the_plain_mean() -> None:
    last = (await accuracy(0, **POISONS["wrong direction"]))[-1]

    assert last < 0.5
