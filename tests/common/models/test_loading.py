"""Models by their Hub ids, over HTTP: as good as a folder, and one clear line when they can't be loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file
from transformers.utils.loading_report import LoadStateDictInfo, log_state_dict_report

from common.cli.errors import UserError
from common.miniature.loopback_hub import READ_TOKEN
from common.miniature.pretrain import MODELS
from common.models import encoder, retry
from common.models import loading as finding
from common.models.load_errors import load_error, loading
from common.models.loading import (
    base_identity,
    base_of,
    base_path,
    check_place,
    hub_commit,
    lasting_path,
    license_of,
    local_folder,
)
from sbic_llama.model.adapter import load_adapter
from snli_roberta.data.corpus import LABELS
from tests import forked

ROOT = Path(__file__).parents[3]
load_trained = partial(encoder.load_trained, labels=LABELS)
ID = "miniature/model"


@pytest.fixture
def upload(bases, runs):
    """Uploads a copy of a run as it is, spoilt or not."""

    def run(kind: str, *, private: bool = False, **contents: bytes | None) -> None:
        HfApi().create_repo(ID, private=private)
        ignored = ["checkpoint-*", "run.json", *(name for name, content in contents.items() if content is None)]
        HfApi().upload_folder(repo_id=ID, folder_path=runs[kind], ignore_patterns=ignored)
        for name, content in contents.items():
            if content is not None:
                HfApi().upload_file(repo_id=ID, path_in_repo=name, path_or_fileobj=content)

    return run


def test_a_name_becomes_a_folder(upload, runs, tmp_path, bases):
    upload("snli_adapter")
    HfApi().create_tag(ID, tag="v1")
    commit = HfApi().model_info(ID).sha
    HfApi().upload_file(repo_id=ID, path_in_repo="pytorch_model.bin", path_or_fileobj=b"pickle")
    for revision in ("v1", commit):
        assert hub_commit(local_folder(ID, revision)) == commit
    folder = local_folder(ID)
    assert hub_commit(folder) == HfApi().model_info(ID).sha != commit
    assert not (folder / "pytorch_model.bin").exists()
    assert local_folder(runs["snli_adapter"]) == runs["snli_adapter"]
    assert hub_commit(runs["snli_adapter"]) is None
    with pytest.raises(UserError, match="a folder has no revisions; expected a Hub id with a revision"):
        local_folder(runs["snli_adapter"], "v1")
    with pytest.raises(UserError, match="no revision 'v9'; expected a branch, tag or commit"):
        local_folder(ID, "v9")


def test_the_shipped_models_have_names_and_licenses():
    assert base_path("miniature/tiny_llama") == str(MODELS / "tiny_llama")
    assert base_path("miniature/other") == "miniature/other"
    assert {license_of(str(folder), None) for folder in MODELS.iterdir()} == {"apache-2.0"}


@pytest.mark.parametrize("whole", [2**30, 0])
def test_a_folder_is_identified_by_what_it_holds(tmp_path, monkeypatch, whole):
    """Of large weights, pieces are read; each of these is a changed tensor of the same shape."""
    monkeypatch.setattr(finding, "HASHED_WHOLE", whole)
    folder = shutil.copytree(MODELS / "tiny_llama", tmp_path / "base")
    found = [base_identity(str(folder), None), base_identity("miniature/tiny_llama", None)]
    assert len(set(found)) == 1
    for key in ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        tensors = load_file(folder / "model.safetensors")
        tensors[key] += 1
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        found.append(base_identity(str(folder), None))
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    ("private", "token", "message"),
    [
        (True, "", r"no such repository on \S+, or a private one that this login may not read"),
        (False, "hf_wrong", "the Hub rejects this login's token"),
    ],
)
def test_what_a_login_may_not_read(upload, monkeypatch, tmp_path, private, token, message):
    from huggingface_hub import constants

    upload("snli_adapter", private=private)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=rf"{ID}: {message}\. .*hf auth login"):
        local_folder(ID, cache_dir=tmp_path)


def test_a_private_model_is_loaded_with_a_token(upload, bases, runs):
    upload("snli_adapter", private=True)
    assert bases.repositories["models", ID].private
    here, there = (load_trained(name)[0].state_dict() for name in (runs["snli_adapter"], ID))
    assert here.keys() == there.keys()
    # The base's own head is new with every load, and is not used: the adapter brings the trained one.
    assert all(torch.equal(here[name], there[name]) for name in here if "original_module" not in name)


def test_a_gated_base_says_where_to_accept_its_license(bases, monkeypatch, tmp_path, few):
    from sbic_llama.training.arguments import TrainArguments
    from sbic_llama.training.run import train

    bases.add_model("meta/gated", MODELS / "tiny_llama", gated=True)
    run = TrainArguments(output_dir=tmp_path, learning_rate=1e-3, model_name_or_path="meta/gated", data_dir=few)
    with pytest.raises(
        UserError,
        match=rf"meta/gated: gated, and this login may not read it\. Accept its license at {bases.url}/meta/gated, then "
        "run `hf auth login` or set HF_TOKEN",
    ):
        train(run, "offensiveYN")
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(UserError, match="Accept its license at"):
        train(run, "offensiveYN")


@pytest.mark.parametrize(
    ("name", "fix"), [("user/name", "Check the id and the revision"), (str(MODELS), "Check the files in that folder")]
)
def test_a_login_is_advised_only_where_it_may_help(name, fix):
    error = load_error(name, ValueError("Unrecognized model in x"))
    assert str(error) == f"{name}: cannot be loaded: Unrecognized model in x. {fix}"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"mismatched_keys": {("b", (3,), (2,)), ("a", (4, 2), (4, 1))}},
            "its weights do not match config.json: 2 tensors of another shape (first: 'a', (4, 2) instead of (4, 1)). Dow",
        ),
        (
            {"conversion_errors": {"a.w": "Traceback …\nValueError: odd\n"}},
            "its weights do not match config.json: 1 tensor not convertible (first: 'a.w', ValueError: odd). Download",
        ),
        (
            {"conversion_errors": {"a.w": "OutOfMemoryError: CUDA out of memory. …\nError: Bnb4bitQuantize on …\n"}},
            "does not fit into the GPU's memory. Use a smaller base model",
        ),
    ],
)
def test_a_load_report_that_an_error_refers_to_is_shown(monkeypatch, keys, problem):
    """transformers logs it as a warning, which commands silence."""
    empty = {"missing_keys": set(), "unexpected_keys": set(), "error_msgs": [], "skipped_pp_keys": set()}
    info = LoadStateDictInfo(**{"mismatched_keys": set(), "conversion_errors": {}, **empty, **keys})
    with pytest.raises(UserError, match=re.escape(f"user/name: {problem}")), loading("user/name"):
        log_state_dict_report(torch.nn.Identity(), "user/name", False, info)


@pytest.mark.parametrize(
    ("pattern", "how", "message"),
    [
        (r"/api/models/", {"status": 500, "times": -1}, "the Hub answered 500 .*, 6 times. Try again later"),
        (r"/api/models/", {"status": 403, "times": -1}, "the Hub answered 403 .*Use a token with sufficient rights"),
        (
            r"/api/models/",
            {"status": 0, "drop": True, "times": -1},
            "the Hub closed the connection .*, 6 times. Try again",
        ),
    ],
)
def test_a_hub_that_does_not_answer(upload, bases, tmp_path, pattern, how, message):
    upload("snli_adapter")
    bases.fail(pattern, **how)
    with pytest.raises(UserError, match=rf"{ID}: {message}"):
        local_folder(ID, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        pytest.param({"status": 0, "drop": True}, marks=pytest.mark.slow),
        pytest.param({"status": 0, "drop": True, "delay": 1.0}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("asked", [f"/api/models/{ID}", "/tree/", "^HEAD ", "^GET .*/resolve/", "^GET /_lfs/"])
def test_a_hub_that_fails_for_a_moment_is_asked_again(upload, bases, tmp_path, monkeypatch, asked, fault):
    monkeypatch.setattr(retry, "READ", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    upload("snli_adapter")
    bases.fail(asked, **fault)
    folder = local_folder(ID, cache_dir=tmp_path)
    assert (folder / "adapter_model.safetensors").is_file()
    assert bases.faults[0].times == 0, "it did fail"


def config(runs, kind: str, name: str, **changes) -> bytes:
    return json.dumps({**json.loads((runs[kind] / name).read_text()), **changes}).encode()


def test_damaged_and_foreign_classifiers(upload, runs, bases):
    weights = (runs["snli_full"] / "model.safetensors").read_bytes()
    for contents, message in (
        ({"model.safetensors": weights[: len(weights) // 2]}, "its weights are damaged or truncated"),
        (
            {"model.safetensors": None, "pytorch_model.bin": b"x"},
            "no weights in safetensors format.*pickles are never loaded",
        ),
        ({"config.json": None}, "missing config.json"),
        (
            {"config.json": config(runs, "snli_full", "config.json", id2label={0: "yes", 1: "no", 2: "so"})},
            "the model has the labels yes, no",
        ),
    ):
        bases.repositories.pop(("models", ID), None)
        upload("snli_full", **contents)
        with pytest.raises(UserError, match=message) as error:
            load_trained(ID)
        assert ID in str(error.value)


def test_damaged_and_foreign_adapters(upload, runs, bases, tmp_path):
    weights = (runs["sbic_labels"] / "adapter_model.safetensors").read_bytes()
    other = {"base_model_name_or_path": "miniature/tiny_roberta"}
    for load, kind, contents, message in (
        (load_trained, "sbic_labels", {}, "an adapter for 'CAUSAL_LM'; expected one for SEQ_CLS"),
        (load_sbic, "snli_adapter", {}, r"missing annotator\.json"),
        (load_sbic, "sbic_labels", {"adapter_model.safetensors": weights[:-100]}, "its weights are damaged or truncated"),
        (load_sbic, "sbic_labels", {"adapter_model.safetensors": None, "adapter_model.bin": b"x"}, "pickles are never loaded"),
        (load_sbic, "sbic_labels", {"adapter_config.json": config(runs, "sbic_labels", "adapter_config.json", **other)},
         r"for the base model \('miniature/tiny_roberta', None\); expected .*tiny_llama.*as in annotator.json"),
        (load_sbic, "sbic_labels", {"annotator.json": config(runs, "sbic_labels", "annotator.json", labels=["A", "B"])},
         "the adapter was trained with another prompt or other labels"),
        (load_sbic, "sbic_labels", {"annotator.json": config(runs, "sbic_labels", "annotator.json", feature="sexYN")},
         "unknown feature 'sexYN'; expected hasBiasedImplication, offensiveYN"),
        (load_trained, "snli_adapter", {"adapter_config.json": config(runs, "snli_adapter", "adapter_config.json", r=4)},
         "size mismatch.*Use it with the base model that it was trained on"),
    ):  # fmt: skip
        bases.repositories.pop(("models", ID), None)
        upload(kind, **contents)
        with pytest.raises(UserError, match=message):
            load(ID)


def load_sbic(name: str) -> None:
    load_adapter(name, precision="fp32")


def test_an_adapter_answers_the_same_from_the_hub(upload, runs):
    upload("sbic_labels")
    here, there = (load_adapter(name, precision="fp32")[0] for name in (runs["sbic_labels"], ID))
    first, second = (dict(model.named_parameters()) for model in (here, there))
    assert all(torch.equal(first[name], second[name]) for name in first if "lora" in name)


def test_an_adapter_finds_its_base_from_any_working_directory(runs, tmp_path, monkeypatch):
    """An SBIC adapter with a relative path as base; the other project's is trained so in its own tests."""
    shutil.copytree(MODELS / "tiny_llama", tmp_path / "work" / "models" / "llama")
    folder = shutil.copytree(
        runs["sbic_labels"], tmp_path / "work" / "run", ignore=shutil.ignore_patterns("checkpoint-*")
    )
    for file, key in {"adapter_config.json": "base_model_name_or_path", "annotator.json": "base_model"}.items():
        (folder / file).write_bytes(config(runs, "sbic_labels", file, **{key: "models/llama"}))
    (tmp_path / "other").mkdir()
    for place in (tmp_path / "work", tmp_path / "other"):
        monkeypatch.chdir(place)
        load_sbic(str(folder))
    shutil.rmtree(tmp_path / "work" / "models")
    with pytest.raises(UserError, match="its base model 'models/llama' is not here"):
        load_sbic(str(folder))


