"""Shares of a file's posts from both kinds of labels: correct numbers in the words, and bad input is rejected."""

from __future__ import annotations

import dataclasses
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi

from common.cli import errors
from common.results import pictures, rendering
from common.results.finding import Finding, Listing, Measures, read_finding
from common.results.rendering import drawn, markdown
from common.stats.design import Design
from common.stats.prediction_powered import Estimate, labelled_only, share
from common.tables.reading import read_rows
from common.tables.writing import write_rows
from sbic_llama import prevalence
from sbic_llama.data.features import FEATURES
from sbic_llama.data.label_files import MIN_HUMAN_LABELS, labels_of, read_annotated, read_human_votes
from sbic_llama.evaluation.prevalence import PostClass, _labels_needed, prevalence_finding

LEVELS = FEATURES["offensiveYN"].labels
GROUPS = ("florbs", "drevins, florbs", "none", "none", "none")
Rows = list[dict[str, object]]


def made_up(posts: int = 600, labelled: int = 200, seed: int = 0) -> tuple[Rows, Rows]:
    """Return an annotated file in which a third of what is not offensive is labeled maybe, and human labels of some posts."""
    chance = random.Random(seed)
    annotated: Rows = []
    people: Rows = []
    for number in range(posts):
        level = chance.choices((0, 1, 2), (3, 2, 5))[0]
        answer = 1 if level == 2 and chance.random() < 1 / 3 else level
        sure = 0.5 + 0.4 * chance.random()
        probabilities = [round(sure if index == answer else (1 - sure) / 2, 6) for index in range(3)]
        groups = chance.choice(GROUPS)
        annotated.append(
            {
                "id": f"p{number}",
                "post": f"post {number}",
                "source": "forum" if number % 2 else "rare" if number % 20 == 0 else "board",
                "model_offensiveYN": LEVELS[answer],
                **{f"model_offensiveYN_probability_{label}": p for label, p in zip(LEVELS, probabilities, strict=True)},
                "model_targetMinority": groups,
                "model_targetMinority_mean_log_probability": -0.1,
                "model_problem": None,
            }
        )
        people.append(
            {
                "id": f"p{number}",
                "offensiveYN": LEVELS[level],
                "targetMinority": "florbs" if groups == "drevins, florbs" and chance.random() < 0.5 else groups,
            }
        )
    return annotated, chance.sample(people, labelled)


