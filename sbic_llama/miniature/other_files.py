"""The other files of the SBIC miniature: HateCheck, MD-Agreement, a researcher's own file and own question.

Each has the exact format of the original and is written in the words of the SBIC miniature, about its invented groups.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from sbic_llama.data.corpus import INVENTED_GROUPS
from sbic_llama.miniature import sbic

# ---- HateCheck. Functionalities have their original names (Röttger et al. 2021). A model trained on the SBIC miniature can pass
# some of them; spelling variants and a few phrases are new to it on purpose.

CASE_COLUMNS = (
    *("", "functionality", "case_id", "test_case", "label_gold", "target_ident", "direction"),
    *("focus_words", "focus_lemma", "ref_case_id", "ref_templ_id", "templ_id", "case_templ"),
)
CASES = 6  # per template; a template that names a group gets as many groups

# Functionality → templates: {g} a group, {s} a nickname of it, {b} a put-down, {a} praise, {p} some persons, {d} an activity, {t} a
# thing. A leading "@" marks a case that addresses the group; "<name" derives the cases from that functionality's template of the
# same number.
TEMPLATES = {
    "derog_neg_emote_h": ("i am sick of {g}, they are {b}", "@{g}, i hate that all of you are {b}"),
    "derog_neg_attrib_h": ("{g} are {b}", "all {g} are {b}, every one", "@you {g} are {b}"),
    "derog_dehum_h": ("{g} are {b} weeds", "@you {g} are nothing but {b} pebbles"),
    "derog_impl_h": ("never hire {g}, they are {b}", "who still doubts that {g} are {b}?"),
    "threat_dir_h": ("we will chase all {g} away, they are {b}", "@get lost, you {b} {g}, or we come for you"),
    "threat_norm_h": ("all {g} are {b} and should be locked out", "somebody has to drive the {b} {g} away"),
    "slur_h": ("those {s} are {b}", "@you {s} are all {b}"),
    "slur_homonym_nh": ("the {s} in our garden bloom early", "{s} grow by the river"),
    "slur_reclaimed_nh": ("we {s} are {a}", "my friends and i are proud {s}"),
    "profanity_h": ("darn it, {g} are {b}", "@what a darn mess, you {g} are {b}"),
    "profanity_nh": ("darn it, i lost {t}", "what a darn mess, someone broke {t}"),
    "ref_subs_clause_h": ("{g} make bread, which is why they are {b}", "{p} met some {g}, who are {b}"),
    "ref_subs_sent_h": ("{g} live by the river. they are all {b}", "{p} met some {g}. they are {b}"),
    "negate_pos_h": ("{g} are not {a}", "{g} will never be {a}"),
    "negate_neg_nh": ("it is a lie that {g} are {b}", "nobody should say that {g} are {b}"),
    "phrase_question_h": ("why are {g} so {b}?", "is it a wonder that {g} are {b}?"),
    "phrase_opinion_h": ("it is no lie that {g} are {b}", "i think that {g} are {b}"),
    "ident_neutral_nh": ("the {g} {d}", "{p} met some {g} today"),
    "ident_pos_nh": ("{g} are {a}", "{p} say that {g} are {a}"),
    "counter_quote_nh": ('to say "{g} are {b}" is a lie', '"{g} are {b}"? nobody should say that'),
    "counter_ref_nh": ("who still thinks that {g} are {b}?", "it is a lie that {g} are {b}, shame on you"),
    "target_obj_nh": ("{t} is a {b} old thing", "how {b} {t} is today"),
    "target_indiv_nh": ("my neighbour is {b}", "that clerk is {b} today"),
    "target_group_nh": ("our plumbers are {b}", "why are the goalkeepers so {b}?"),
    **{
        f"spell_{kind}_h": ("<derog_neg_attrib_h", "<derog_neg_attrib_h")
        for kind in ("char_swap", "char_del", "space_del", "space_add", "leet")
    },
}


def misspell(functionality: str, text: str, word: str) -> str:
    """Respell a word of a text the way a spelling functionality does."""
    if functionality == "spell_space_del_h":
        return text.replace(f" {word}", word)
    respelled = {
        "spell_char_swap_h": word[0] + word[2] + word[1] + word[3:],
        "spell_char_del_h": word[:2] + word[3:],
        "spell_space_add_h": " ".join(word),
        "spell_leet_h": word.translate(str.maketrans("aeios", "43105")),
    }
    return text.replace(word, respelled[functionality])


def draw_cases(seed: int) -> list[dict[str, str]]:
    """Return the rows of the test suite, in order."""
    rng = random.Random(f"hatecheck {seed}")
    rows: list[dict[str, str]] = []
    numbers: dict[tuple[str, int], int] = {}
    cases: dict[tuple[str, int], list[dict[str, str]]] = {}
    for functionality, templates in TEMPLATES.items():
        hateful = functionality.endswith("_h")
        for place, template in enumerate(templates):
            key = (functionality, place)
            numbers[key] = len(numbers) + 1
            source = (template.removeprefix("<"), place) if template.startswith("<") else None
            cases[key] = [
                {
                    **case,
                    "": str(number),
                    "functionality": functionality,
                    "case_id": str(number + 1),
                    "label_gold": "hateful" if hateful else "non-hateful",
                    "direction": case["direction"] if hateful else "-",
                    "templ_id": str(numbers[key]),
                }
                for number, case in enumerate(cases[source] if source else _from_template(rng, template), len(rows))
            ]
            if source:
                for case in cases[key]:
                    reference = next(other for other in cases[source] if other["test_case"] == case["test_case"])
                    # The original writes these two columns as decimal numbers.
                    case["ref_case_id"], case["ref_templ_id"] = f"{reference['case_id']}.0", f"{numbers[source]}.0"
                    for column in ("test_case", "case_templ"):
                        case[column] = misspell(functionality, case[column], case["focus_words"])
            rows += cases[key]
    return rows


def _from_template(rng: random.Random, template: str) -> list[dict[str, str]]:
    about_groups = "{g}" in template or "{s}" in template
    groups = rng.sample(list(INVENTED_GROUPS), CASES) if about_groups else [""] * CASES
    insults = rng.sample(sbic.PUT_DOWNS, len(groups))
    text = template.removeprefix("@")
    cases: dict[str, dict[str, str]] = {}  # by text: each case once
    for group, insult in zip(groups, insults, strict=True):
        words = {"b": insult, "a": rng.choice(sbic.PRAISE), "p": rng.choice(sbic.PERSONS)}
        words |= {"d": rng.choice(sbic.DOINGS), "t": rng.choice(sbic.GRUMBLES[2])}
        focus = insult if "{b}" in text else words["a"] if "{a}" in text else "-"
        case = {
            "test_case": text.format(**words, g=group, s=group.rstrip("s") + "-heads"),
            "target_ident": group,
            "direction": "directed" if template.startswith("@") else "general",
            "focus_words": focus,
            "focus_lemma": focus,
            "ref_case_id": "",
            "ref_templ_id": "",
            "case_templ": text.format(**words, g="[IDENTITY_P]", s="[SLUR_P]"),
        }
        cases.setdefault(case["test_case"], case)
    return list(cases.values())


def write_hatecheck(folder: Path, seed: int) -> None:
    """Write ``test_suite_cases.csv``."""
    sbic.write_csv(folder / "test_suite_cases.csv", CASE_COLUMNS, draw_cases(seed))


# ---- MD-Agreement (Leonardelli et al. 2021): five named annotators per post say whether it is offensive, 1 or 0.

ITEMS = {"train": 200, "dev": 200}
ANNOTATORS, ANNOTATIONS = 12, 5  # in total, and per post
DOMAINS = ("Market", "River", "Trams")


def draw_items(seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return split → number → item. No post occurs twice, or in the SBIC miniature."""
    rng = random.Random(f"md-agreement {seed}")
    # How strict each annotator is: added to a post's level, which counts as offensive from .5 up.
    strictness = {f"Ann{n}": rng.choice((-0.25, -0.1, 0.0, 0.0, 0.1, 0.25)) for n in range(1, ANNOTATORS + 1)}
    seen = {sbic.normalized(row["post"]) for rows in sbic.draw_splits(seed).values() for row in rows}
    splits: dict[str, dict[str, dict[str, Any]]] = {}
    for split, size in ITEMS.items():
        items: dict[str, dict[str, Any]] = {}
        while len(items) < size:
            post = sbic.draw_post(rng)
            text = sbic.dress(rng, post.text)
            if sbic.normalized(text) in seen:
                continue
            seen.add(sbic.normalized(text))
            names = rng.sample(list(strictness), ANNOTATIONS)
            # A post of the middle level divides people; the others do so now and then.
            given = [int(post.offensive + strictness[name] + rng.gauss(0, 0.3) >= 0.5) for name in names]
            share = sum(given) / ANNOTATIONS
            items[str(len(items) + 1)] = {
                "text": text,
                "annotation task": "offensiveness detection",
                "number of annotations": ANNOTATIONS,
                "annotations": ",".join(map(str, given)),
                "annotators": ",".join(names),
                "lang": "en",
                "hard_label": str(int(share > 0.5)),
                "soft_label": {"0": round(1 - share, 1), "1": round(share, 1)},
                "split": split,
                "other_info": {"domain": rng.choice(DOMAINS)},
            }
        splits[split] = items
    return splits