def test_how_a_base_is_recorded(tmp_path, monkeypatch):
    shutil.copytree(MODELS / "tiny_llama", tmp_path / "place" / "models" / "llama")
    monkeypatch.chdir(tmp_path / "place")
    place = str(tmp_path / "place" / "models" / "llama")
    for name, output, recorded in (
        ("models/llama", "output/run", "models/llama"),
        ("models/llama", tmp_path / "output", place),
        ("../place/models/llama", "output/run", "../place/models/llama"),
        (place, "output/run", place),
        ("user/name", "output/run", "user/name"),
        ("miniature/tiny_llama", "output/run", "miniature/tiny_llama"),
    ):
        assert lasting_path(name, Path(output)) == recorded
    run = tmp_path / "place" / "run"
    assert base_of(run, "models/llama", "c0ffee", local=True) == "models/llama", "a commit is one of the Hub"
    assert base_of(run, "user/name", None, local=False) == "user/name"


def test_a_revision_may_be_part_of_any_models_name(upload, bases, tmp_path, monkeypatch):
    upload("snli_adapter")
    HfApi().create_tag(ID, tag="v1")
    there = HfApi().model_info(ID).sha
    HfApi().upload_file(repo_id=ID, path_in_repo="notes.txt", path_or_fileobj=b"later")
    check_place(f"{ID}@v1")
    assert local_folder(f"{ID}@v1").name == local_folder(ID, "v1").name == there
    assert local_folder(ID).name != there
    (tmp_path / "a@b").mkdir()
    assert local_folder(tmp_path / "a@b") == tmp_path / "a@b"