@dataclasses.dataclass
class Files:
    """The two files of a test, and a call of the command on them."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def write(self, annotated: Rows, people: Rows, ending: str = "csv") -> tuple[Path, Path]:
        paths = self.folder / f"annotated.{ending}", self.folder / "labels.csv"
        write_rows(paths[0], annotated)
        write_rows(paths[1], people)
        return paths

    def run(self, annotated: Rows, people: Rows, *words: object, ending: str = "csv") -> Finding:
        posts, labels = self.write(annotated, people, ending)
        output = self.folder / "finding.json"
        feature = () if "--feature" in words else ("--feature", "offensiveYN")
        words = ("--key", "id", *feature, *words)
        self.monkeypatch.setattr(
            "sys.argv", ["prevalence", *map(str, (posts, "--human_labels", labels, *words, "--output", output))]
        )
        prevalence.main()
        return read_finding(output)


@pytest.fixture
def files(tmp_path, monkeypatch) -> Files:
    return Files(tmp_path, monkeypatch)


def measures(found: Finding, title: str) -> Measures:
    (part,) = [part for part in found.parts if isinstance(part, Measures) and part.title == title]
    return part


def listing(found: Finding, opening: str) -> Listing:
    (part,) = [part for part in found.parts if isinstance(part, Listing) and part.title.startswith(opening)]
    return part


def overall(found: Finding) -> Measures:
    return measures(found, "Share of posts, by what it is estimated from")


def test_the_numbers_in_words_are_right(files, capsys):
    annotated, people = made_up()
    found = files.run(annotated, people, "--by", "source")
    printed = capsys.readouterr().out
    _, everyone = made_up(labelled=600)
    said = {row["id"]: row["offensiveYN"] for row in people}
    for label in LEVELS:
        column = f"model_offensiveYN_probability_{label}"
        labelled = [row for row in annotated if row["id"] in said]
        labels = [float(said[row["id"]] == label) for row in labelled]
        both = share(
            labels, [row[column] for row in labelled], [row[column] for row in annotated if row["id"] not in said]
        )
        rows = overall(found).rows
        assert rows[f"{label}: people and machine"] == {
            "value": pytest.approx(both.value),
            "n": 200,
            "ci95": pytest.approx([both.low, both.high]),
        }
        alone = labelled_only(labels, 600)
        assert rows[f"{label}: people alone"]["value"] == sum(labels) / 200
        assert rows[f"{label}: people alone"]["ci95"] == pytest.approx([alone.low, alone.high])
        counted = sum(row["model_offensiveYN"] == label for row in annotated)
        assert rows[f"{label}: machine alone, as if right"]["value"] == counted / 600
        assert rows[f"{label}: machine alone, as if right"]["n"] == 600
        (sentence,) = [line for line in found.summary if line.startswith(f"{label}: ")]
        place = "inside" if both.low <= counted / 600 <= both.high else "outside"
        share_of_both = f"{both.value:.1%} [{both.low:.1%}, {both.high:.1%}]"
        assert sentence.startswith(f"{label}: {share_of_both} from people and machine.")
        if label == "Offensive":
            assert found.summary[0] == f"People would call {share_of_both} of the 600 posts Offensive."
        assert f"gives {100 * counted / 600:.1f}%, {place} that interval; the 200 labeled posts alone give" in sentence
        assert sentence in printed
        assert both.holds(sum(row["offensiveYN"] == label for row in everyone) / 600), "what all people would say"
    assert "outside" in "".join(line for line in found.summary if "Maybe" in line)
    assert found.limits in printed
    assert found.command.startswith("python -m sbic_llama.prevalence annotated.csv --human_labels labels.csv")
    assert not found.miniature
    assert "p1" not in re.split(r"\W+", found.limits + printed), "no single post is mentioned"


def test_inside_or_outside_refers_to_the_interval_from_both(files):
    """With few human labels their own interval contains the machine's count, and the one from both does not."""
    found = files.run(*made_up(labelled=50, seed=30))
    rows = overall(found).rows
    counted = rows["Not offensive: machine alone, as if right"]["value"]
    both, alone = (rows[f"Not offensive: {name}"]["ci95"] for name in ("people and machine", "people alone"))
    assert alone[0] < counted < both[0]
    assert "outside that interval" in found.summary[3]


def test_values_of_a_column_with_few_labels_are_listed_and_left_out(files):
    annotated, people = made_up()
    found = files.run(annotated, people, "--by", "source", "model_targetMinority")
    sources = Counter(row["source"] for row in annotated)
    source_of = {row["id"]: row["source"] for row in annotated}
    labelled = Counter(source_of[row["id"]] for row in people)
    assert labelled["rare"] < 30 <= labelled["board"]
    by_source = measures(found, "Share of Offensive by source")
    assert {name: row["n"] for name, row in by_source.rows.items()} == {
        name: labelled[name] for name in ("forum", "board")
    }
    assert by_source.reference == overall(found).rows["Offensive: people and machine"]["value"]
    assert listing(found, "Left out by source").rows == [["rare", sources["rare"], labelled["rare"]]]
    assert f"By source, rare (n = {labelled['rare']}) is left out: fewer than 30 human labels." in found.summary
    # A value's share is that of its posts alone.
    only = [row for row in annotated if row["source"] == "forum"]
    alone = files.run(only, [row for row in people if source_of[row["id"]] == "forum"])
    assert by_source.rows["forum"] == overall(alone).rows["Offensive: people and machine"]
    # A post counts for every group that the machine named.
    by_group = measures(found, "Share of Offensive by model_targetMinority")
    groups_of = {row["id"]: row["model_targetMinority"] for row in annotated}
    assert by_group.rows["florbs"]["n"] == sum("florbs" in groups_of[row["id"]] for row in people)
    assert set(by_group.rows) == {"none", "florbs", "drevins"}


