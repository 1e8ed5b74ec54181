from __future__ import annotations

import csv
import html
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.miniature import cache as corpora
from sbic_llama.data import corpus
from sbic_llama.data.codebook import read_codebook
from sbic_llama.data.table import load_table
from sbic_llama.miniature import other_files, sbic
from snli_roberta.adversarial.scenes import FACTS, words_of
from snli_roberta.miniature import challenge_sets, snli


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "SBIC.v2" / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pairs(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "snli_1.0" / f"snli_1.0_{split}.jsonl").read_text().splitlines()]


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path):
    made = []
    for number, seed in enumerate((5, 5, 6)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for write in (sbic.write, snli.write, other_files.write_hatecheck, other_files.write_md_agreement):
            write(folder, seed)
        for name in ("chaosnli", "hans", "breaking_nli"):
            getattr(challenge_sets, f"write_{name}")(folder, seed)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(made[0]) == 15
    assert made[0] == made[1]
    assert all(made[0][name] != made[2][name] for name in made[0])


def test_the_own_task_is_a_codebook_with_a_table_that_people_mostly_agree_on(miniature, tmp_path):
    folder = miniature / "own_task"
    codebook = read_codebook(folder / "codebook.yaml")
    _, splits = load_table(folder / "labels.csv", codebook)
    assert [len(splits[name].posts) for name in ("train", "dev", "test")] == [210, 45, 45]
    items = [item for split in splits.values() for item in split.posts]
    counts = Counter(item.label for item in items)
    assert 120 < counts[0] < 180, "neither label is rare"
    divided = sum(len({vote.label for vote in item.annotations}) > 1 for item in items)
    assert 0.05 < divided / len(items) < 0.3
    no_groups = replace(codebook, columns=replace(codebook.columns, group=None))
    report, _ = load_table(folder / "labels.csv", no_groups)
    (together,) = (count for note, count in report.notes.items() if note.startswith("texts that stay together"))
    assert together < 60, "few texts are near duplicates"
    with open(folder / "posts.csv", encoding="utf-8", newline="") as file:
        posts = {row["id"]: row["post"] for row in csv.DictReader(file)}
    with open(folder / "people.csv", encoding="utf-8", newline="") as file:
        people = list(csv.DictReader(file))
    assert len(posts) == 600
    assert len({row["id"] for row in people}) == 150
    assert {row["id"] for row in people} <= set(posts)
    assert not set(posts.values()) & {item.text for item in items}
    for seed, name in ((0, "same"), (1, "other")):
        (tmp_path / name).mkdir()
        other_files.write_own_task(tmp_path / name, seed)
    for name in ("labels.csv", "posts.csv", "people.csv"):
        made = (folder / name).read_bytes()
        assert (tmp_path / "same" / name).read_bytes() == made != (tmp_path / "other" / name).read_bytes()


def test_the_corpus_does_not_depend_on_hash_randomisation():
    code = (
        "from sbic_llama.miniature import other_files, sbic; "
        "from snli_roberta.miniature import challenge_sets, snli; "
        "print(sbic.draw_splits(0)['dev'], list(snli.pairs('dev', 0)), other_files.draw_cases(0), other_files.draw_items(0), "
        "other_files.draw_task(0), "
        "challenge_sets.draw_chaosnli(0), challenge_sets.draw_hans(0), challenge_sets.draw_breaking_nli(0))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1


def test_official_columns_and_keys(miniature, real_data):
    for name in ("SBIC.v2.trn.csv", "SBIC.v2.agg.trn.csv"):
        headers = []
        for folder in (miniature, real_data):
            with open(folder / "SBIC.v2" / name, encoding="utf-8", newline="") as file:
                headers.append(next(csv.reader(file)))
        assert headers[0] == headers[1]
    ours = set(pairs(miniature, "dev")[0])
    assert set(pairs(real_data, "dev")[0]) == {key for key in ours if not key.endswith("_parse")}


def test_sbic_has_what_the_real_corpus_has(miniature):
    train = rows(miniature, "SBIC.v2.trn.csv")
    hits: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in train:
        hits[row["HITId"]][row["WorkerId"]].add(row["offensiveYN"])
    posts = {row["post"] for row in train}
    assert Counter(len(workers) for workers in hits.values()).keys() == {2, 3, 4}
    assert {row["offensiveYN"] for row in train} == {"0.0", "0.5", "1.0", ""}
    assert all(len(levels) == 1 for workers in hits.values() for levels in workers.values()), (
        "a worker contradicts itself"
    )
    differing = sum(len(set.union(*workers.values()) - {""}) > 1 for workers in hits.values())
    assert 0.15 < differing / len(hits) < 0.5
    assert len(train) > sum(len(workers) for workers in hits.values()), "no (HIT, worker) stands twice"
    assert sum(html.unescape(post) != post for post in posts) / len(posts) > 0.05
    assert sum("\n" in post for post in posts) / len(posts) > 0.05
    assert any(post.startswith('"') for post in posts)


def test_sbic_aggregates_are_the_official_ones_of_their_annotations(miniature):
    for split in ("trn", "dev", "tst"):
        expected = sbic.aggregate(rows(miniature, f"SBIC.v2.{split}.csv"))
        found = rows(miniature, f"SBIC.v2.agg.{split}.csv")
        assert [row.pop("") for row in found] == [str(n) for n in range(1, len(found) + 1)]
        assert found == expected
        assert {(row["hasBiasedImplication"], row["targetStereotype"] == "[]") for row in found} == {
            ("1", True),
            ("0", False),
        }


def test_the_aggregation_rule_is_the_official_one(real_data):
    annotations = rows(real_data, "SBIC.v2.dev.csv")
    official = {row["post"]: row for row in rows(real_data, "SBIC.v2.agg.dev.csv")}
    for row in sbic.aggregate(annotations):
        if row["post"] not in official:
            continue  # one post of the annotations is in no aggregate file
        expected = official[row["post"]]
        for column in ("offensiveYN", "intentYN", "sexYN", "whoTarget"):
            assert (row[column] == expected[column] == "") or float(row[column]) == pytest.approx(
                float(expected[column])
            )
        for column in ("targetMinority", "targetStereotype", "targetCategory"):
            assert json.loads(row[column]) == sorted(json.loads(expected[column]))
        assert row["hasBiasedImplication"] == expected["hasBiasedImplication"]


def test_sbic_splits_share_exactly_the_planted_duplicates(miniature):
    texts = {
        split: {sbic.normalized(row["post"]) for row in rows(miniature, f"SBIC.v2.{split}.csv")}
        for split in ("trn", "dev", "tst")
    }
    assert len(texts["dev"] & texts["tst"]) == sbic.DUPLICATES
    assert len(texts["trn"] & (texts["dev"] | texts["tst"])) == 2 * sbic.DUPLICATES


def test_snli_has_what_the_real_corpus_has(miniature):
    for split in ("dev", "test"):
        for row in pairs(miniature, split):
            votes = Counter(row["annotator_labels"])
            assert votes.total() == 5
            label, most = votes.most_common(1)[0]
            assert row["gold_label"] == (label if most >= 3 else "-")
        gold = Counter(row["gold_label"] for row in pairs(miniature, split))
        assert 0.005 < gold["-"] / gold.total() < 0.05
    train = Counter(row["gold_label"] for row in pairs(miniature, "train"))
    assert train.keys() == set(snli.LABELS)
    assert max(train.values()) < 1.1 * min(train.values())
    unanimous = sum(len(set(row["annotator_labels"])) == 1 for row in pairs(miniature, "test"))
    assert 0.4 < unanimous / snli.SPLIT_SIZES["test"] < 0.9


def test_hatecheck_has_what_the_real_suite_has(miniature):
    with open(miniature / "hatecheck" / "test_suite_cases.csv", encoding="utf-8", newline="") as file:
        cases = list(csv.DictReader(file))
    by_id = {case["case_id"]: case for case in cases}
    assert len(by_id) == len({case["test_case"] for case in cases}) == len(cases) > 300
    assert [case[""] for case in cases] == [str(n) for n in range(len(cases))]
    sizes = Counter(case["functionality"] for case in cases)
    assert len(sizes) == 29
    assert min(sizes.values()) >= 6
    for case in cases:
        hateful = case["functionality"].endswith("_h")
        assert case["label_gold"] == ("hateful" if hateful else "non-hateful")
        assert (case["direction"] == "-") != hateful
        assert case["target_ident"] in ("", *corpus.INVENTED_GROUPS)
        assert ("[" in case["case_templ"]) == bool(case["target_ident"])
        if case["ref_case_id"]:
            reference = by_id[case["ref_case_id"].removesuffix(".0")]
            assert (reference["test_case"] != case["test_case"]) and (reference["target_ident"] == case["target_ident"])
            assert reference["templ_id"] == case["ref_templ_id"].removesuffix(".0")
    assert {case["functionality"] for case in cases if case["ref_case_id"]} == {
        name for name in sizes if name.startswith("spell_")
    }


def agreement(folder: Path, split: str) -> dict[str, dict]:
    return json.loads((folder / "md_agreement" / f"MD-Agreement_{split}.json").read_text(encoding="utf-8"))


def test_md_agreement_has_what_the_real_corpus_has(miniature):
    ours = {split: agreement(miniature, split) for split in ("train", "dev")}
    people: Counter[str] = Counter()
    for split, items in ours.items():
        assert list(items) == [str(n) for n in range(1, 201)]
        for item in items.values():
            given = [int(one) for one in item["annotations"].split(",")]
            names = item["annotators"].split(",")
            people.update(names)
            assert len(given) == len(set(names)) == item["number of annotations"] == 5
            assert item["split"] == split
            assert item["hard_label"] == str(int(sum(given) > 2))
            assert item["soft_label"] == {"0": pytest.approx(1 - sum(given) / 5), "1": pytest.approx(sum(given) / 5)}
    assert len(people) == 12
    assert min(people.values()) > 100
    for shares in (Counter(item["soft_label"]["1"] for item in items.values()) for items in ours.values()):
        assert len(shares) == 6
        assert 0.15 < 1 - (shares[0.0] + shares[1.0]) / 200 < 0.7, "people disagree on some"
    texts = [sbic.normalized(item["text"]) for items in ours.values() for item in items.values()]
    assert len(set(texts)) == 400
    known = {
        sbic.normalized(row["post"])
        for split in ("trn", "dev", "tst")
        for row in rows(miniature, f"SBIC.v2.{split}.csv")
    }
    assert not known & set(texts)


def test_md_agreement_has_the_official_keys(miniature, real_data):
    ours, real = (agreement(folder, "dev")["1"] for folder in (miniature, real_data))
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in real.items()}
    assert [ours[key].keys() for key in ("soft_label", "other_info")] == [
        real[key].keys() for key in ("soft_label", "other_info")
    ]


def hundred(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "chaosnli" / "chaosNLI_snli.jsonl").read_text().splitlines()]


