"""Test draws for people to label: their probabilities, their files, and the way back into estimates."""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import math
import random
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.results.rendering import lines
from common.stats.design import design_of
from common.tables.reading import read_rows
from sbic_llama import sample
from sbic_llama.data.codebook import Codebook, Columns, read_codebook
from sbic_llama.data.features import feature_of
from sbic_llama.data.label_files import read_draw, read_human_votes
from sbic_llama.evaluation import both_labels
from sbic_llama.labeling import draw
from sbic_llama.prevalence import PrevalenceArguments, estimate

CODEBOOK = (
    "name: tone\nquestion: Is it <rude>?\ninstruction: Decide.\n"
    'labels:\n  Rude: "scolds \\"somebody\\""\n  Kind: ""\ncolumns: {text: post}\n'
)
ROWS = 900


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An annotated file in which the model misses most rude posts of one source, and what people would say."""
    folder, chance = tmp_path_factory.mktemp("sample"), random.Random(5)
    truth, rows = {}, []
    for number in range(ROWS):
        small = number % 10 == 0
        rude = chance.random() < (0.6 if small else 0.1)
        seen = rude and chance.random() < (0.2 if small else 0.9)
        sure = round(chance.uniform(0.55, 0.99), 6)
        truth[str(number)] = "Rude" if rude else "Kind"
        answer = "Rude" if seen else "Kind"
        numbers = [sure if answer == label else round(1 - sure, 6) for label in ("Rude", "Kind")]
        rows.append([number, f"post {number}", "small" if small else "large", answer, *numbers])
    rows.append([ROWS, " ", "large", "", "", ""])
    header = ["id", "post", "source", "model_tone", "model_tone_probability_Rude", "model_tone_probability_Kind"]
    with open(folder / "annotated.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    (folder / "codebook.yaml").write_text(CODEBOOK, encoding="utf-8")
    return folder, truth


def run(folder, *words):
    key = [] if "--key" in words else ["--key", "id"]
    arguments = parse(sample.SampleArguments, [str(folder / "annotated.csv"), *key, "--size", "120", *map(str, words)])
    sample.sample(arguments)
    return arguments.output


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 60), min_size=1),
    st.integers(30, 200),
    st.lists(st.floats(0.01, 9), min_size=6, max_size=6),
)
def test_every_stratum_gets_some_rows_and_no_more_than_it_has(sizes, size, weights):
    strata = {name: list(range(count)) for name, count in sizes.items()}
    counts = draw.allocated(dict(zip(sizes, weights, strict=False)), strata, size)
    assert sum(counts.values()) == min(size, sum(sizes.values()))
    assert all(min(draw.FEWEST, sizes[name]) <= counts[name] <= sizes[name] for name in sizes)


def test_probabilities_are_how_often_rows_are_drawn():
    confidences = [0.5 + 0.49 * number / 99 for number in range(100)]
    times, stated = Counter[int](), dict[int, float]()
    for seed in range(800):
        chosen = draw.by_uncertainty(range(100), confidences, 40, seed)
        times.update(each.row for each in chosen)
        stated |= {each.row: each.probability for each in chosen}
    assert len(chosen) == 40
    assert all(abs(times[row] / 800 - stated[row]) < 0.09 for row in range(100))
    assert stated[0] > stated[99] > 0


def test_size_for_a_width():
    assert draw.size_for(0.1, 0.5, 10**9) == 385  # the textbook's number for plus or minus 5 points
    assert draw.size_for(0.1, 0.5, 1000) == 278
    assert draw.size_for(0.001, 0.5, 50) == 50


def test_people_share_the_overlap_and_divide_the_rest():
    parts = draw.divided(10, 3, 0.2)
    assert parts == [[0, 1, 3, 6, 9], [0, 1, 4, 7], [0, 1, 2, 5, 8]]
    assert draw.divided(4, 1, 0.5) == [[0, 1, 2, 3]]


def test_a_draw_is_blind_and_the_same_for_a_seed(files, tmp_path, capsys):
    folder, _ = files
    first = run(folder, "--output", tmp_path / "a.csv")
    again = run(folder, "--output", tmp_path / "b.csv")
    other = run(folder, "--output", tmp_path / "c.csv", "--seed", 1)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    rows = [row.values for row in read_rows(first)]
    assert len(rows) == 120
    assert list(rows[0]) == ["id", "post", "source", "sampling_stratum", "sampling_probability", "tone"]
    assert {row["sampling_probability"] for row in rows} == {str(120 / ROWS)}
    assert not any(row["post"].isspace() for row in rows)
    assert "points wide for a share near 50%" in capsys.readouterr().out
    by_answer = run(folder, "--by", "model_tone", "--output", tmp_path / "d.csv")
    assert {row.values["sampling_stratum"] for row in read_rows(by_answer)} == {"1", "2"}
    shown = run(folder, "--show_model", "--output", tmp_path / "e.csv")
    assert "model_tone" in next(iter(read_rows(shown))).values


def test_each_person_gets_a_file_and_they_are_read_together(files, tmp_path):
    folder, truth = files
    run(folder, "--annotators", 2, "--overlap", 0.5, "--output", tmp_path / "people.csv")
    paths = sorted((tmp_path / "people").iterdir())
    assert [path.name for path in paths] == ["annotator_1.csv", "annotator_2.csv"]
    for path in paths:
        label(path, truth)
    finding = estimate(
        PrevalenceArguments(annotated=(str(folder / "annotated.csv"),), human_labels=path.parent, key="id")
    )
    assert finding.facts["human labels"] == 120


def label(path, truth):
    """Fill in what people would say."""
    rows = [row.values | {"tone": truth[row.values["id"]]} for row in read_rows(path)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_compressed_file_for_each_person(files, tmp_path):
    run(files[0], "--annotators", 2, "--output", tmp_path / "people.csv.gz")
    assert sorted(path.name for path in (tmp_path / "people").iterdir()) == ["annotator_1.csv.gz", "annotator_2.csv.gz"]
    assert list(read_rows(tmp_path / "people" / "annotator_2.csv.gz"))


def test_a_stratum_that_nobody_has_labeled_is_refused_and_a_small_one_reported(files, tmp_path, capsys, monkeypatch):
    folder, truth = files
    path = run(folder, "--by", "source", "--output", tmp_path / "draw.csv")
    label(path, {key: "" if int(key) % 10 == 0 else answer for key, answer in truth.items()})
    arguments = PrevalenceArguments(annotated=(str(folder / "annotated.csv"),), human_labels=path, key="id")
    with pytest.raises(UserError, match="no post of 1 stratum has a label yet, with 90 of 900 posts"):
        estimate(arguments)
    monkeypatch.setattr(both_labels, "DIFFERENT", 0.2)
    estimate(arguments)
    assert (
        "no post of 1 stratum has a label yet; the estimates take their posts to be like the others"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("tool", ["table", "label_studio", "prodigy", "doccano"])
def test_labels_come_back_from_every_tool_with_their_weights(files, tmp_path, tool):
    """Weighted, the share is right although people labeled the small source eight times as often."""
    folder, truth = files
    name = f"draw{ {'table': '.csv', 'label_studio': '.json'}.get(tool, '.jsonl') }"
    words = ["--codebook", folder / "codebook.yaml", "--by", "source", "--tool", tool, "--output", tmp_path / name]
    path = run(folder, *words)
    if tool == "table":
        label(path, truth)
    else:
        labeled = [in_tool(tool, record, truth) for record in records(path)]
        text = json.dumps(labeled) if tool == "label_studio" else "".join(json.dumps(each) + "\n" for each in labeled)
        path.write_text(text, encoding="utf-8")
    drawn = read_draw(path, "id", feature_of(read_codebook(folder / "codebook.yaml")))
    assert len(drawn) == 120
    assert {probability for _, probability in drawn.values()} == {60 / 90, 60 / 810}
    words = {
        "annotated": (str(folder / "annotated.csv"),),
        "human_labels": path,
        "key": "id",
        "feature": None if tool in ("table", "label_studio") else "tone",
    }
    finding = estimate(PrevalenceArguments(**words))
    share = sum(answer == "Rude" for answer in truth.values()) / ROWS
    low, high = finding.parts[0].rows["Rude: people and machine"]["ci95"]
    assert low <= share <= high
    assert finding.facts["strata"] == 2
    assert finding.facts["effective sample size"] == pytest.approx(900**2 / (60 * 1.5**2 + 60 * 13.5**2))
    assert "effective sample size" in " ".join(lines(finding))
    if tool == "table":  # without the weights the interval misses it
        plain = tmp_path / "plain.csv"
        plain.write_text(path.read_text(encoding="utf-8").replace("sampling_probability", "other"), encoding="utf-8")
        low, high = (
            estimate(PrevalenceArguments(**words | {"human_labels": plain}))
            .parts[0]
            .rows["Rude: people and machine"]["ci95"]
        )
        assert not low <= share <= high


def records(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else list(map(json.loads, text.splitlines()))


def in_tool(tool, record, truth):
    """Return a record as the tool exports it once a person has labeled it."""
    if tool == "label_studio":
        result = {
            "from_name": "tone",
            "to_name": "text",
            "type": "choices",
            "value": {"choices": [truth[record["data"]["id"]]]},
        }
        return {"id": 1, "annotations": [{"completed_by": 1, "was_cancelled": False, "result": [result]}], **record}
    if tool == "prodigy":
        return record | {"accept": [truth[record["meta"]["id"]]], "answer": "accept", "_annotator_id": "ann"}
    return record | {"label": [truth[record["id"]]]}


def test_the_configuration_of_label_studio_has_the_question_its_labels_and_definitions(files, tmp_path):
    folder, _ = files
    words = ["--codebook", folder / "codebook.yaml", "--tool", "label_studio", "--show_model"]
    run(folder, *words, "--output", tmp_path / "tasks.json")
    page = ElementTree.parse(tmp_path / "labeling_config.xml").getroot()
    assert page.find("Header").get("value") == "Is it <rude>?"
    assert page.find("Text").get("value") == "$post"
    assert [(each.get("value"), each.get("hint")) for each in page.find("Choices")] == [
        ("Rude", 'scolds "somebody"'),
        ("Kind", None),
    ]
    (first, *_) = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert first["predictions"][0]["result"][0]["value"]["choices"][0] in ("Rude", "Kind")
    assert not any(name.startswith("model_") for name in first["data"])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--by", "id"], "at least 5 rows to draw of each"),
        (["--by", "nothing"], "missing column 'nothing'"),
        (["--uncertain", "tones"], "missing column 'model_tones'|no answers to 'tones'"),
        (["--uncertain", "targetMinority"], "line 2, column 'model_targetMinority': missing"),
        (["--key", "source"], "the id of an earlier row"),
        (["--feature", "tones"], "unknown feature 'tones'"),
        (["--by", "source", "--uncertain", "tone"], "exclude each other"),
        (["--overlap", 0.5], "--overlap: only several people share rows. Add --annotators"),
        (["--tool", "prodigy"], "the wrong ending"),
        (["--text_column", "body"], "missing column 'body'"),
    ],
)
def test_what_is_refused_in_one_line(files, tmp_path, words, problem):
    folder, _ = files
    with pytest.raises(UserError, match=problem):
        run(folder, "--output", tmp_path / "draw.csv", *words)
    assert not (tmp_path / "draw.csv").exists()


def test_the_posts_and_their_ids_may_have_names_like_a_models_answers(tmp_path, capsys):
    (tmp_path / "codebook.yaml").write_text(CODEBOOK, encoding="utf-8")
    rows = "".join(f"{number},text {number},Rude\n" for number in range(300))
    (tmp_path / "annotated.csv").write_text(f"model_id,model_output,model_tone\n{rows}", encoding="utf-8")
    columns = ["--text_column", "model_output", "--key", "model_id", "--codebook", tmp_path / "codebook.yaml"]
    words = [tmp_path / "annotated.csv", *columns, "--size", 2, "--output", tmp_path / "draw.csv"]
    sample.sample(parse(sample.SampleArguments, list(map(str, words))))
    output = tmp_path / "draw.csv"
    assert all(row.values["model_output"] == f"text {row.values['model_id']}" for row in read_rows(output))
    assert "model_tone" not in next(iter(read_rows(output))).values
    assert "interval 100.0 points wide" in capsys.readouterr().out
    words = [*words[:-1], tmp_path / "tasks.json", "--tool", "label_studio", "--show_model"]
    sample.sample(parse(sample.SampleArguments, list(map(str, words))))
    for task in records(tmp_path / "tasks.json"):
        assert task["data"]["model_output"] == f"text {task['data']['model_id']}"
        assert "model_tone" not in task["data"] and task["predictions"]


def test_answers_without_their_numbers_are_refused(tmp_path):
    for header, missing in (("model_offensiveYN", "model_offensiveYN_probability_"), ("source", "model_offensiveYN")):
        (tmp_path / "annotated.csv").write_text(f"id,post,{header}\n1,text,Offensive\n", encoding="utf-8")
        words = [
            tmp_path / "annotated.csv",
            "--key",
            "id",
            "--uncertain",
            "offensiveYN",
            "--output",
            tmp_path / "d.csv",
        ]
        with pytest.raises(UserError, match=f"'{missing}'"):
            sample.sample(parse(sample.SampleArguments, [*map(str, words), "--feature", "offensiveYN"]))
    assert not (tmp_path / "d.csv").exists()


def test_labels_of_people_are_never_overwritten(files, tmp_path):
    folder, _ = files
    run(folder, "--output", tmp_path / "draw.csv")
    with pytest.raises(UserError, match="may hold people's labels"):
        run(folder, "--output", tmp_path / "draw.csv")
    (tmp_path / "labeling_config.xml").write_text("<View><!-- ours --></View>")
    with pytest.raises(UserError, match=r"labeling_config\.xml: the output already exists. Choose .* another folder"):
        run(folder, "--tool", "label_studio", "--output", tmp_path / "tasks.json")
    assert not (tmp_path / "tasks.json").exists()
    (tmp_path / "people").touch()
    with pytest.raises(UserError, match=r"annotator_1\.csv: can't be written"):
        run(folder, "--annotators", 2, "--output", tmp_path / "people.csv")


@pytest.mark.parametrize("tool", ["label_studio", "prodigy", "doccano"])
def test_tasks_have_every_column_whatever_it_is_called_and_holds(tmp_path, tool):
    (tmp_path / "codebook.yaml").write_text(CODEBOOK, encoding="utf-8")
    path, output = tmp_path / "posts.parquet", tmp_path / f"tasks.json{'' if tool == 'label_studio' else 'l'}"
    day, price = datetime.date(2026, 3, 1), decimal.Decimal("1.50")
    row = {"id": 1, "post": "a quiet day", "day": day, "price": price, "score": math.nan}
    words = [str(path), "--codebook", str(tmp_path / "codebook.yaml"), "--tool", tool, "--output", str(output)]

    def data(**more: str) -> dict:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row | more]), path)
        sample.sample(parse(sample.SampleArguments, words))
        (record,) = records(output)
        return record.get("data") or record.get("meta") or record

    if tool == "doccano":
        for column in ("label", "text"):
            with pytest.raises(UserError, match=f"column '{column}': the file has a column that the draw adds"):
                data(**{column: "ours"})
        values = data()
    else:
        values = data(text="ours", label="ours")
        assert (values["text"], values["label"]) == ("ours", "ours")
    assert (values["id"], values["day"], values["price"], values["score"]) == (1, "2026-03-01", "1.50", None)


def test_a_file_whose_weights_are_damaged_is_refused(files, tmp_path):
    folder, _ = files
    path = run(folder, "--by", "source", "--output", tmp_path / "draw.csv")
    written = path.read_text(encoding="utf-8").splitlines()
    for broken, problem in (
        (written[1].replace("0.", "7."), "is not a probability"),
        (written[2].replace(",1,", ",9,").replace(",2,", ",9,"), "was drawn otherwise in an earlier row"),
    ):
        path.write_text("\n".join([*written, broken]) + "\n", encoding="utf-8")
        with pytest.raises(UserError, match=problem):
            read_draw(path, "id", feature_of(read_codebook(folder / "codebook.yaml")))
    rows = [json.dumps(row.values) for row in read_rows(run(folder, "--by", "source", "--output", tmp_path / "a.csv"))]
    added = json.dumps({"id": "added", "post": "a text that was not drawn", "source": "small", "tone": "Rude"})
    path = tmp_path / "draw.jsonl"
    for order in ([*rows, added], [added, *rows]):
        path.write_text("\n".join(order), encoding="utf-8")
        with pytest.raises(UserError, match="column 'sampling_probability': missing; expected it in every row, or in"):
            read_draw(path, "id", feature_of(read_codebook(folder / "codebook.yaml")))


def test_strata_of_two_draws_are_kept_apart(tmp_path):
    """Each draw numbers its strata from 1: a row has the weight that its own draw gave it."""
    path = tmp_path / "labels.csv"
    rows = [(f"a{number}", 1, 0.05) for number in range(10)] + [(f"b{number}", 1, 0.5) for number in range(10)]
    head = "id,sampling_stratum,sampling_probability,tone"
    path.write_text("\n".join([head, *(f"{key},{name},{chance},Kind" for key, name, chance in rows)]), encoding="utf-8")
    drawn = read_draw(path, "id", feature_of(Codebook("tone", "Rude?", "Decide.", {"Rude": "", "Kind": ""})))
    assert design_of(drawn, list(drawn)).weights == pytest.approx([20] * 10 + [2] * 10)


def test_labels_in_the_columns_of_the_codebooks_own_table_are_read(tmp_path):
    columns = Columns(text="body", label="opinion", annotator="coder", item="number")
    feature = feature_of(Codebook("tone", "Rude?", "Decide.", {"Rude": "", "Kind": ""}, columns=columns))
    rows = [(1, "ann", "Rude"), (1, "bo", "kind"), (2, "ann", "Kind")]
    for header in (("number", "coder", "opinion"), ("number", "annotator", "tone"), ("number", "coder", "tone")):
        with open(tmp_path / "people.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        votes = read_human_votes(tmp_path / "people.csv", "number", feature)
        assert votes.labels == {"1": {"ann": 0, "bo": 1}, "2": {"ann": 1}}
    (tmp_path / "people.csv").write_text("number,other\n1,Rude\n", encoding="utf-8")
    with pytest.raises(UserError, match="missing column 'tone'"):
        read_human_votes(tmp_path / "people.csv", "number", feature)


def test_ties_are_counted_where_only_the_order_of_labels_decides(tmp_path, capsys):
    codebook = Codebook("tone", "Rude?", "Decide.", {"Rude": "", "Kind": ""})
    rows = [(1, "Rude"), (1, "Kind"), (2, "Kind"), (2, "Kind"), (2, "Rude"), (3, "Kind")]
    with open(tmp_path / "people.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "tone"), *rows])
    votes = read_human_votes(tmp_path / "people.csv", "id", feature_of(codebook))
    said = "1 post has equally many of two labels, of which the first in the codebook counts."
    assert said in votes.notes() and said in capsys.readouterr().err
    assert codebook.ties([0, 1]) and codebook.combine([0, 1]) == 0
    assert not codebook.ties([1, 1, 0]) and not codebook.ties([1])
    assert not replace(codebook, several="any").ties([0, 1]), "a rule that is not about counts"


def test_posts_may_be_a_split_on_the_hub(files, hub, tmp_path):
    from huggingface_hub import HfApi

    folder, _ = files
    HfApi().create_repo("miniature/posts", repo_type="dataset")
    where = {"path_in_repo": "train.csv", "repo_id": "miniature/posts", "repo_type": "dataset"}
    HfApi().upload_file(path_or_fileobj=folder / "annotated.csv", **where)
    words = ["--key", "id", "--size", "20", "--codebook", str(folder / "codebook.yaml")]
    drawn = []
    for posts, output in ((str(folder / "annotated.csv"), "here.csv"), ("hf://datasets/miniature/posts", "there.csv")):
        sample.sample(parse(sample.SampleArguments, [posts, *words, "--output", str(tmp_path / output)]))
        drawn.append((tmp_path / output).read_bytes())
    assert drawn[0] == drawn[1]