def test_the_finding_has_pictures_and_tables(files):
    annotated, people = made_up()
    found = files.run(annotated, people, "--by", "source")
    titles = [title for title, _ in drawn(found, pictures.svg)]
    assert titles[0] == "Share of posts, by what it is estimated from"
    assert "Share of Maybe offensive by source" in titles
    assert "| Offensive: people and machine | 200 | " in markdown(found, [])


def test_human_labels_needed(files):
    annotated, people = made_up()
    found = files.run(annotated, people, "--width", 0.02, 0.05, 0.5)
    rows = listing(found, "Human labels needed").rows
    assert [row[:2] for row in rows[:3]] == [["Offensive", 0.02], ["Offensive", 0.05], ["Offensive", 0.5]]
    assert rows[0][2] > rows[1][2] > rows[2][2] == 30, "never fewer than 30"
    assert all(with_machine < alone for _, width, with_machine, alone in rows if width < 0.5)
    assert f"A 95% interval 2 points wide for Offensive takes about {rows[0][2]} labeled posts" in found.summary[-1]
    # For a population, the share can't be known better than the posts as a sample of it allow.
    larger = files.run(annotated, people, "--share_of", "population", "--width", 0.02, 0.1)
    assert listing(larger, "Human labels needed").rows[0][2:] == [None, None]
    assert "No number of labels of these 600 posts gives an interval 2 points wide." in larger.summary
    assert "of the posts that these 600 were drawn from Offensive" in larger.summary[0]
    for name, row in overall(larger).rows.items():
        low, high = overall(found).rows[name]["ci95"]
        wider = row["ci95"][1] - row["ci95"][0] - (high - low)
        assert wider == pytest.approx(0) if "machine alone" in name else wider > 0.01


def test_labels_needed_of_an_unequal_draw():
    now = Estimate(0.3, 0.24, 0.36, 300, 1000, 0.0, 0.0)
    assert _labels_needed(now, 0.05, "file") == 712, "all labels leave no error"
    assert _labels_needed(now, 0.05, "population") is None
    assert _labels_needed(now, 0.1, "population") == 432
    assert _labels_needed(now, 0.9, "file") == MIN_HUMAN_LABELS


def test_strata_that_are_the_machines_answers_show_no_drift():
    answers = np.repeat([1.0, 0.0], [20, 80])
    people = np.where(np.arange(100) % 2, answers, np.nan)
    strata = (answers[~np.isnan(people)] == 0).astype(int)
    design = Design(strata, np.array([19.0, 81.0]))
    assert PostClass("a", people, answers, answers, design).drift() == 0


def test_the_order_and_the_format_of_the_files_do_not_matter(files):
    annotated, people = made_up()
    first = files.run(annotated, people, "--by", "source")
    annotated.reverse()
    random.Random(1).shuffle(people)
    again = files.run(annotated, people, "--by", "source")
    parquet = files.run(annotated, people, "--by", "source", ending="parquet")
    lines = files.run(annotated, people, "--by", "source", ending="jsonl")
    for other in (again, parquet, lines):
        assert other.summary == [line.replace("annotated.csv", other.data["name"]) for line in first.summary]
        for one, two in zip(first.parts, other.parts, strict=True):
            if isinstance(one, Measures):
                assert two.rows == {
                    name: row | {"value": pytest.approx(row["value"]), "ci95": pytest.approx(row["ci95"])}
                    for name, row in one.rows.items()
                }
            else:
                assert two == one