def test_chaosnli_asks_a_hundred_about_the_pairs_that_three_of_five_agreed_on(miniature):
    items = {item["uid"]: item for item in hundred(miniature)}
    test = {row["pairID"]: row for row in pairs(miniature, "test")}
    assert list(items) == [
        name for name, row in test.items() if row["annotator_labels"].count(row["gold_label"]) == 3
    ]  # in the corpus's order
    assert len(items) > 50
    entropies: dict[bool, list[float]] = {True: [], False: []}
    for name, item in items.items():
        assert sum(item["label_count"]) == 100
        assert (item["example"]["premise"], item["example"]["hypothesis"]) == (
            test[name]["sentence1"],
            test[name]["sentence2"],
        )
        assert item["old_labels"] == test[name]["annotator_labels"]
        vague = any(word in snli.VAGUE for word in words_of(test[name]["sentence2"]))
        entropies[vague].append(item["entropy"])
        if not vague:  # five slipped; a hundred do not
            assert item["majority_label"] == name[-1]
    assert min(len(values) for values in entropies.values()) > 20
    assert min(entropies[True]) > max(entropies[False]), "what is a matter of opinion divides a hundred people too"


def test_chaosnli_has_the_official_keys(miniature, real_data):
    ours, real = (hundred(folder)[0] for folder in (miniature, real_data))
    assert [(key, type(value)) for key, value in ours.items()] == [(key, type(value)) for key, value in real.items()]
    assert list(ours["example"]) == list(real["example"])
    assert {type(count) for count in ours["label_count"]} == {type(count) for count in real["label_count"]}