def test_what_was_downloaded_once_is_enough_where_the_hub_is_down(upload, bases):
    upload("snli_adapter")
    folder = local_folder(ID)
    bases.fail(r".", status=503, times=-1)
    assert local_folder(ID) == folder
    load_trained(ID)


@pytest.mark.slow
def test_what_was_downloaded_once_works_offline(upload, bases, tmp_path):
    upload("snli_adapter")
    words = ["-m", "snli_roberta.predict", "--model", ID, "A dog is wet.", "A pet is dry."]
    command, with_imports = [sys.executable, *words], [sys.executable, "-X", "importtime", *words]
    shown = []
    for offline in (False, True):
        environment = {**os.environ, "HF_HOME": str(tmp_path)} | ({"HF_HUB_OFFLINE": "1"} if offline else {})
        del environment["TORCHDYNAMO_DISABLE"]  # of the tests: the command sets it itself
        before = len(bases.log)
        result = subprocess.run(with_imports, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr[-2000:]
        assert "bitsandbytes.backends" in result.stderr
        assert "torch._inductor.compile_fx" not in result.stderr, "torch's compiler takes a second to import"
        shown.append(result.stdout)
        assert (len(bases.log) == before) == offline
    assert shown[0] == shown[1]
    shutil.rmtree(tmp_path)
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert re.fullmatch(rf"error: {ID}: not in the cache, and HF_HUB_OFFLINE is set. Unset it .*\n", result.stderr)


def test_evaluating_what_was_published(bases, runs, few, tmp_path, monkeypatch, capsys):
    """Hub ids and revisions where folders were: the same table."""
    from snli_roberta import evaluate

    for name, kind in {"full": "snli_full", "lora": "snli_adapter"}.items():
        HfApi().create_repo(f"miniature/{name}")
        HfApi().upload_folder(repo_id=f"miniature/{name}", folder_path=runs[kind], ignore_patterns=["checkpoint-*"])
        HfApi().create_tag(f"miniature/{name}", tag="v1")
    tables = []
    for models in (
        ["--model", runs["snli_full"], runs["snli_adapter"]],
        ["--model", "miniature/full", "miniature/lora", "--revision", "v1", "v1"],
    ):
        words = [*models, "--title", "full", "LoRA", "--data_dir", few, "--output_dir", tmp_path]
        monkeypatch.setattr("sys.argv", ["evaluate", *map(str, words)])
        evaluate.main()
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_repositorys_own_code_is_never_run(upload, runs, bases, tmp_path):
    """Not even where somebody, or a pipe, answers yes to every question."""
    mark, script = tmp_path / "ran", tmp_path / "load.py"
    script.write_text(
        "import io, sys\nfrom common.models.encoder import load_trained\nsys.stdin = io.StringIO('y\\n' * 20)\n"
        f"load_trained({ID!r}, labels={LABELS!r})\n"
    )
    HfApi().create_repo("miniature/code")
    code = f"open({str(mark)!r}, 'w')\nfrom transformers import PretrainedConfig\n"
    code += "class Evil(PretrainedConfig):\n    model_type = 'evil'\n"
    HfApi().upload_file(repo_id="miniature/code", path_in_repo="x.py", path_or_fileobj=code.encode())
    own = {"AutoConfig": "miniature/code--x.Evil"}
    for kind, name, changes in (
        ("snli_adapter", "config.json", {"model_type": "evil", "auto_map": own}),
        ("snli_full", "config.json", {"model_type": "evil", "auto_map": own}),
        ("snli_full", "tokenizer_config.json",
         {"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["miniature/code--x.Evil", None]}}),
    ):  # fmt: skip
        bases.repositories.pop(("models", ID), None)
        upload(kind, **{name: config(runs, kind, name, **changes)})
        result = forked.run([script])
        assert result.returncode == 0 or "UserError" in result.stderr, "it is loaded without that code, or refused"
        assert not mark.exists(), f"{kind}/{name}\n{result.stderr[-2000:]}"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("adapter_config.json", {"peft_type": "PROMPT_TUNING"}),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "os", "base_model_class": "x"}}),
        ("adapter_config.json", {"r": "x"}),
        ("adapter_config.json", {"target_modules": 5}),
        ("adapter_config.json", {"target_modules": "("}),
        ("adapter_config.json", {"rank_pattern": []}),
        ("adapter_config.json", {"base_model_name_or_path": None}),
        ("config.json", {"id2label": "abc"}),
        ("config.json", {"num_hidden_layers": "x"}),
        ("tokenizer_config.json", {"tokenizer_class": 5}),
    ],
)
def test_hostile_settings_are_one_line(upload, runs, name, changes):
    kind = "snli_adapter" if name == "adapter_config.json" else "snli_full"
    upload(kind, **{name: config(runs, kind, name, **changes)})
    with pytest.raises(UserError) as error:
        load_trained(ID)
    assert str(error.value).isprintable()
