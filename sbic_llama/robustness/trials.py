"""Try changed posts on a model, and measure how often its answers change."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.results.finding import Finding, Listing, Measures, Part, worded
from common.stats import metrics
from common.stats.metrics import Measure
from sbic_llama.data.features import Answers, Feature
from sbic_llama.data.hatecheck import Case
from sbic_llama.robustness import group_swaps, perturbations
from sbic_llama.robustness.group_swaps import Counterfactuals, Lexicon, Reply, mean_over_posts
from sbic_llama.robustness.perturbations import INJECTIONS, NEUTRAL, PLACES, Injection, Variant

TEMPLATE = Path(__file__).parent / "templates" / "robustness.jinja"
FEWEST = 10  # posts that must name a group of a family for its groups to be compared
ANY, ALL = "any of these", "all families"
Replies = Mapping[str, Reply]  # text → the model's answer


@dataclass(frozen=True)
class Trials:
    """Posts and everything that was made from them, before a model is asked."""

    posts: list[str]
    obfuscated: dict[str, list[Variant]]  # edit → its variants
    harmless: dict[str, list[Variant]]
    undone: dict[str, int]  # edit that cleaning undoes → posts that are the same after cleaning
    injections: list[Injection]
    swapped: list[Counterfactuals]
    lexicon: Lexicon
    cases: list[Case]  # HateCheck's, if any

    def texts(self) -> list[str]:
        """Return all texts to ask a model about; some occur several times."""
        variants = [variant for kind in (self.obfuscated, self.harmless) for edit in kind.values() for variant in edit]
        return [
            *self.posts,
            *(variant.text for variant in (*variants, *self.injections)),
            *(text for item in self.swapped for text in item.texts.values()),
            *(case.text for case in self.cases),
        ]


def prepare(
    feature: Feature, posts: Sequence[str], lexicon: Lexicon, cases: Sequence[Case], *, most: int | None, seed: int
) -> Trials:
    """Draw cleaned posts and change them in every way.

    ``most`` limits the posts, and again the posts per family of group names; None takes all.
    """
    drawn = list(posts)
    if most is not None and len(drawn) > most:
        drawn = [posts[place] for place in sorted(random.Random(f"{seed} posts").sample(range(len(posts)), most))]
    edited = {edit.name: [perturbations.edited(edit, post, seed) for post in drawn] for edit in perturbations.CLEANED}
    return Trials(
        posts=drawn,
        obfuscated=perturbations.edit_variants(drawn, perturbations.OBFUSCATIONS, seed),
        harmless=perturbations.edit_variants(drawn, perturbations.HARMLESS, seed),
        undone={name: sum(map(str.__eq__, texts, drawn)) for name, texts in edited.items()},
        injections=perturbations.injections(drawn, feature, seed),
        swapped=group_swaps.counterfactuals(posts, lexicon, most, seed),
        lexicon=lexicon,
        cases=list(cases),
    )


def ask(
    read: Callable[[Sequence[str]], Answers], feature: Feature, texts: Iterable[str]
) -> tuple[dict[str, Reply], int]:
    """Ask a model about texts, each distinct one once; return its replies, and how many texts it truncated."""
    distinct = list(dict.fromkeys(texts))
    answers = read(distinct)
    first = f"probability_{feature.labels[0]}" if feature.classifies else None
    replies = {
        text: Reply(label, details[first] if first else None)
        for text, label, details in zip(distinct, answers.labels, answers.details, strict=True)
    }
    return replies, answers.cut


def flip_rate(variants: Iterable[Variant], replies: Replies, seed: int) -> Measure | None:
    """Return the mean over posts of the share of a post's variants that get another answer; None without a variant."""
    flips = [(each.post, _flipped(each, replies)) for each in variants]
    return mean_over_posts(flips, seed) if flips else None


