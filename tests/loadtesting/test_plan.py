from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from redline.core.errors import InputError
from redline.loadtesting.measure import Windows
from redline.loadtesting.plan import Turn, given_loads, look_rates, schedule, turns
from redline.loadtesting.results import Load


def test_poisson_arrivals_have_exponential_gaps_and_a_fixed_number() -> None:
    due = schedule("poisson", rate=1000, seconds=10, seed=1)
    gaps = [after - before for before, after in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    assert len(due) == 10_000
    assert due == sorted(due)
    assert 0 <= due[0] < due[-1] < 10
    # A gap longer than its mean has the chance 1/e; the deviation of gaps is their mean.
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.05)


def test_a_seed_fixes_the_arrivals() -> None:
    assert schedule("poisson", rate=9, seconds=3, seed=1) == schedule("poisson", rate=9, seconds=3, seed=1)
    assert schedule("poisson", rate=9, seconds=3, seed=1) != schedule("poisson", rate=9, seconds=3, seed=2)


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_a_rate_that_is_none_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        schedule("constant", rate=rate, seconds=seconds, seed=0)


def test_turns_hold_every_pair_once_a_round_in_orders_that_differ() -> None:
    loads = {Load(mode="closed", users=1): (0, 1), Load(mode="closed", users=2): (0, 1)}
    found = list(turns(loads, rounds=20, seed=0))
    counts = Counter((turn.load, turn.target, turn.round) for turn in found)
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * 2 * 20
    assert [turn.round for turn in found] == sorted(turn.round for turn in found)
    first = [found[index].target for index in range(0, len(found), 2)]
    assert 8 < sum(first) < 32  # about half of 40
    assert found == list(turns(loads, rounds=20, seed=0))


def test_the_search_offers_each_rate_to_all_that_can_about_reach_it() -> None:
    found = look_rates([100.0, 160.0], arrivals="poisson")
    rates = [load.rate for load in found]
    assert rates == sorted(rates)  # type: ignore[type-var]
    assert {110.0, 176.0} <= set(rates)
    assert all(0 in targets for load, targets in found.items() if (load.rate or 0) <= 110)
    assert all(targets == (1,) for load, targets in found.items() if (load.rate or 0) > 115)


def test_a_target_that_answered_nothing_is_offered_nothing() -> None:
    assert all(targets == (1,) for targets in look_rates([0.0, 10.0], arrivals="constant").values())
    assert look_rates([0.0], arrivals="constant") == {}


def test_rates_for_a_tool_of_users_are_refused() -> None:
    with pytest.raises(InputError, match="--rate with locust"):
        given_loads([10.0], (), arrivals="constant", tool="locust")
    with pytest.raises(InputError, match="above 0"):
        given_loads([0.0], (), arrivals="constant", tool="open")
    with pytest.raises(InputError, match="1 to 4096"):
        given_loads((), (0,), arrivals="constant", tool="open")


def test_targets_of_a_round_get_the_same_arrivals_and_rounds_get_others() -> None:
    windows = Windows(seconds=1.0, seed=5)
    load = Load(mode="open", arrivals="poisson", rate=50.0)
    jobs = [windows.job(Turn(load=load, target=t, round=r), "p", order=0) for t, r in ((0, 0), (1, 0), (0, 1))]
    assert jobs[0].due == jobs[1].due
    assert jobs[0].due != jobs[2].due
    assert jobs[0].lead_s == pytest.approx(0.2)
    assert sum(one >= jobs[0].lead_s for one in jobs[0].due) == 50
    assert list(jobs[0].due) == sorted(jobs[0].due)


def test_a_number_of_requests_decides_how_long_a_window_is() -> None:
    windows = Windows(requests=1000, rounds=5)
    rate = windows.job(Turn(load=Load(mode="open", arrivals="constant", rate=100.0), target=0, round=0), "p", order=0)
    users = windows.job(Turn(load=Load(mode="closed", users=2), target=0, round=0), "p", order=0)
    assert rate.seconds == pytest.approx(2.0)
    assert users.requests == 200
    with pytest.raises(InputError, match="at least one a round"):
        Windows(requests=3, rounds=5)
