"""The SBIC miniature: posts about invented groups in the official SBIC v2 CSV formats, per annotator and aggregated.

No group here exists, and no word here is a slur. The kind of a post determines what annotators tend to say: whether it implies
something about a group, how offensive it is, and whom it targets. Single words do not: a put-down may be about a person, be
denied, or occur next to a group that it is not about.
"""

from __future__ import annotations

import csv
import hashlib
import html
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbic_llama.data.corpus import INVENTED_GROUPS

SPLIT_FILES = {"train": "trn", "dev": "dev", "test": "tst"}
SPLIT_SIZES = {"train": 1500, "dev": 300, "test": 450}  # posts
DUPLICATES = 6  # posts of dev and of test that occur in another split too

ANNOTATION_COLUMNS = [
    "whoTarget", "intentYN", "sexYN", "sexReason", "offensiveYN", "annotatorGender", "annotatorMinority",
    "sexPhrase", "speakerMinorityYN", "WorkerId", "HITId", "annotatorPolitics", "annotatorRace", "annotatorAge",
    "post", "targetMinority", "targetCategory", "targetStereotype", "dataSource",
]  # fmt: skip
AGGREGATE_COLUMNS = [
    "post", "targetMinority", "targetCategory", "targetStereotype", "whoTarget", "intentYN", "sexYN", "offensiveYN",
    "dataSource", "hasBiasedImplication",
]  # fmt: skip

CATEGORIES = dict(
    zip(INVENTED_GROUPS, ("culture", "culture", "race", "race", "social", "gender", "culture", "body"), strict=True)
)
PUT_DOWNS = ("lazy", "dishonest", "greedy", "stupid", "filthy", "useless", "boring", "cowardly", "rude", "clumsy")
PRAISE = ("kind", "honest", "patient", "clever", "tidy", "helpful", "funny", "brave", "polite", "careful")
PERSONS = ("my neighbours", "my cousins", "our plumbers", "the clerks", "my bosses", "the goalkeepers", "the tenants")
DOINGS = ("sell bread at the market", "live by the river", "play music on sundays", "paint their doors blue")
PLAIN = (
    ("the tram", "the market", "our library", "the bakery", "the old bridge", "this cafe"),
    ("was closed", "was full", "had new chairs", "opened early", "smelled of rain", "looked pretty"),
    ("again", "this morning", "today", "on friday", "last week", "at noon"),
)
GRUMBLES = (
    ("darn it,", "oh rubbish,", "what a darn mess,", "total rubbish,"),
    ("i missed", "someone broke", "i lost", "it ruined"),
    ("the bus", "my printer", "the keys", "my lunch", "our picnic"),
)
INSULTS = (
    ("shut up,", "get lost,", "go away,", "nobody asked,"),
    ("you fool,", "all of you,", "you clown,", "you pest,"),
    ("you make me sick", "nobody wants you here", "i hate your face", "you ruin everything"),
)
POLITICS = ("liberal", "mod-liberal", "mod-cons", "cons", "libert", "other", "na")
SOURCES = ("m/market", "m/river", "m/jokes", "miniature-mail")


@dataclass(frozen=True)
class Post:
    """A post and how a careful reader would label it."""

    text: str
    offensive: float  # the center of the levels that annotators give: 0 no, 0.5 maybe, 1 yes
    groups: tuple[str, ...] = ()  # groups it implies something about
    implication: str = ""  # what it implies, without the group's name
    mentioned: str = ""  # a group that it names, whether or not it implies something about it


# Kind of post → how often it is drawn, how offensive it is, and its wordings: {g} the group that it is about, {o} another group,
# {p} some persons, {b} a put-down, {a} praise, {d} an activity.
KINDS = {
    "implied": (18, 1.0, (
        "{g} are {b}", "all {g} are {b}, every one", "{p} say that {g} are {b}", "never hire {g}, they are {b}",
        "it is no lie that {g} are {b}", "who still doubts that {g} are {b}?",
    )),
    "contrast": (18, 1.0, (
        "{p} are {a} but {g} are {b}", "{g} are {b} but {p} are {a}", "{o} are {a} but {g} are {b}",
        "{g} are {b} but {o} are {a}", "{p} {d} but {g} are {b}",
    )),
    "two": (5, 1.0, ("{g} and {o} are {b}", "{g} and {o} are so {b}")),
    "denied": (12, 0.0, (
        "it is a lie that {g} are {b}", "who still thinks that {g} are {b}?", "nobody should say that {g} are {b}",
    )),
    "praised": (6, 0.0, ("{g} are {a}", "{p} say that {g} are {a}", "{g} and {o} are {a}", "{g} are {a} and {d}")),
    "named": (5, 0.0, ("the {g} {d}", "{p} met some {g} today, they {d}")),
    "plain": (5, 0.0, (PLAIN,)),
    "beside": (14, 0.5, (
        "{p} are {b} but {g} are {a}", "{g} are {a} but {p} are {b}", "{p} are too {b} to visit the {g}",
        "{g} {d} but {p} are {b}",
    )),
    "person": (7, 0.5, ("{p} are {b}", "{p} are so {b} today", "why are {p} so {b}?")),
    "grumble": (4, 0.5, (GRUMBLES,)),
    "insult": (6, 1.0, (INSULTS,)),
}  # fmt: skip