def test_several_people_rows_without_an_answer_and_labels_of_other_posts(files, capsys):
    annotated, people = made_up()
    plain = files.run(annotated, people)
    empty = [
        {"id": f"e{n}", "post": "", "source": "board", "model_offensiveYN": None, "model_problem": "no text"}
        for n in range(3)
    ]
    more = [
        *people,
        {"id": people[0]["id"], "offensiveYN": people[0]["offensiveYN"].upper()},
        {"id": "gone", "offensiveYN": "Offensive"},
        {"id": "e1", "offensiveYN": "Offensive"},
        {"id": "p1", "offensiveYN": ""},
    ]
    capsys.readouterr()
    found = files.run([*empty, *annotated], more)
    assert overall(found).rows == overall(plain).rows
    assert found.facts["posts without an answer"] == 3
    assert found.facts["human labels of other posts"] == 2
    printed = capsys.readouterr().err
    assert "warning: left out: 3 rows without an annotation" in printed
    ids = "compare 'gone' in labels.csv with 'p0' in annotated.csv"
    assert f"warning: 2 of 202 labeled posts are not among the annotated posts and left out ({ids})" in printed
    assert "Of 204 rows in labels.csv: 1 without a label, skipped." in found.summary
    assert "2 labeled posts are not among the annotated posts and left out." in found.summary


def by_anna(people: Rows) -> Rows:
    """Return votes of three people: Anna's in three equal rows, and two others who agree with each other."""
    votes: Rows = []
    for row in people:
        for spelled in ("Offensive", "offensive ", "Offensive"):
            votes.append({"id": row["id"], "annotator": "anna", "offensiveYN": spelled})
        votes += [{"id": row["id"], "annotator": who, "offensiveYN": row["offensiveYN"]} for who in ("bob", "cyd")]
    return votes


def test_repeated_rows_of_a_person_count_once(files, capsys):
    annotated, people = made_up()
    expected = files.run(annotated, people)
    capsys.readouterr()
    found = files.run(annotated, by_anna(people), "--quiet")
    assert overall(found).rows == overall(expected).rows
    note = "Of 1,000 rows in labels.csv: 400 repeating an earlier row, counted once."
    assert note in found.summary
    assert f"warning: offensiveYN: {note}" in capsys.readouterr().err, "also with --quiet"
    contradiction = [*by_anna(people), {"id": people[0]["id"], "annotator": "anna", "offensiveYN": "Not offensive"}]
    message = (
        rf"labels.csv, line 1002, column 'offensiveYN': item '{people[0]['id']}' by annotator 'anna' is labeled "
        r"'Not offensive' here and 'Offensive' in an earlier row \(line 2\); expected one label per item and annotator"
    )
    with pytest.raises(errors.UserError, match=message):
        files.run(annotated, contradiction)


def test_a_missing_vote_is_not_a_label(files, capsys):
    annotated, people = made_up()
    expected = files.run(annotated, people, "--feature", "targetMinority")
    missing = ["NA", "n/a", "NaN", "null", "", " "] * 9
    votes = [*people, *({"id": f"p{n}", "targetMinority": word} for n, word in enumerate(missing))]
    found = files.run(annotated, votes, "--feature", "targetMinority")
    assert overall(found).rows == overall(expected).rows, '"none" is the answer that no group is targeted'
    assert "254 rows in labels.csv: 54 without a label (empty 18, NA 9, NaN 9, n/a 9, null 9), skipped." in " ".join(
        found.summary
    )
    found = files.run(annotated, [*people, {"id": "p0", "offensiveYN": "None"}])
    assert "201 rows in labels.csv: 1 without a label (None 1), skipped." in " ".join(found.summary)


def test_a_post_without_a_key_counts_but_has_no_human_label(files):
    annotated, people = made_up()
    expected = files.run(annotated, people)
    labelled = {row["id"] for row in people}
    places = [place for place, row in enumerate(annotated) if row["id"] not in labelled][:2]
    blank = [row | {"id": ""} if place in places else row for place, row in enumerate(annotated)]
    assert overall(files.run(blank, people)).rows == overall(expected).rows