def hans_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "hans" / "heuristics_evaluation_set.txt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def breaking_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "breaking_nli" / "dataset.jsonl").read_text().splitlines()]


def test_hans_and_breaking_nli_have_the_official_columns_and_keys(miniature, real_data):
    ours, real = (hans_rows(folder)[0] for folder in (miniature, real_data))
    assert list(ours) == list(real)
    ours, real = (breaking_rows(folder)[0] for folder in (miniature, real_data))
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in real.items()}
    assert list(ours) == list(real)


def test_hans_follows_its_heuristics_half_of_the_time(miniature):
    cases = hans_rows(miniature)
    assert [case["pairID"] for case in cases] == [f"ex{n}" for n in range(240)]
    assert Counter((case["heuristic"], case["gold_label"]) for case in cases) == {
        (name, label): 40 for name in challenge_sets.TEMPLATES for label in ("entailment", "non-entailment")
    }
    for case in cases:
        premise, hypothesis = (case[f"sentence{n}"].lower().rstrip(" .").split() for n in (1, 2))
        assert set(hypothesis) <= set(premise), "every word of a hypothesis stands in its premise"
        in_one_piece = f" {' '.join(hypothesis)} " in f" {' '.join(premise)} "
        assert in_one_piece == (case["heuristic"] != "lexical_overlap")
        assert (case["gold_label"] == "entailment") == (case["subcase"][1] == "e")


