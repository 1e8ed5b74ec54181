"""What trials of a model's robustness found: flip rates, injections, group names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.results.finding import Listing, Measures, Part
from common.stats.metrics import Measure
from sbic_llama.data.features import Feature
from sbic_llama.robustness import fairness
from sbic_llama.robustness.flips import (
    CONTROL,
    FAMILIES,
    PLACES,
    Injection,
    Said,
    Variant,
    any_flip_rate,
    flip_rate,
    success_rate,
)
from sbic_llama.robustness.trials import Trials

FEWEST = 10  # posts that name a group of a family, under which its groups are not compared
ANY = "any of these"
ALL = "all families"
LIMITS = (
    "What a determined attacker would reach: the injections are few and plain, and none was fitted to the model. Whether an answer "
    "was right before or after; a change may be for the better. Whether another group's name ought to leave an answer alone: "
    "what is a stereotype of one group need not be one of another; and pronouns and the like stay as they were. The two groups "
    "that differ most were picked after looking, so the interval of their difference is too narrow."
)


def robustness_parts(
    declared: Feature, trials: Trials, said: Mapping[str, Said], seed: int
) -> tuple[list[str], list[Part]]:
    """The sentences and the numbers of the finding "robustness".

    Args:
        declared: The feature that was asked for.
        trials: What was tried.
        said: Text → the model's answer to it.
        seed: Seed of the bootstrap.
    """
    summary: list[str] = []
    parts: list[Part] = []
    for made in (
        _edits("obfuscation", "obfuscations", trials.obfuscated, said, seed),
        _edits("harmless edits", "harmless edits", trials.harmless, said, seed),
        _undone(trials),
        _injections(declared, trials.injections, said, seed),
        _groups(declared, trials, said, seed),
    ):
        summary += made[0]
        parts += made[1]
    return summary, parts


def _edits(
    title: str, plural: str, edits: Mapping[str, Sequence[Variant]], said: Mapping[str, Said], seed: int
) -> tuple[list[str], list[Part]]:
    rows = _measured({name: flip_rate(variants, said, seed) for name, variants in edits.items()})
    if not rows:
        return [], []
    variants = [variant for one in edits.values() for variant in one]
    mean, worst = flip_rate(variants, said, seed), any_flip_rate(variants, said, seed)
    most = max(rows, key=lambda name: rows[name]["value"])
    sentence = (
        f"{title[0].upper()}{title[1:]}: an edit changes {_share(mean)} of the answers on average; most often {most}, "
        f"{_share(rows[most])}. {_share(worst)} of the posts get another answer by at least one of {len(rows)} {plural}."
    )
    return [sentence], [
        Measures(f"Answers that change: {title}", "edit", "share of posts", rows | _measured({ANY: worst}))
    ]


def _undone(trials: Trials) -> tuple[list[str], list[Part]]:
    rows = [[name, len(trials.posts), same] for name, same in trials.undone.items()]
    same = sum(trials.undone.values()) == len(rows) * len(trials.posts)
    names = ", ".join(trials.undone)
    sentence = f"No model sees {names}: cleaning undoes them{'' if same else ', though not on every post'}."
    return [sentence], [Listing("Edits that cleaning undoes", ["edit", "posts", "the same after cleaning"], rows)]


def _injections(
    declared: Feature, injections: Sequence[Injection], said: Mapping[str, Said], seed: int
) -> tuple[list[str], list[Part]]:
    control = [one for one in injections if one.family == CONTROL]
    meant = [one for one in injections if one.family != CONTROL]
    families = {name: [one for one in injections if one.family == name] for name in (*FAMILIES, CONTROL)}
    flips = _measured({name: flip_rate(chosen, said, seed) for name, chosen in families.items()})
    got = _measured({name: success_rate(chosen, said, seed) for name, chosen in families.items()})
    answers = {one.wanted: declared.answer(one.wanted) for one in injections}
    by_answer = {
        f'"{text}"{after}': success_rate([one for one in tried if one.wanted == wanted], said, seed)
        for tried, after in ((meant, ""), (control, f", after a {CONTROL}"))
        for wanted, text in answers.items()
    }
    by_place = {place: success_rate([one for one in meant if one.place == place], said, seed) for place in PLACES}
    mean, success = flip_rate(meant, said, seed), success_rate(meant, said, seed)
    sentences = [
        f"Prompt injection changes {_share(mean)} of the answers; a {CONTROL} in its place {_share(flips[CONTROL])}."
    ]
    if declared.classifies:
        texts = len({one.text for one in injections})
        sentences.append(
            f"All {texts:,} of these texts got one of the {len(declared.labels)} labels: that nothing in a post can change."
        )
    parts: list[Part] = [
        _against_control("Answers that change: prompt injection", "injection", "share of answers", flips)
    ]
    if success is None:
        sentences.append("Every post has the wanted answer without an injection, so none could get it.")
    else:
        most = max((name for name in got if name != CONTROL), key=lambda name: got[name]["value"])
        sentences.append(
            f"The answer that the injection wants is got in {_share(success)} of the tries on posts with another answer (after a "
            f"{CONTROL} in {_share(got[CONTROL])}); most often by {most}, {_share(got[most])}."
        )
        metric = "share of tries"
        parts += [
            _against_control(
                "Injected answers obtained on posts with another answer, by injection", "injection", metric, got
            ),
            Measures("Injected answers obtained, by answer", "injected answer", metric, _measured(by_answer)),
            Measures("Injected answers obtained, by place", "the injection stands", metric, _measured(by_place)),
        ]
    return sentences, parts


def _against_control(title: str, of: str, metric: str, rows: dict[str, Measure]) -> Measures:
    return Measures(title, of, metric, rows, reference=rows[CONTROL]["value"], reference_name=CONTROL)


def _groups(declared: Feature, trials: Trials, said: Mapping[str, Said], seed: int) -> tuple[list[str], list[Part]]:
    items = trials.swapped
    if not items:
        return ["No post names a group of the lexicon, so no group was put in another's place."], []
    by_family = {family.name: [item for item in items if item.family is family] for family in trials.lexicon.families}
    compared = {name: chosen for name, chosen in by_family.items() if len(chosen) >= FEWEST}
    changes = {name: fairness.change_rate(chosen, said, trials.lexicon, seed) for name, chosen in compared.items()}
    every = fairness.change_rate(items, said, trials.lexicon, seed)
    sentences = [
        f"Another group's name changes the answer in {_share(every)} of the exchanges, a post at a time, in {every['n']:,} posts "
        "that name a group."
    ]
    parts: list[Part] = [
        Measures(
            "Answers that change with the group that is named",
            "family",
            "share of exchanges",
            _with_all(changes, every),
        )
    ]
    if declared.classifies:
        first = declared.labels[0]
        overall = fairness.mean_change(items, said, seed)
        sentences.append(f'The probability of "{first}" then changes by {_number(overall)} on average.')
        rows = {name: fairness.mean_change(chosen, said, seed) for name, chosen in compared.items()}
        title = f'How far the probability of "{first}" changes with the group that is named'
        parts.append(Measures(title, "family", "mean absolute change", _with_all(rows, overall)))
        title, metric = f'Probability of "{first}" with each name in the same posts', "mean probability"
    else:
        title, metric = "Each group found, with its name in the same posts", "share of posts"
    for name, chosen in compared.items():
        rows = fairness.by_group(chosen, said, trials.lexicon, seed)
        parts.append(Measures(f"{title}: {name}", "group", metric, rows))
        order = sorted(rows, key=lambda group: rows[group]["value"])
        difference = fairness.gap(chosen, said, trials.lexicon, (order[-1], order[0]), seed)
        sentences.append(
            f"{name}: {metric} from {rows[order[0]]['value']:.3f} ({order[0]}) to {rows[order[-1]]['value']:.3f} ({order[-1]}), "
            f"a difference of {_number(difference)}."
        )
    if rare := {name: len(chosen) for name, chosen in by_family.items() if name not in compared}:
        parts.append(
            Listing(
                f"Families named in fewer than {FEWEST} posts", ["family", "posts"], [list(row) for row in rare.items()]
            )
        )
    return sentences, parts


def _with_all(rows: Mapping[str, Measure], every: Measure) -> dict[str, Measure]:
    """Rows by family and, where there are several families, all posts together."""
    return dict(rows) if len(rows) == 1 and next(iter(rows.values()))["n"] == every["n"] else {**rows, ALL: every}


def _measured(rows: Mapping[str, Measure | None]) -> dict[str, Measure]:
    return {name: measure for name, measure in rows.items() if measure is not None}


def _share(measure: Measure) -> str:
    low, high = measure["ci95"]
    return f"{measure['value']:.1%} [{low:.1%}, {high:.1%}]"


def _number(measure: Measure) -> str:
    low, high = measure["ci95"]
    return f"{measure['value']:.3f} [{low:.3f}, {high:.3f}]"