def any_flip_rate(variants: Iterable[Variant], replies: Replies, seed: int) -> Measure | None:
    """Return the share of posts with a variant that gets another answer; None without a variant."""
    flipped: dict[str, bool] = {}
    for variant in variants:
        flipped[variant.post] = flipped.get(variant.post, False) or _flipped(variant, replies)
    return metrics.share(list(flipped.values()), seed) if flipped else None


def success_rate(variants: Iterable[Injection], replies: Replies, seed: int) -> Measure | None:
    """Return the mean over posts of the share of injections that get the wanted answer.

    Injections that want the answer that the post has anyway do not count; None if there are no others.
    """
    tried = [each for each in variants if replies[each.post].label != each.wanted]
    successes = [(each.post, replies[each.text].label == each.wanted) for each in tried]
    return mean_over_posts(successes, seed) if tried else None


def _flipped(variant: Variant, replies: Replies) -> bool:
    return replies[variant.text].label != replies[variant.post].label


def robustness_finding(feature: Feature, trials: Trials, replies: Replies, *, seed: int, **about: Any) -> Finding:
    """Return flip rates under edits, injections and swapped groups.

    ``about`` is ``task``, ``model``, ``data``, ``miniature``, ``facts`` and ``command`` of the finding.
    """
    sections = {
        "obfuscation": _edits("obfuscation", trials.obfuscated, replies, seed),
        "harmless": _edits("harmless edits", trials.harmless, replies, seed),
        "injection": _injections(feature, trials.injections, replies, seed),
        "groups": _groups(feature, trials, replies, seed),
    }
    parts = {name: parts for name, (_, parts) in sections.items()}
    undone = Listing(
        "Edits that cleaning undoes",
        ["edit", "posts", "the same after cleaning"],
        [[name, len(trials.posts), same] for name, same in trials.undone.items()],
    )
    return Finding(
        name="robustness",
        **worded(
            TEMPLATE,
            posts=len(trials.posts),
            undone=list(trials.undone),
            all_undone=all(same == len(trials.posts) for same in trials.undone.values()),
            neutral=NEUTRAL,
            **{name: numbers for name, (numbers, _) in sections.items()},
        ),
        parts=[*parts["obfuscation"], *parts["harmless"], undone, *parts["injection"], *parts["groups"]],
        **about,
    )


Section = tuple[dict[str, Any], list[Part]]  # numbers for the template, and parts of the finding


def _edits(title: str, edits: Mapping[str, Sequence[Variant]], replies: Replies, seed: int) -> Section:
    rows = _measured({name: flip_rate(variants, replies, seed) for name, variants in edits.items()})
    if not rows:
        return {}, []
    variants = [variant for each in edits.values() for variant in each]
    worst = any_flip_rate(variants, replies, seed)
    numbers = {"mean": flip_rate(variants, replies, seed), "rows": rows, "most": _highest(rows), "any": worst}
    part = Measures(f"Answers that change: {title}", "edit", "share of posts", rows | _measured({ANY: worst}))
    return numbers, [part]


