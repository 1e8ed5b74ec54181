"""Shares from a machine's labels and a few of people's: worked by hand, as the papers' package has them, and over many draws."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from common.stats.prediction_powered import labelled_only, labels_needed, share

ORACLE = json.loads(Path(__file__).with_name("ppi_py_values.json").read_text(encoding="utf-8"))
Z = 1.959964


def test_a_case_worked_by_hand():
    """Four labels, six items without: all numbers below are from pencil and paper."""
    result = share([1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0, 0, 0])
    # Covariance 1/8, variance of the labelled items' predictions 3/16: slope 2/3, lambda 6/10 of it.
    assert result.weight == pytest.approx(0.4)
    # 1/2 + 4/10 · (1/3 − 1/4)
    assert result.value == pytest.approx(1 / 2 + 0.4 / 12)
    # Residuals with the slope s: 1 − s, 1, 0, 0; and of the made-up items 0, 1, −s, 1 − s.
    s = 2 / 3
    variance = (2 - 2 * s + s**2) / 4 - ((2 - s) / 4) ** 2
    assert result.standard_error == pytest.approx(math.sqrt(0.6 * variance / 4))
    eight = np.array([1 - s, 1, 0, 0, 0, 1, -s, 1 - s])
    centre = result.value + 0.6 * (eight.mean() - eight[:4].mean())
    half = 2.364624 * math.sqrt(0.6 * eight.var(ddof=1) / 8)  # Student's t with seven degrees of freedom
    assert (result.low, result.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    # Of a population, slope and lambda are one, and the rest's own variance, 2/9, counts.
    drawn = share([1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0, 0, 0], "population")
    eight = np.array([0.6, 1, 0, 0, 0, 1, -0.4, 0.6])
    half = 2.364624 * math.sqrt(eight.var(ddof=1) / 8 + 0.4**2 * (2 / 9) / 6)
    centre = drawn.value + eight.mean() - eight[:4].mean()
    assert drawn.value == result.value
    assert (drawn.low, drawn.high) == pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize("case", ORACLE, ids=[f"{case['kind']} {len(case['labels'])}" for case in ORACLE])
def test_value_and_standard_error_are_those_of_the_papers_package(case):
    result = share(case["labels"], case["predictions"], case["rest"], "population")
    assert result.weight == pytest.approx(case["lambda"], abs=1e-12)
    assert result.value == pytest.approx(case["tuned"]["value"], abs=1e-12)
    normal = (result.value - Z * result.standard_error, result.value + Z * result.standard_error)
    assert normal == pytest.approx(case["tuned"]["ci95"], abs=1e-6)
    # The package's own lambda, from the variance of all predictions, is another estimate of the same.
    assert (result.value, *normal) == pytest.approx((case["own"]["value"], *case["own"]["ci95"]), abs=0.01)
    # What is made up for small samples fades where there are many.
    many = share(case["labels"] * 100, case["predictions"] * 100, case["rest"] * 100, "population")
    normal = (many.value - Z * many.standard_error, many.value + Z * many.standard_error)
    assert (many.low, many.high) == pytest.approx(normal, abs=6e-4)


def test_without_a_machine_it_is_two_successes_and_two_failures_more():
    """Agresti and Coull's interval of 3 in 40 is that of 5 in 44; here with Student's quantile."""
    result = labelled_only([1] * 3 + [0] * 37, 1000, "population")
    half = 2.016692 * math.sqrt(5 / 44 * 39 / 44 / 43)
    assert result.value == 3 / 40
    assert (result.low, result.high) == pytest.approx((5 / 44 - half, 5 / 44 + half), abs=1e-6)
    # A machine that says the same of all, or the opposite of people, is not listened to.
    for predictions, rest in ([0.3] * 40, [0.3] * 960), ([0.0] * 3 + [1.0] * 37, [0.5] * 960):
        deaf = share([1] * 3 + [0] * 37, predictions, rest, "population")
        assert deaf.weight == 0
        assert (deaf.low, deaf.high) == pytest.approx((result.low, result.high))


def test_no_spread_is_no_certainty():
    """People and machine agreed on all labels; nobody was in the class; all of them were."""
    for label in (0.0, 1.0):
        result = share([label] * 30, [label] * 30, [label] * 300)
        assert result.value == label
        assert result.high - result.low > 0.05
    agreed = share([1.0, 0.0] * 15, [1.0, 0.0] * 15, [1.0, 0.0] * 150)
    assert agreed.value == 0.5
    assert agreed.standard_error == pytest.approx(0, abs=0.01)
    assert agreed.high - agreed.low > 0.1


def test_of_a_file_whose_items_all_have_labels_nothing_is_uncertain():
    labels = [1.0] * 30 + [0.0] * 70
    whole = share(labels, [0.2] * 50 + [0.9] * 50, [])
    assert (whole.low, whole.value, whole.high) == pytest.approx((0.3, 0.3, 0.3))
    nearly = share(labels[:99], labels[:99], [0.0])
    assert 0 < nearly.high - nearly.low < 0.01
    beyond = share(labels, [0.2] * 50 + [0.9] * 50, [], "population")
    assert beyond.high - beyond.low > 0.15


def draw(rng: np.random.Generator, items: int, rate: float, machine: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a file, and a machine's predictions."""
    truth = (rng.random(items) < rate).astype(float)
    if machine == "useless":
        return truth, rng.beta(2, 5, items)
    if machine == "perfect":
        return truth, truth
    if machine == "under-confident":
        return truth, 0.5 + 0.1 * (truth - 0.5) + 0.1 * (rng.random(items) - 0.5)
    wrong = {"good": (0.03, 0.03), "biased": (0.1, 0.2), "credulous": (0.0, 0.5)}[
        machine
    ]  # of items in the class, and of others
    return truth, np.where(rng.random(items) < np.where(truth == 1, *wrong), 1 - truth, truth)