def write_md_agreement(folder: Path, seed: int) -> None:
    """Write ``MD-Agreement_{train,dev}.json``."""
    for split, items in draw_items(seed).items():
        text = json.dumps(items, indent=4, ensure_ascii=False)
        (folder / f"MD-Agreement_{split}.json").write_text(text + "\n", encoding="utf-8")


# ---- A researcher's own file: posts, and the labels that a few people gave to some of them, one row per person.

LABELED = 160  # posts that people labeled
LEVELS = {"1.0": "Offensive", "0.5": "Maybe offensive", "0.0": "Not offensive", "": ""}


def write_own_file(folder: Path, seed: int) -> None:
    """Write ``posts.csv`` (id, post) and ``human_labels.csv`` (id, annotator, offensiveYN, targetMinority)."""
    people: dict[str, dict[str, dict[str, str]]] = {}
    for row in sbic.draw_splits(seed)["test"]:
        label = people.setdefault(row["post"], {}).setdefault(
            row["WorkerId"], {"level": row["offensiveYN"], "groups": ""}
        )
        label["groups"] = ", ".join(filter(None, [label["groups"], row["targetMinority"]]))
    posts = list(people)
    rows = ({"id": number, "post": post} for number, post in enumerate(posts, 1))
    sbic.write_csv(folder / "posts.csv", ("id", "post"), rows)
    chosen = sorted(random.Random(f"own file {seed}").sample(range(len(posts)), LABELED))
    columns = ("id", "annotator", "offensiveYN", "targetMinority")
    labels = (
        (number + 1, annotator, LEVELS[label["level"]], label["groups"] or "none")
        for number in chosen
        for annotator, label in people[posts[number]].items()
    )
    sbic.write_csv(folder / "human_labels.csv", columns, (dict(zip(columns, row, strict=True)) for row in labels))