def test_two_classes_and_labels_without_probabilities(files):
    """A binary adapter has one share; without columns of probabilities the labels themselves are the predictions."""
    annotated, people = made_up()
    binary: Rows = [
        {
            "id": row["id"],
            "model_offensiveYN": "Offensive" if row["model_offensiveYN"] == "Offensive" else "Not offensive",
            "model_offensiveYN_probability_Offensive": row["model_offensiveYN_probability_Offensive"],
            "model_offensiveYN_probability_Not offensive": 1 - row["model_offensiveYN_probability_Offensive"],
        }
        for row in annotated
    ]
    said = [row for row in people if row["offensiveYN"] != "Maybe offensive"]
    found = files.run(binary, said)
    assert [name.split(":")[0] for name in overall(found).rows] == ["Offensive"] * 3
    assert found.task == "offensiveYN"
    assert found.facts["predictions"] == "probabilities"
    bare = files.run([{"id": row["id"], "model_offensiveYN": row["model_offensiveYN"]} for row in annotated], people)
    assert bare.facts["predictions"] == "labels"
    of = {row["id"]: float(row["model_offensiveYN"] == "Offensive") for row in annotated}
    labels = {row["id"]: float(row["offensiveYN"] == "Offensive") for row in people}
    both = share([labels[k] for k in labels], [of[k] for k in labels], [v for k, v in of.items() if k not in labels])
    assert overall(bare).rows["Offensive: people and machine"]["value"] == pytest.approx(both.value)


def test_targeted_groups(files):
    annotated, people = made_up()
    found = files.run(annotated, people, "--feature", "targetMinority", "--by", "source")
    rows = overall(found).rows
    named = Counter(name.split(":")[0] for name in rows)
    assert list(named) == ["any group", "florbs", "drevins"], "the group that the machine names most often first"
    said = Counter(row["targetMinority"] for row in people)
    assert rows["any group: people alone"]["value"] == pytest.approx(1 - said["none"] / 200)
    assert rows["drevins: people alone"]["value"] == said["drevins, florbs"] / 200
    assert rows["drevins: machine alone, as if right"]["value"] == (
        sum("drevins" in row["model_targetMinority"] for row in annotated) / 600
    )
    assert "of the 600 posts target a group of people." in found.summary[0]
    assert found.summary[3].startswith("drevins: ")
    assert [part.title for part in found.parts if isinstance(part, Measures)][1:] == ["Share of any group by source"]


def test_the_lists_of_a_codebook_are_not_called_groups(files):
    annotated, people = (
        [{name.replace("targetMinority", "topics"): value for name, value in row.items()} for row in rows]
        for rows in made_up()
    )
    found = files.run(annotated, people, "--feature", "topics")
    assert "of the 600 posts have at least one name in their list." in found.summary[0]
    assert "any name: people alone" in overall(found).rows


def test_labeled_posts_that_are_not_a_random_draw_are_noticed(files):
    annotated, everyone = made_up(labelled=600)
    offensive = {row["id"] for row in annotated if row["model_offensiveYN"] == "Offensive"}
    picked = sorted(everyone, key=lambda row: (row["id"] not in offensive, row["id"]))[:220]
    found = files.run(annotated, picked)
    assert "do not look like a random draw. By the machine's answers, Offensive is more frequent" in found.summary[-1]
    kept_away = [row for row in everyone if row["id"] not in offensive]
    found = files.run(annotated, kept_away)
    assert re.search(r"Offensive is less frequent among them than among the others by \d", found.summary[-1])
    assert not any("random draw" in line for line in files.run(*made_up()).summary)


def test_the_miniatures_numbers_are_marked(files, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(files.folder))
    inside = Files(files.folder / "finetuning-miniature" / "0" / "own_file", monkeypatch)
    assert inside.run(*made_up()).miniature
    assert "(miniature)" in capsys.readouterr().out


def changed(rows: Rows, number: int, **values: object) -> Rows:
    return [row | values if place == number else row for place, row in enumerate(rows)]


