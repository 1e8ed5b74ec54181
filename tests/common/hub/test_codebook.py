"""The adapter of a codebook: its card, the code on it, and publishing it with the table that it was trained on."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from common.cli.errors import UserError
from common.hub import __main__ as command
from common.hub import upload, verify
from common.hub.card import read_trained
from common.hub.package import publication_of
from common.tables.reading import read_rows
from sbic_llama.evaluate import EvaluateArguments, score_adapter
from sbic_llama.robustness.__main__ import RobustnessArguments, check
from sbic_llama.training.run import train
from tests.bases import CHATML, build
from tests.strict_hub import problems

ID = "miniature/own"
PAIRS = (("hate", "Against"), ("love", "In favor 👍"))


def call(monkeypatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["hub", *map(str, words)])
    command.main()


@pytest.fixture(scope="module")
def text(own) -> str:
    trained = read_trained(own.folder)
    return publication_of(trained).render(trained, ID)["README.md"].decode()


def test_its_card_says_what_the_codebook_says_and_nothing_of_sbic(text, own, hub):
    card = ModelCard(text)
    assert problems(text) == []
    assert card.data.tags == ["lora", "qlora", "trl", "sft", "codebook", "annotation", "stance"]
    assert card.data.language is None, "nobody said in what language the texts are"
    assert {result.dataset_type for result in card.data.eval_results} == {"table"}
    assert {result.task_type for result in card.data.eval_results} == {"text-classification"}
    assert "\n# tiny_llama for stance\n" in text
    words = " ".join(text.split())
    for said in (
        "| 1 | In favor 👍 | likes it |",
        "from lowest to highest",
        "the label that most annotators gave; of equally many, the first in the codebook",
        "The table: its owner's, under a license that is not known here.",
        "contains the codebook, with the texts of its 1 example.",
        "70 % for training, 15 % for validation and 15 % for test",
        "Near duplicates and texts of one group were kept together",
        "texts are truncated to 20 tokens",
    ):
        assert said in words, said
    facts = json.loads((own.folder / "training.json").read_text())["data"]
    assert f"{facts['used']} texts were used for training" in words
    assert f"; {facts['validation']} for validation; " in words
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = re.findall(
        r"SBIC|[Ss]ocial [Bb]ias|sap2020|[Cc]rowd|offensi|Polarity|[Cc]ontent warning|targeted|stereotype", text
    )
    assert found == [], prose


def test_a_codebooks_words_stay_words_on_its_card(text):
    assert "What does the \\*author\\* think,  b of /b  \\[it\\](evil)?" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| 0 | Against |"))
    assert row.count("|") == 4
    assert "`" not in row
    assert text.count("```") % 2 == 0
    code = text.partition("```python\n")[2].partition("\n```")[0]
    assert '"Decide what the author of {post} thinks.\\n"' in code
    assert "\\U00000060" in code, "a backtick would end the block"
    compile(code, "card", "exec")


def test_a_list_of_names_is_a_task_of_generation(own, tmp_path):
    folder = tmp_path / "names"
    shutil.copytree(own.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*", "evaluation"))
    described = json.loads((folder / "annotator.json").read_text(encoding="utf-8"))
    codebook = described["codebook"] | {"labels": {}, "text": True, "ordered": False}
    from sbic_llama.data.codebook import Codebook
    from sbic_llama.data.features import feature_of

    feature = feature_of(Codebook(codebook["name"], codebook["question"], codebook["instruction"], text=True))
    described |= {
        "codebook": codebook,
        "labels": [],
        "label_shares": None,
        "instruction": feature.instruction,
        "prompt_hash": feature.prompt_hash(),
    }
    (folder / "annotator.json").write_text(json.dumps(described), encoding="utf-8")
    trained = read_trained(folder)
    shown = publication_of(trained).render(trained, ID)["README.md"].decode()
    assert "names separated by commas, or `none`" in shown
    assert "Return the names, or" in shown
    assert "whether a text has names" in shown


@pytest.mark.slow
def test_it_is_published_and_verified_with_its_table(own, bases, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(own.folder, tmp_path / "model")
    with pytest.raises(UserError, match=r"^--data: verification needs the table .* Give --data path/to/table.csv, or"):
        call(monkeypatch, "publish", folder, "--repo_id", ID)
    assert ("models", ID) not in bases.repositories
    call(monkeypatch, "publish", folder, "--repo_id", ID, "--data", own.table, "--items", 0)
    shown = capsys.readouterr().out
    number, scored = map(int, re.match(rf"verified: {ID}: (\d+) of (\d+) answers match the record", shown).groups())
    rows = list(read_rows(folder / "evaluation" / "scores.csv"))
    assert number == scored == len(rows)
    # Neither a text of the table nor a path of this machine was sent, but the codebook is there.
    files = bases.repositories["models", ID].files()
    sent = b"".join(file.data for file in files.values()) + b"".join(bases.lfs.values())
    for row in read_rows(own.table):
        assert str(row.values["text"]).encode() not in sent
    assert str(own.table.parent).encode() not in sent
    assert not [name for name in files if name.startswith(".eval_results")]
    with pytest.raises(UserError, match="--data: verification needs the table"):
        call(monkeypatch, "verify", ID)


def test_the_code_on_the_card_reads_a_chat_template_and_cuts_texts_as_the_product(own, tmp_path):
    from sbic_llama.model.annotator import Annotator

    chat = build(tmp_path / "base", "qwen3", CHATML)
    train(replace(own.arguments, output_dir=tmp_path, model_name_or_path=chat, max_steps=2), "")
    folder, card = tmp_path / "stance", {}
    code = publication_of(read_trained(folder)).snippet(read_trained(folder), str(folder))
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "card", "exec"), card)
    texts = ["A quiet day", "one loaf, two loaves; " * 30, "{post} and {post1}", "A <|im_end|> day", "loaf" * 500]
    for text, row in zip(texts, Annotator(folder).annotate(texts), strict=True):
        for label, probability in card["annotate"](text).items():
            assert row[f"stance_probability_{label}"] == pytest.approx(probability, abs=1e-4), text


def test_another_table_is_told_from_its_own_and_a_grown_one_is_not(own, tmp_path):
    trained = read_trained(own.folder)
    texts = publication_of(trained).inputs(trained, command.VerifyArguments(repo_id=(ID,), data=own.table))
    assert {row["id"] for row in trained.evaluation.scores} <= texts.keys()
    other = tmp_path / "table.csv"
    other.write_text(own.table.read_text(encoding="utf-8").replace("I ", "We "), encoding="utf-8")
    with pytest.raises(UserError, match=r"table.csv: \d+ of \d+ scored items are not in this corpus"):
        verify._compared(
            trained, publication_of(trained), command.VerifyArguments(repo_id=(ID,), data=other), 0, "", tmp_path, ID
        )


def test_a_table_is_for_adapters_of_a_codebook_only(own):
    trained = read_trained(own.folder)
    del trained.facts["settings"]["codebook"]
    with pytest.raises(UserError, match="--data: the model was not trained with a codebook"):
        verify.scored_corpus(trained, command.VerifyArguments(repo_id=(ID,), data=own.table))


def test_a_training_passes_its_table_on_to_the_publication(own, bases, monkeypatch):
    commands = []
    monkeypatch.setattr(
        upload.subprocess, "run", lambda words, **_: commands.append(words[2:]) or SimpleNamespace(returncode=0)
    )
    train(replace(own.arguments, push_to_hub=True, hub_model_id=ID), "")  # has finished already
    assert commands == [["common.hub", "publish", str(own.folder), "--repo_id", ID, "--data", str(own.table)]]
    record = own.folder / "evaluation" / "record.json"
    monkeypatch.setattr(type(record), "is_file", lambda path: path != record and path.exists())
    upload.publish_if_asked(
        replace(own.arguments, push_to_hub=True, hub_model_id=ID), own.folder, ["evaluate"], own.arguments.words()
    )
    assert commands[1] == ["evaluate", "--data", str(own.table)]


def test_a_codebook_is_known_by_what_it_says_not_where_it_lies(own, tmp_path):
    moved = shutil.copy(own.arguments.codebook, tmp_path / "other.yaml")
    train(replace(own.arguments, codebook=moved), "")  # has finished already
    assert str(own.arguments.codebook) not in (own.folder / "training.json").read_text()
    moved.write_text(moved.read_text(encoding="utf-8").replace("likes it\n", "loves it\n"), encoding="utf-8")
    with pytest.raises(UserError, match="holds another run"):
        train(replace(own.arguments, codebook=moved), "")


def test_what_a_round_of_labels_brought(own, tmp_path):
    """The test texts stay those of the first round, and both adapters are compared on them."""
    more = tmp_path / "round2.csv"
    rows = [f"I {word} {color} paint,{label},cy" for color in ("red", "teal", "pink") for word, label in PAIRS]
    more.write_text("text,stance,annotator\n" + "\n".join(rows) + "\n", encoding="utf-8")
    arguments = replace(own.arguments, output_dir=tmp_path / "adapters", more_labels=(more,))
    train(arguments, "")
    facts, before = (
        json.loads((folder / "training.json").read_text()) for folder in (tmp_path / "adapters" / "stance", own.folder)
    )
    assert facts["data"]["used"] == before["data"]["used"] + 6
    assert str(tmp_path) not in json.dumps(facts["settings"])
    renamed = shutil.copy(own.table, tmp_path / "renamed.csv")  # the same table, which is known by what it says
    options = {"adapter": str(tmp_path / "adapters" / "stance"), "data": renamed, "untouched_base": False}
    evaluate = EvaluateArguments(**options, more_labels=(more,), earlier=(own.folder,), output_dir=tmp_path / "records")
    _, findings = score_adapter(evaluate)
    (rounds,) = (finding for finding in findings if finding.name == "rounds")
    assert rounds.summary[0].startswith("6 more labeled texts changed balanced accuracy by ")
    first, second = rounds.parts[0].rows.values()
    earlier = json.loads((own.folder / "evaluation" / "record.json").read_text())["metrics"]["balanced_accuracy"]
    assert first["value"] == earlier["value"]
    change = next(iter(rounds.parts[1].rows.values()))["value"]
    assert change == pytest.approx(second["value"] - first["value"])
    with pytest.raises(UserError, match="have changed since the adapter was trained"):
        score_adapter(replace(evaluate, more_labels=()))


def test_a_table_that_has_grown_is_not_evaluated(own, tmp_path):
    """Its draw is another one, and what is in its test part may have been trained on."""
    grown = tmp_path / own.table.name
    grown.write_text(
        own.table.read_text(encoding="utf-8") + "a new text of its own,ann,Against,u99\n", encoding="utf-8"
    )
    arguments = EvaluateArguments(adapter=str(own.folder), data=grown, output_dir=tmp_path / "records")
    with pytest.raises(UserError, match=r"table.csv: its texts or labels have changed since the adapter was trained"):
        score_adapter(arguments)
    robustness = RobustnessArguments(adapter=str(own.folder), data=grown, output_dir=tmp_path / "records")
    with pytest.raises(UserError, match=r"table.csv: its texts or labels have changed since the adapter was trained"):
        check(robustness)
    assert not (tmp_path / "records").exists()