# ---- A researcher's own question: a codebook, a table that people labeled by it, and posts to annotate. Does the author complain?

# Texts with labels; posts to annotate; those of them that people label too; texts of a second round of labels.
TASK_LABELED, TASK_POSTS, TASK_CHECKED, TASK_ROUND = 300, 600, 150, 100
TASK_PEOPLE = {"anna": 0.0, "ben": 0.1, "cleo": -0.1, "dov": 0.0}  # added to a post's level; Yes from 0.5 up
TASK_COLUMNS = ("id", "author", "post")
CODEBOOK = """\
name: complaint
question: Does the author complain?
instruction: Decide whether the author of the post complains about something or somebody.
labels:
  Yes: the author is annoyed by something or somebody
  No: the author reports, praises, or jokes
several: majority
examples:
  - {text: "darn it, someone broke the old bridge", label: Yes}
  - {text: "the bakery smelled of rain, and the clerks were kind", label: No}
columns: {text: post, label: complaint, annotator: annotator, item: id, group: author}
"""
# How much of a complaint a clause is, and its wordings: {t} a place, {s} what it did, {l} something lost, {p} some persons,
# {b} a put-down, {a} praise, {d} an activity, {w} when.
CLAUSES = (
    (1.0, ("darn it, i missed {l}", "oh rubbish, someone broke {l}", "total rubbish, i lost {l} {w}")),
    (
        1.0,
        (
            "{p} are so {b} {w}",
            "why are {p} so {b}",
            "{p} make me sick, they are {b}",
            "nobody asked {p}, they are {b}",
        ),
    ),
    (0.5, ("{t} {s} again", "{p} are too {b} to visit {t}")),
    (0.0, ("it is a lie that {p} are {b}", "nobody should say that {p} are {b}")),
    (0.0, ("{p} are {a} and {d}", "{p} are {a} {w}", "it is no lie that {p} are {a}")),
    (0.0, ("i met {p} {w}, they {d}", "{t} {s} {w}", "{p} {d} {w}")),
)
SHARES = (4, 4, 1, 1, 3, 4)  # how often each is drawn