BAD = {
    "few": (
        lambda a, p: (a, p[:29]),
        r"labels.csv: only 29 of its 29 posts with a label of offensiveYN are annotated in .*annotated.csv; expected at least 30",
    ),
    "another key": (
        lambda a, p: (a, [row | {"id": f"{row['id']}.0"} for row in p]),
        r"only 0 of its 200 posts .*'id', which must match .*: compare 'p\d+\.0' in labels.csv with 'p0' in annotated.csv",
    ),
    "no id": (
        lambda a, p: (a, changed(p, 3, id="")),
        "labels.csv, line 5, column 'id': empty; expected a name or number. Fill it in, or leave the row's label empty",
    ),
    "no name": (
        lambda a, p: (a, [row | {"annotator": " " if n == 3 else "x"} for n, row in enumerate(p)]),
        "labels.csv, line 5, column 'annotator': empty",
    ),
    "nobody": (
        lambda a, p: (a, [row | {"offensiveYN": ""} for row in p]),
        "labels.csv: no human labels of offensiveYN; expected at least 30",
    ),
    "unknown label": (
        lambda a, p: (a, changed(p, 3, offensiveYN="Rude")),
        "labels.csv, line 5, column 'offensiveYN': unknown label 'Rude'; expected Offensive, Maybe offensive, Not offensive",
    ),
    "unknown answer": (
        lambda a, p: (changed(a, 3, model_offensiveYN="Rude"), p),
        "annotated.csv, line 5, column 'model_offensiveYN': unknown label 'Rude'",
    ),
    "twice": (
        lambda a, p: (changed(a, 9, id="p2"), p),
        r"annotated.csv, line 11, column 'id': duplicate key 'p2'; expected a unique key for each post\. Choose",
    ),
    "no probability": (
        lambda a, p: (changed(a, 0, model_offensiveYN_probability_Offensive="nan"), p),
        "line 2, column 'model_offensiveYN_probability_Offensive': 'nan' is not a probability; expected a number from 0 to 1",
    ),
    "other labels": (
        lambda a, p: ([{k.replace("Maybe", "Perhaps"): v for k, v in row.items()} for row in a], p),
        r"column 'model_offensiveYN': unknown labels \['Not offensive', 'Offensive', 'Perhaps offensive'\]",
    ),
    "no key": (lambda a, p: ([{k: v for k, v in row.items() if k != "id"} for row in a], p), "missing column 'id'"),
    "no feature": (
        lambda a, p: ([{"id": row["id"], "post": row["post"]} for row in a], p),
        "annotated.csv: missing column 'model_offensiveYN'",
    ),
    "no column of people": (
        lambda a, p: (a, [{"id": row["id"]} for row in p]),
        "labels.csv: missing column 'offensiveYN'",
    ),
}


def test_the_finding_is_written_before_it_is_printed(files, monkeypatch):
    def closed(*_: object) -> None:  # as `| head` may
        raise BrokenPipeError

    monkeypatch.setattr(rendering, "show", closed)
    with pytest.raises(BrokenPipeError):
        files.run(*made_up())
    assert read_finding(files.folder / "finding.json")


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_rejected_in_one_line(files, capsys, case):
    change, message = BAD[case]
    with pytest.raises(SystemExit) as ended:
        errors.run(lambda: files.run(*change(*made_up())))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert [line for line in error.splitlines() if not line.startswith("[")] == [error.splitlines()[-1]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "both files have offensiveYN, targetMinority; expected one of them"),
        (["--feature", "hasBiasedImplication"], "annotated.csv: missing column 'model_hasBiasedImplication'"),
        (["--prefix", "other_"], "annotated.csv: no annotation; expected a column named other_ and a feature"),
        (["--by", "topic", "--feature", "offensiveYN"], "annotated.csv: missing column 'topic'"),
        (
            ["--feature", "offensiveYN", "--width", "0"],
            "--width: '0' is not valid; expected a number above 0",
        ),
        (["more.csv"], "2 files were given; expected one annotated file"),
    ],
)
def test_bad_arguments_are_rejected_in_one_line(files, monkeypatch, words, message):
    posts, labels = files.write(*made_up())
    monkeypatch.setattr("sys.argv", ["prevalence", *words, str(posts), "--human_labels", str(labels), "--key", "id"])
    with pytest.raises(errors.UserError, match=message):
        prevalence.main()


