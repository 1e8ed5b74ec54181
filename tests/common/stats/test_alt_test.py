"""The Alternative Annotator Test against hand calculations, and what must not affect it."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from common.cli.errors import UserError
from common.stats.alt_test import alt_test, compare, p_value, reject
from common.stats.scale import Scale

# Item: labels of A, B and C, and of the model.
BY_HAND = {"1": "xxy x", "2": "xxx y", "3": "xyy y", "4": "xyz z"}
PEOPLE = {item: dict(zip("ABC", labels, strict=False)) for item, labels in BY_HAND.items()}
MODEL = {item: labels[-1] for item, labels in BY_HAND.items()}


def crowd(items: int, people: int, right: float, seed: int) -> tuple[dict[int, dict[str, int]], dict[int, int]]:
    """Annotators who give the true one of two labels with a probability, and the true labels."""
    draw = random.Random(seed)
    truth = {item: draw.randrange(2) for item in range(items)}
    labels = {
        item: {f"p{who}": label if draw.random() < right else 1 - label for who in range(people)}
        for item, label in truth.items()
    }
    return labels, truth


def majority(labels: dict[str, int]) -> int:
    return round(sum(labels.values()) / len(labels))


def test_a_table_worked_by_hand():
    alone = {"5": {"A": "x"}, "6": {"A": "x", "B": "y"}}  # nobody else, no prediction
    result = alt_test({**PEOPLE, **alone}, {**MODEL, "5": "x", "7": "x"}, epsilon=0.1, min_items=4)
    assert {name: list(items.values()) for name, items in result.differences.items()} == {
        "A": [0, 1, -1, -1],
        "B": [0, 1, 0, -1],
        "C": [-1, 1, 0, 0],
    }
    assert [(one.name, one.n, one.rho_model, one.rho_person, one.test, one.wins) for one in result.annotators] == [
        ("A", 4, 0.75, 0.5, "Wilcoxon", False),
        ("B", 4, 0.75, 0.75, "Wilcoxon", False),
        ("C", 4, 0.75, 0.75, "Wilcoxon", False),
    ]
    # d − .1 of A is −.1, .9, −1.1, −1.1: rank 2 is positive, and 3 of 16 choices of signs give a sum of ranks of 2 or less.
    assert [one.p_value for one in result.annotators] == pytest.approx([3 / 16, 5 / 16, 5 / 16])
    assert (result.omega, result.rho, result.passed, result.left_out) == (0, 0.75, False, {})


def test_from_thirty_items_on_it_is_a_t_test():
    items = [-1] * 9 + [0] * 27
    t = (-0.25 - 0.1) / ((9 - 36 * 0.25**2) / 35 / 36) ** 0.5
    assert p_value(items, 0.1) == (pytest.approx(stats.t.cdf(t, 35)), "t")
    assert p_value(items[:30], 0.1)[1] == "t"
    assert p_value(items[:29], 0.1)[1] == "Wilcoxon"


@pytest.mark.parametrize("n", [1, 5, 20, 30, 500])
@pytest.mark.parametrize(("d", "epsilon", "below"), [(0, 0.1, True), (-1, 0.0, True), (0, 0.0, False), (1, 0.1, False),
                                                     (1, 1.0, False)])  # fmt: skip
def test_the_same_difference_on_every_item_has_a_p_value(n, d, epsilon, below):
    items, _ = p_value([d] * n, epsilon)
    assert items <= max(2.0**-n, 1e-4) if below else items > 0.99


def test_benjamini_yekutieli_steps_up():
    # Four hypotheses: thresholds of i/4 · .05 / (1 + 1/2 + 1/3 + 1/4) = .006, .012, .018, .024.
    assert reject([0.04, 0.005, 0.02, 0.03], 0.05) == [False, True, False, False]
    assert reject([0.0239, 0.015, 0.02, 0.007], 0.05) == [True] * 4
    assert reject([0.0241, 0.015, 0.02, 0.007], 0.05) == [False] * 4
    assert reject([], 0.05) == []


def test_the_model_that_answers_with_the_majority_passes():
    people, _ = crowd(60, 5, 0.8, 0)
    result = alt_test(people, {item: majority(labels) for item, labels in people.items()})
    assert result.passed
    assert result.omega == 1
    assert result.rho > 0.9


@pytest.mark.parametrize("kind", ["constantly wrong", "random"])
def test_a_model_that_knows_nothing_fails(kind):
    people, truth = crowd(100, 5, 0.85, 0)
    draw = random.Random(1)
    answers = {item: 1 - label if kind == "constantly wrong" else draw.randrange(2) for item, label in truth.items()}
    result = alt_test(people, answers, epsilon=0.2)
    assert (result.omega, result.passed) == (0, False)
    assert result.rho < 0.7


def test_a_copy_of_an_annotator_ties_with_that_one_and_wins_by_epsilon():
    people, _ = crowd(60, 3, 0.8, 2)
    copied = alt_test(people, {item: labels["p0"] for item, labels in people.items()})
    first = next(one for one in copied.annotators if one.name == "p0")
    assert (first.rho_model, first.rho_person, first.p_value, first.wins) == (1, 1, 0, True)
    assert not next(
        one
        for one in alt_test(people, {item: labels["p0"] for item, labels in people.items()}, epsilon=0).annotators
        if one.name == "p0"
    ).wins


def test_a_model_like_the_annotators_seldom_wins_without_an_allowance():
    wins = 0
    for seed in range(40):
        people, _ = crowd(60, 6, 0.75, 100 + seed)
        answers = {item: labels.pop("p5") for item, labels in people.items()}
        wins += any(one.wins for one in alt_test(people, answers, epsilon=0).annotators)
    assert wins <= 4  # one in twenty at most, but for chance


def test_omega_grows_with_epsilon():
    people, _ = crowd(60, 6, 0.75, 3)
    answers = {item: labels.pop("p5") for item, labels in people.items()}
    results = [alt_test(people, answers, epsilon=epsilon) for epsilon in (0, 0.1, 0.2, 0.3, 0.5)]
    omegas = [result.omega for result in results]
    assert omegas == sorted(omegas)
    assert omegas[0] < 0.5 < omegas[-1]
    assert len({result.rho for result in results}) == 1


def test_half_of_the_annotators_are_enough():
    # Two whom the model equals everywhere, and two, of other items, who agree with each other against it.
    people = {n: {"a": 0, "b": 0} if n < 40 else {"c": 1, "d": 1} for n in range(80)}
    result = alt_test(people, dict.fromkeys(people, 0))
    assert [one.wins for one in result.annotators] == [True, True, False, False]
    assert (result.omega, result.passed) == (0.5, True)


def test_annotators_with_too_few_items_are_named():
    people, truth = crowd(40, 3, 0.8, 4)
    for item in list(people)[:7]:
        people[item]["late"] = truth[item]
    people["alone"] = {"hermit": 1}
    result = alt_test(people, {**truth, "alone": 1})
    assert result.left_out == {"late": 7, "hermit": 0}
    assert [one.name for one in result.annotators] == ["p0", "p1", "p2"]
    assert [one.test for one in alt_test(people, truth, min_items=7).annotators] == ["t", "t", "t", "Wilcoxon"]
    nobody = alt_test(people, truth, min_items=41)
    assert (nobody.omega, nobody.rho, nobody.passed, nobody.annotators) == (None, None, None, [])
    assert len(nobody.left_out) == 5


def test_row_order_does_not_matter():
    people, truth = crowd(40, 4, 0.7, 5)
    rows = [(item, who, label) for item, labels in people.items() for who, label in labels.items()]
    expected = alt_test(people, truth)
    random.Random(6).shuffle(rows)
    assert alt_test(rows, dict(sorted(truth.items(), reverse=True))) == expected


def test_numbers_are_compared_by_the_root_mean_squared_difference():
    # Others say 1 and 4. A says 2: squares 1 and 4. The model says 3: 4 and 1, a tie; or 4: 9 and 0, worse; or 2.5, better.
    people = {"i": {"A": 2, "B": 1, "C": 4}}
    for labels, d in ((3, 0), (4, 1), (2.5, -1)):
        assert compare(people, {"i": labels}, Scale("real"))["A"] == {"i": d}
        assert compare(people, {"i": str(labels)}, Scale("ordinal"))["A"] == {"i": d}
    # .1 − .2 and .3 − .2 differ in the last digit.
    assert compare({"i": {"A": 0.1, "B": 0.2}}, {"i": 0.3}, Scale("real"))["A"] == {"i": 0}


def test_ordered_labels_are_compared_by_their_places():
    order = ("no", "maybe", "yes")
    people = {"i": {"A": "maybe", "B": "no", "C": "no"}}
    assert compare(people, {"i": "yes"}, Scale("ordinal", order))["A"] == {"i": 1}
    assert compare(people, {"i": "yes"}, Scale("nominal"))["A"] == {"i": 0}
    with pytest.raises(ValueError, match="label 'perhaps' is not on this scale; expected one of no, maybe, yes"):
        alt_test(people, {"i": "perhaps"}, scale="ordinal", order=order)


def shared(one: str, other: str) -> float:
    """Share of words in common."""
    return len(set(one.split()) & set(other.split())) / max(1, len(set(one.split()) | set(other.split())))


def test_a_similarity_of_ones_own():
    people = {"i": {"A": "red", "B": "red blue", "C": "blue"}}
    for labels, d in (("red blue", -1), ("blue", -1), ("red", 0), ("green", 1)):
        assert compare(people, {"i": labels}, Scale(similarity=shared))["A"] == {"i": d}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": "ratio"}, "--scale: unknown scale 'ratio'"),
        ({"order": ("a", "b")}, "--order: only an ordinal scale has an order"),
        ({"scale": "ordinal", "order": ("a", "a")}, "--order: not an order of labels"),
        ({"scale": "real", "similarity": shared}, "--similarity: it replaces the scale"),
        ({"similarity": lambda a, b: 7}, "--similarity: 7.0 for 'x' and 'x'; expected a number from 0 to 1"),
        ({"similarity": lambda a, b: 1 / 0}, "--similarity: fails for 'x' and 'x': ZeroDivisionError"),
        ({"similarity": lambda a, b: None}, "--similarity: fails for 'x' and 'x': TypeError"),
    ],
)
def test_a_scale_that_cannot_be_used_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        alt_test(PEOPLE, MODEL, **settings)


@pytest.mark.parametrize("settings", [{"epsilon": -0.1}, {"epsilon": 1.1}, {"q": 0}, {"min_items": 0}])
def test_a_setting_out_of_bounds_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        alt_test(PEOPLE, MODEL, **settings)


def test_two_labels_of_one_annotator_for_one_item_are_refused():
    with pytest.raises(ValueError, match="'A' gave item '1' two different labels"):
        alt_test([("1", "A", "x"), ("1", "A", "x"), ("1", "A", "y")], MODEL)