def _clause(rng: random.Random, wordings: tuple[str, ...]) -> str:
    words = {"t": rng.choice(sbic.PLAIN[0]), "s": rng.choice(sbic.PLAIN[1]), "w": rng.choice(sbic.PLAIN[2][1:])}
    words |= {"l": rng.choice(sbic.GRUMBLES[2]), "p": rng.choice(sbic.PERSONS), "d": rng.choice(sbic.DOINGS)}
    return rng.choice(wordings).format(**words, b=rng.choice(sbic.PUT_DOWNS), a=rng.choice(sbic.PRAISE))


def draw_task(seed: int) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return posts with their id and author, and the labels of the people who read them: the table's, the file's, a round's."""
    rng = random.Random(f"own task {seed}")
    drawn: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
    while len(drawn) < TASK_LABELED + TASK_POSTS + TASK_ROUND:
        (level, wordings), (_, beside) = rng.choices(CLAUSES, SHARES)[0], CLAUSES[-1]
        clauses = [_clause(rng, wordings), _clause(rng, beside)]  # what it says, next to a plain report
        text = sbic.dress(rng, rng.choice((", ", ". ", " and ", " \u2013 ")).join(clauses))
        people = rng.sample(list(TASK_PEOPLE), rng.choice((2, 3, 3)))
        labels = {name: "Yes" if level + TASK_PEOPLE[name] + rng.gauss(0, 0.25) >= 0.5 else "No" for name in people}
        author = f"author{rng.randrange(120):03}"
        drawn.setdefault(sbic.normalized(text), ({"id": len(drawn) + 1, "author": author, "post": text}, labels))
    return list(drawn.values())


def write_own_task(folder: Path, seed: int) -> None:
    """Write ``codebook.yaml``, ``labels.csv`` (a row per person), ``posts.csv``, ``people.csv`` (of some), ``round2.csv``."""
    (folder / "codebook.yaml").write_text(CODEBOOK, encoding="utf-8")
    drawn = draw_task(seed)
    labeled, others, more = drawn[:TASK_LABELED], drawn[TASK_LABELED:-TASK_ROUND], drawn[-TASK_ROUND:]
    checked = random.Random(f"own task, checked {seed}").sample(others, TASK_CHECKED)
    checked.sort(key=lambda each: each[0]["id"])
    files = {"labels": (labeled, TASK_COLUMNS), "people": (checked, ("id",)), "round2": (more, TASK_COLUMNS)}
    for name, (chosen, columns) in files.items():
        rows = (
            {**{column: post[column] for column in columns}, "annotator": who, "complaint": label}
            for post, labels in chosen
            for who, label in labels.items()
        )
        sbic.write_csv(folder / f"{name}.csv", (*columns, "annotator", "complaint"), rows)
    sbic.write_csv(folder / "posts.csv", TASK_COLUMNS, (post for post, _ in others))