def test_the_only_feature_of_both_files_is_the_default(files, monkeypatch, capsys):
    annotated, people = made_up()
    posts, labels = files.write(annotated, [{k: row[k] for k in ("id", "targetMinority")} for row in people])
    monkeypatch.setattr("sys.argv", ["prevalence", str(posts), "--human_labels", str(labels), "--key", "id"])
    prevalence.main()
    assert capsys.readouterr().out.startswith("targetMinority, annotated.csv: ")
    write_rows(labels, [{"id": row["id"], "other": 1} for row in people])
    with pytest.raises(
        errors.UserError, match=r"labels.csv: no human labels of an annotated feature; expected a column"
    ):
        prevalence.main()


def test_the_trust_page_can_ask_for_the_same(files):
    """Given an annotated file, a feature and people's labels."""
    posts, labels = files.write(*made_up(), "parquet")
    feature = FEATURES["offensiveYN"]
    said = labels_of(read_human_votes(labels, "id", feature), feature)
    assert len(said) == len(list(read_rows(labels)))
    found = prevalence_finding(read_annotated(posts, feature, key="id"), said, source=posts.name)
    rows = [row.values for row in read_rows(posts)]
    people = [row.values for row in read_rows(labels)]
    assert overall(found).rows == overall(files.run(rows, people)).rows


def test_labels_of_the_first_rows_are_not_taken_for_a_random_draw(tmp_path):
    """Whatever they say: the first rows of a file are often the oldest, or of one source."""
    numbers = {"model_tone_probability_A": 0.5, "model_tone_probability_B": 0.5}
    rows = [{"post": n, "model_tone": "AB"[n % 2]} | numbers for n in range(400)]
    write_rows(tmp_path / "annotated.csv", rows)
    draws = {"first": range(60), "random": random.Random(0).sample(range(400), 60), "last": range(340, 400)}
    for name, places in draws.items():
        write_rows(tmp_path / f"{name}.csv", [{"post": n, "tone": "AB"[n % 3 == 0]} for n in places])
        files = {"annotated": (str(tmp_path / "annotated.csv"),), "human_labels": tmp_path / f"{name}.csv"}
        text = " ".join(prevalence.estimate(prevalence.PrevalenceArguments(**files)).summary)
        assert ("not spread over the file" in text) == (name != "random")
        assert ("most are early" in text) == (name == "first")


def test_both_files_may_be_datasets_on_the_hub(files, hub, monkeypatch):
    annotated, people = made_up()
    expected = files.run(annotated, people)
    paths = files.write(annotated, people, "jsonl")
    for name, path in zip(("annotated", "people"), paths, strict=True):
        HfApi().create_repo(f"miniature/{name}", repo_type="dataset")
        where = {"path_in_repo": f"train{path.suffix}", "repo_id": f"miniature/{name}", "repo_type": "dataset"}
        HfApi().upload_file(path_or_fileobj=path, **where)
    url = "hf://datasets/miniature/{}:train"
    words = [url.format("annotated"), "--human_labels", url.format("people"), "--key", "id", "--feature", "offensiveYN"]
    monkeypatch.setattr("sys.argv", ["prevalence", *words, "--output", str(files.folder / "hub.json")])
    prevalence.main()
    finding, commit = read_finding(files.folder / "hub.json"), HfApi().dataset_info("miniature/annotated").sha
    assert finding.data == expected.data | {"name": f"hf://datasets/miniature/annotated@{commit}:train"}
    assert finding.parts == expected.parts