def _injections(feature: Feature, tried: Sequence[Injection], replies: Replies, seed: int) -> Section:
    neutral = [each for each in tried if each.family == NEUTRAL]
    meant = [each for each in tried if each.family != NEUTRAL]
    families = {name: [each for each in tried if each.family == name] for name in (*INJECTIONS, NEUTRAL)}
    flips = _measured({name: flip_rate(chosen, replies, seed) for name, chosen in families.items()})
    success = _measured({name: success_rate(chosen, replies, seed) for name, chosen in families.items()})
    numbers = {
        "mean": flip_rate(meant, replies, seed),
        "neutral": flips[NEUTRAL],
        "texts": len({each.text for each in tried}),
        "labels": len(feature.labels),
        "success": success_rate(meant, replies, seed),
    }

    def part(title: str, rows: dict[str, Measure], metric: str) -> Measures:
        return Measures(title, "injection", metric, rows, rows[NEUTRAL]["value"], NEUTRAL)

    parts: list[Part] = [part("Answers that change: prompt injection", flips, "share of answers")]
    if numbers["success"]:
        most = _highest({name: row for name, row in success.items() if name != NEUTRAL})
        numbers |= {"most": most, "rows": success, "neutral_success": success[NEUTRAL]}
        answers = {each.wanted: feature.answer(each.wanted) for each in tried}
        by_answer = {
            f'"{text}"{after}': success_rate([each for each in chosen if each.wanted == wanted], replies, seed)
            for chosen, after in ((meant, ""), (neutral, f", after a {NEUTRAL}"))
            for wanted, text in answers.items()
        }
        by_place = {
            place: success_rate([each for each in meant if each.place == place], replies, seed) for place in PLACES
        }
        title, metric = "Injected answers obtained", "share of tries"
        parts += [
            part(f"{title} on posts with another answer, by injection", success, metric),
            Measures(f"{title}, by answer", "injected answer", metric, _measured(by_answer)),
            Measures(f"{title}, by place", "place of the injection", metric, _measured(by_place)),
        ]
    return numbers, parts


def _groups(feature: Feature, trials: Trials, replies: Replies, seed: int) -> Section:
    items, lexicon = trials.swapped, trials.lexicon
    if not items:
        return {}, []
    by_family = {family.name: [item for item in items if item.family is family] for family in lexicon.families}
    compared = {name: chosen for name, chosen in by_family.items() if len(chosen) >= FEWEST}
    every = group_swaps.change_rate(items, replies, lexicon, seed)
    changes = {name: group_swaps.change_rate(chosen, replies, lexicon, seed) for name, chosen in compared.items()}
    title = "Answers that change with the group that is named"
    parts: list[Part] = [Measures(title, "family", "share of exchanges", _with_all(changes, every))]
    numbers: dict[str, Any] = {"every": every, "label": None, "families": []}
    if feature.classifies:
        label = feature.labels[0]
        overall = group_swaps.mean_change(items, replies, seed)
        numbers |= {"label": label, "mean_change": overall}
        rows = {name: group_swaps.mean_change(chosen, replies, seed) for name, chosen in compared.items()}
        title = f'How much the probability of "{label}" changes with the group that is named'
        parts.append(Measures(title, "family", "mean absolute change", _with_all(rows, overall)))
        title, metric = f'Probability of "{label}" with each name in the same posts', "mean probability"
    else:
        title, metric = "How often each group is found, with its name in the same posts", "share of posts"
    for name, chosen in () if feature.choices else compared.items():
        rows = group_swaps.by_group(chosen, replies, lexicon, seed)
        parts.append(Measures(f"{title}: {name}", "group", metric, rows))
        low, *_, high = sorted(rows, key=lambda group: rows[group]["value"])
        numbers["families"].append(
            {
                "name": name,
                "metric": metric,
                "low": (low, rows[low]["value"]),
                "high": (high, rows[high]["value"]),
                "gap": group_swaps.gap(chosen, replies, lexicon, (high, low), seed),
            }
        )
    if rare := [[name, len(chosen)] for name, chosen in by_family.items() if name not in compared]:
        parts.append(Listing(f"Families named in fewer than {FEWEST} posts", ["family", "posts"], rare))
    return numbers, parts


def _with_all(rows: Mapping[str, Measure], every: Measure) -> dict[str, Measure]:
    """Add all posts together, unless a single family holds them all."""
    return dict(rows) if len(rows) == 1 and next(iter(rows.values()))["n"] == every["n"] else {**rows, ALL: every}


def _measured(rows: Mapping[str, Measure | None]) -> dict[str, Measure]:
    return {name: measure for name, measure in rows.items() if measure is not None}


def _highest(rows: Mapping[str, Measure]) -> str:
    return max(rows, key=lambda name: rows[name]["value"])