def covered(
    draws: int, items: int, labelled: int, rate: float, machine: str, target: str = "file"
) -> tuple[dict[str, float], dict[str, float]]:
    """Estimator → share of draws in which its interval held the true share, and its mean width."""
    rng = np.random.default_rng([draws, items, labelled, int(1000 * rate), len(machine)])
    held: dict[str, list[bool]] = {name: [] for name in ("both", "people", "normal", "machine")}
    widths: dict[str, list[float]] = {name: [] for name in held}
    for _ in range(draws):
        truth, given = draw(rng, items, rate, machine)
        few, rest = np.split(rng.permutation(items), [labelled])
        both = share(truth[few], given[few], given[rest], target)
        people = labelled_only(truth[few], items, target)
        counted = labelled_only(np.round(given), items, "population")
        half = Z * both.standard_error
        right = truth.mean() if target == "file" else rate
        for name, low, high in (
            ("both", both.low, both.high),
            ("people", people.low, people.high),
            ("normal", both.value - half, both.value + half),
            ("machine", counted.low, counted.high),
        ):
            held[name].append(low - 1e-9 <= right <= high + 1e-9)
            widths[name].append(high - low)
    return {k: float(np.mean(v)) for k, v in held.items()}, {k: float(np.mean(v)) for k, v in widths.items()}


@pytest.mark.parametrize("target", ["file", "population"])
def test_the_interval_holds_the_share_where_counting_the_machines_labels_misses_it(target):
    """A machine that overlooks one in ten and raises one false alarm in five: .1 · .9 + .9 · .2 = 27 % instead of 10 %."""
    held, widths = covered(400, 2000, 150, 0.1, "biased", target)
    assert held["both"] >= 0.93
    assert held["people"] >= 0.93
    assert held["machine"] < 0.01
    assert widths["both"] < 0.95 * widths["people"]


def test_a_good_machine_narrows_the_interval_and_a_useless_one_hardly_widens_it():
    for machine, bound in {"perfect": 0.5, "good": 0.7, "useless": 1.02, "under-confident": 1.0}.items():
        held, widths = covered(300, 2000, 150, 0.3, machine)
        assert held["both"] >= 0.93, machine
        assert widths["both"] < bound * widths["people"], machine


def test_few_labels_of_a_rare_class_where_the_normal_interval_fails():
    held, _ = covered(300, 2000, 30, 0.05, "good")
    assert held["normal"] < 0.7
    assert held["both"] >= 0.93
    assert held["people"] >= 0.93