def test_breaking_nli_replaces_one_word(miniature):
    items = breaking_rows(miniature)
    sides = {word: (pair, side) for pair, both in enumerate(FACTS) for side in (0, 1) for word in both[side]}
    for item in items:
        before, after = (words_of(item[f"sentence{n}"]) for n in (1, 2))
        ((old, new),) = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
        (pair, side), (other, now) = sides[old], sides[new]
        label = "neutral" if pair != other else "entailment" if side == now else "contradiction"
        assert item["gold_label"] == label
        assert Counter(item["annotator_labels"]).most_common(1)[0][0] == label
        if label == "neutral":
            assert not any(sides.get(word, (None,))[0] == other for word in before), "the premise says nothing of it"
        assert (item["category"] == "synonyms") == (label == "entailment")
    assert Counter(item["gold_label"] for item in items) == {"contradiction": 240, "entailment": 60, "neutral": 20}
    assert any(len(set(item["annotator_labels"])) > 1 for item in items)


def build(cache: Path) -> subprocess.Popen:
    code = "from common.miniature import cache; print(cache.build())"
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "XDG_CACHE_HOME": str(cache)}, stdout=subprocess.PIPE
    )


def test_several_processes_may_ask_at_once(tmp_path):
    processes = [build(tmp_path) for _ in range(4)]
    folders = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(folders) == 1
    (folder,) = (Path(os.fsdecode(name.strip())) for name in folders)
    assert corpora._is_whole(folder)
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".part")] == []


def test_a_damaged_corpus_is_built_again_and_a_whole_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = corpora.build()
    file = folder / "snli_1.0" / "snli_1.0_dev.jsonl"
    whole, time = file.read_bytes(), file.stat().st_mtime_ns
    assert corpora.build() == folder
    assert file.stat().st_mtime_ns == time
    file.write_bytes(whole[:-10])
    corpora.build()
    assert file.read_bytes() == whole


def test_an_unwritable_cache_is_the_users_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Set XDG_CACHE_HOME to a writable folder"):
        corpora.build()