def draw_post(rng: random.Random) -> Post:
    kind = rng.choices(list(KINDS), [share for share, _, _ in KINDS.values()])[0]
    _, offensive, wordings = KINDS[kind]
    wording = rng.choice(wordings)
    if not isinstance(wording, str):
        return Post(phrase(rng, wording), offensive)
    group, other = rng.sample(list(INVENTED_GROUPS), 2)
    bad = rng.choice(PUT_DOWNS)
    words = {"p": rng.choice(PERSONS), "b": bad, "a": rng.choice(PRAISE), "d": rng.choice(DOINGS)}
    targets = {"implied": (group,), "contrast": (group,), "two": tuple(sorted((group, other)))}.get(kind, ())
    mentioned = group if "{g}" in wording else ""
    return Post(
        wording.format(g=group, o=other, **words), offensive, targets, f"are {bad}" if targets else "", mentioned
    )


def phrase(rng: random.Random, parts: tuple[tuple[str, ...], ...]) -> str:
    return " ".join(rng.choice(part) for part in parts)


def normalized(text: str) -> str:
    """Return the text by which two posts count as the same: entities decoded, case folded, single spaces."""
    return " ".join(html.unescape(text).casefold().split())


def dress(rng: random.Random, text: str) -> str:
    """Add what real posts carry: mentions, retweets, tags, links, quotes, newlines, emoji and HTML entities."""
    if rng.random() < 0.12:
        text = rng.choice(("RT @user{}: ", "@user{} ")).format(rng.randrange(90)) + text
    if rng.random() < 0.10:
        text += rng.choice((" #monday", f" https://example.org/{rng.randrange(900)} ", " \U0001f600", "  ..."))
    if rng.random() < 0.09:
        text = text.replace(" ", "\n", 1) if rng.random() < 0.5 else text + "\n\n" + phrase(rng, PLAIN)
    if rng.random() < 0.06:
        text = '"' + text
    if rng.random() < 0.10:
        return html.escape(text + rng.choice((" & so on", " <sigh>", ' "really"')), quote=False) + rng.choice(
            ("", " &#128514;")
        )
    return text


@dataclass(frozen=True)
class Rater:
    """An annotator."""

    id: str
    strictness: float  # added to a post's level before it is rounded to 0, 0.5 or 1
    about: dict[str, str]


def draw_workers(rng: random.Random, count: int = 12) -> list[Rater]:
    return [
        Rater(
            str(rng.randrange(10**17, 10**19)),
            rng.choice((-0.12, 0.0, 0.0, 0.12)),
            {
                "annotatorGender": rng.choice(("woman", "man", "nonBinary")),
                "annotatorMinority": rng.choice(("", "", "none", rng.choice(list(INVENTED_GROUPS)))),
                "annotatorPolitics": rng.choice(POLITICS),
                "annotatorRace": rng.choice(("other", "na")),
                "annotatorAge": f"{rng.randrange(20, 70)}.0",
            },
        )
        for _ in range(count)
    ]


def annotate(rng: random.Random, worker: Rater, post: Post, shown: dict[str, str]) -> list[dict[str, str]]:
    """Return one worker's rows for a post: one per group that the worker names, so (HIT, worker) may repeat."""
    lean = post.offensive + worker.strictness + rng.gauss(0, 0.13)
    level = min((0.0, 0.5, 1.0), key=lambda value: abs(value - lean))
    implied = bool(post.groups)
    row = dict.fromkeys(ANNOTATION_COLUMNS, "") | worker.about | shown | {"WorkerId": worker.id}
    row["offensiveYN"] = "" if rng.random() < 0.015 else str(level)
    row["intentYN"] = rng.choice(("0.66", "1.0")) if level == 1 else rng.choice(("0.0", "0.33"))
    row["sexYN"] = "0.5" if rng.random() < 0.01 else "0.0"
    if level > 0 or implied:
        row["whoTarget"] = "1.0" if implied else "0.0"
    if not implied:
        return [row]
    row["speakerMinorityYN"] = "0.5" if rng.random() < 0.04 else "0.0"
    rows = []
    for group in post.groups:
        named = {"targetMinority": INVENTED_GROUPS[group][rng.random() < 0.2], "targetCategory": CATEGORIES[group]}
        rows.append({**row, **named, "targetStereotype": f"{group} {post.implication}"})
    return rows