@pytest.mark.slow
def test_the_interval_holds_the_share_over_a_grid_of_files_and_machines():
    machines = ("perfect", "good", "biased", "credulous", "useless")
    grid = itertools.product((150, 2000), (30, 100), (0.01, 0.05, 0.4), machines, ("file", "population"))
    result = {case: covered(1000, *case)[0] for case in grid}
    # By chance alone, the least of 120 shares of a thousand draws lies some two points below the true one.
    assert min(held["both"] for held in result.values()) >= 0.92
    assert sum(held["both"] < 0.93 for held in result.values()) <= 5
    assert 0.96 < np.mean([held["both"] for held in result.values()]) < 0.99
    assert min(held["normal"] for held in result.values()) < 0.3


def test_labels_needed():
    rng = np.random.default_rng(5)
    truth, good = draw(rng, 3000, 0.3, "good")
    few, rest = np.split(rng.permutation(3000), [200])

    def needed(width: float, given: np.ndarray = good, target: str = "file") -> int | None:
        return labels_needed(truth[few], given[few], given[rest], width, target)

    counts = [needed(width) for width in (0.02, 0.05, 0.1, 0.2)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 4
    assert needed(0.05) < needed(0.05, np.zeros(3000)) < 3000
    # Asked for the width that 200 labels give, it says 200; for a little less, 201.
    now = share(truth[few], good[few], good[rest])
    assert needed(now.high - now.low) == 200
    assert needed(now.high - now.low - 1e-5) == 201
    # As the classical formula has it: n = (2 z / width)² p (1 − p), less the four made-up items.
    alone = labels_needed(truth[few], np.zeros(200), np.zeros(10**6), 0.05, "population")
    p = truth[few].mean()
    assert alone == pytest.approx((2 * Z / 0.05) ** 2 * p * (1 - p) - 4, rel=0.01)
    # Of a population, 3,000 items say only so much; of themselves, they say all.
    assert needed(0.005, target="population") is None
    assert needed(0.005) < 3000
    # The projection keeps its promise: with so many labels, intervals are about that wide.
    count = labels_needed(truth, good, [], 0.05)  # the moments of all items, which a sample has on average
    draws = [np.split(rng.permutation(3000), [count]) for _ in range(30)]
    result = [share(truth[more], good[more], good[others]) for more, others in draws]
    assert np.mean([one.high - one.low for one in result]) == pytest.approx(0.05, rel=0.05)


def test_order_and_names_of_the_classes_do_not_matter():
    rng = np.random.default_rng(3)
    truth, given = draw(rng, 300, 0.3, "biased")
    first = share(truth[:60], given[:60], given[60:])
    mixed = rng.permutation(60)
    again = share(truth[mixed], given[mixed], given[60:][::-1])
    assert (again.low, again.value, again.high) == pytest.approx((first.low, first.value, first.high))
    other = share(1 - truth[:60], 1 - given[:60], 1 - given[60:])
    assert (1 - other.high, 1 - other.value, 1 - other.low) == pytest.approx((first.low, first.value, first.high))


def test_a_share_stays_between_0_and_1_and_in_its_interval():
    rng = np.random.default_rng(11)
    for _ in range(300):
        items = int(rng.integers(2, 80))
        truth = (rng.random(items) < rng.choice([0.02, 0.5, 0.98])).astype(float)
        given = rng.choice([truth, rng.random(items), np.round(rng.random(items))])
        count = int(rng.integers(1, items + 1))
        for target in ("file", "population"):
            result = share(truth[:count], given[:count], given[count:], target)
            assert 0 <= result.low <= result.value <= result.high <= 1
    # The machine's probabilities would move 1 in 10 beyond 0.
    below = share([0.0] * 27 + [1.0] * 3, [0.5] * 27 + [0.9] * 3, [0.0] * 500)
    assert below.value == below.low == 0


def test_what_is_no_sample_is_refused():
    for labels, predictions, rest in (
        ([], [], [0.5]),
        ([1, 0], [1], [0.5]),
        ([1, 2], [1, 0], [0.5]),
        ([1, 0], [1, float("nan")], [0.5]),
        ([1, 0], [1, 0], [1.5]),
    ):
        with pytest.raises(ValueError, match=r"shape|outside 0 to 1"):
            share(labels, predictions, rest)