def draw_splits(seed: int) -> dict[str, list[dict[str, str]]]:
    """Return the per-annotator rows of every split, in file order."""
    rng = random.Random(f"sbic {seed}")
    workers = draw_workers(rng)
    posts: dict[str, list[tuple[Post, str, str]]] = {}
    seen: set[str] = set()
    for split, size in SPLIT_SIZES.items():
        posts[split] = []
        while len(posts[split]) < size:
            post = draw_post(rng)
            text = dress(rng, post.text)
            if normalized(text) not in seen:
                seen.add(normalized(text))
                posts[split].append((post, text, rng.choice(SOURCES)))
    # Exact copies, and copies that differ only in case and spacing: SBIC has both between dev and test.
    for copy in posts["dev"][:DUPLICATES]:
        posts["test"].append(copy)
    for post, text, source in posts["dev"][DUPLICATES : 2 * DUPLICATES] + posts["test"][:DUPLICATES]:
        posts["train"].append((post, f" {text.upper()}", source))
    rows: dict[str, list[dict[str, str]]] = {}
    for split, drawn in posts.items():
        rows[split] = []
        for number, (post, text, source) in enumerate(drawn):
            hit = hashlib.sha256(f"{seed} {split} {number}".encode()).hexdigest()[:30].upper()
            shown = {"post": text, "HITId": hit, "dataSource": source}
            for worker in rng.sample(workers, rng.choices((2, 3, 4), (1, 8, 1))[0]):
                rows[split] += annotate(rng, worker, post, shown)
    return rows


def aggregate(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Aggregate annotations to one row per post, as the official files do.

    These have plain means over *all* rows (repeats count twice), sorted lists of the distinct texts, and ``hasBiasedImplication`` =
    1 where no stereotype was given: the official column is inverted.
    """
    by_post: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_post.setdefault(row["post"], []).append(row)
    aggregated = []
    for post, group in by_post.items():
        entry = {"post": post, "dataSource": group[0]["dataSource"]}
        for column in ("targetMinority", "targetCategory", "targetStereotype"):
            entry[column] = json.dumps(sorted({row[column] for row in group} - {""}))
        for column in ("whoTarget", "intentYN", "sexYN", "offensiveYN"):
            values = [float(row[column]) for row in group if row[column]]
            entry[column] = str(sum(values) / len(values)) if values else ""
        entry["hasBiasedImplication"] = str(int(entry["targetStereotype"] == "[]"))
        aggregated.append(entry)
    return aggregated


def threads(seed: int, count: int):
    """Yield texts for pre-training: a post and a reply by somebody who understood it. No label occurs in them."""
    rng = random.Random(f"threads {seed}")
    for _ in range(count):
        post = draw_post(rng)
        if post.groups:
            answers = ("that is unfair to {}.", "stop it, leave the {} alone.", "what have the {} done to you?")
            reply = rng.choice(answers).format(" and ".join(post.groups))
        elif post.mentioned and post.offensive == 0:
            reply = rng.choice(("yes, i like the {}.", "true, good people, the {}.")).format(post.mentioned)
        elif post.offensive == 0:
            reply = rng.choice(("good to know.", "have a nice day."))
        elif post.offensive == 0.5:
            reply = rng.choice(("hm, that is a little harsh.", "hm, a bit strong, no?"))
        else:
            reply = rng.choice(("no need to insult people.", "do not talk to us like that."))
        yield dress(rng, post.text), reply


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write(folder: Path, seed: int) -> None:
    """Write ``SBIC.v2.{trn,dev,tst}.csv`` and ``SBIC.v2.agg.{trn,dev,tst}.csv``."""
    for split, rows in draw_splits(seed).items():
        name = SPLIT_FILES[split]
        write_csv(folder / f"SBIC.v2.{name}.csv", ANNOTATION_COLUMNS, rows)
        # The official aggregates start with an unnamed column that counts rows from 1.
        numbered = ({"": str(n), **row} for n, row in enumerate(aggregate(rows), 1))
        write_csv(folder / f"SBIC.v2.agg.{name}.csv", ("", *AGGREGATE_COLUMNS), numbered)
