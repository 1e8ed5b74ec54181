"""Models that attack: pickles and code that leave a mark when they run. No command runs them, whichever way they come in."""

from __future__ import annotations

import csv
import importlib
import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.cli.errors import UserError
from common.miniature.pretrain import MODELS

STEPS = ("--max_steps", "2", "--evaluations", "1", "--learning_rate", "1e-3")
REFUSED = {
    "pickles": "no weights in safetensors format; expected (adapter_)?model.safetensors. .* pickles are never loaded",
    "own architecture": "needs code of its own, which is never run",
    "kernel": "config.json asks for the kernel 'kernels-community/evil'",
    "code beside": None,  # code and pickles that nobody needs are passed over
}
ADAPTER = ("annotate", "trust", "sbic evaluate", "robustness")
CLASSIFIER = ("predict", "snli evaluate", "disagreement", "adversarial")
LONG = ("disagreement", "adversarial")  # to their ends: they load a classifier as the others do
TRAIN = ("train sbic", "train lora", "train full")


class Mark:
    """What, once pickled, opens a file for writing when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def poison(folder: Path, attack: str, mark: Path) -> Path:
    """Puts pickles, code and a chat template beside a model, and in their place where the attack says so."""
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth"):
        torch.save(Mark(mark), folder / name)
    (folder / "vocab.pkl").write_bytes(pickle.dumps(Mark(mark)))
    code = f"open({str(mark)!r}, 'w')\nfrom transformers import RobertaConfig as Evil\n"
    for name in ("evil.py", "modeling_evil.py", "tokenization_evil.py", "generate.py", "__init__.py"):
        (folder / name).write_text(code)
    jinja = f"{{{{ cycler.__init__.__globals__.os.system('touch \"{mark}\"') }}}}"
    (folder / "chat_template.jinja").write_text(jinja)

    def edit(name: str, **changes: object) -> None:
        if (folder / name).is_file():
            (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))

    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    edit("config.json", auto_map=dict.fromkeys(classes, "evil.Evil"))
    edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    edit("generation_config.json", custom_generate="evil")
    if attack == "own architecture":
        edit("config.json", model_type="evil")
    if attack == "kernel":
        edit("config.json", attn_implementation="kernels-community/evil")
    if attack == "pickles":
        for path in folder.glob("*.safetensors"):
            path.unlink()
    return folder


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "it ran"


@pytest.fixture
def base(tmp_path, mark):
    """``base(attack, "tiny_llama")``: the folder of a poisoned base model."""

    def make(attack: str, name: str) -> Path:
        return poison(shutil.copytree(MODELS / name, tmp_path / "bases" / name), attack, mark)

    return make


@pytest.fixture
def trained(runs, tmp_path, mark, base):
    """``trained(attack, kind, where)``: the folder of a run that is poisoned itself, or whose base is."""

    def make(attack: str, kind: str, where: str) -> Path:
        folder = shutil.copytree(runs[kind], tmp_path / kind, ignore=shutil.ignore_patterns("checkpoint-*"))
        if where == "itself":
            return poison(folder, attack, mark)
        name = str(base(attack, "tiny_llama" if kind == "sbic_labels" else "tiny_roberta"))
        for file, key in {"adapter_config.json": "base_model_name_or_path", "annotator.json": "base_model"}.items():
            if (folder / file).is_file():
                (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), key: name}))
        return folder

    return make


@pytest.fixture
def run(tmp_path, few, monkeypatch):
    """Runs a command on a model in this process, with a yes to every question that is asked."""
    posts, labels = tmp_path / "posts.csv", tmp_path / "labels.csv"
    for path, answers in ((posts, False), (labels, True)):
        with open(path, "w", encoding="utf-8", newline="") as file:
            rows = [(f"post {i}", ("Offensive", "Not offensive")[i % 2]) for i in range(40)]
            csv.writer(file).writerows(
                [("post", "offensiveYN"), *rows] if answers else [("post",), *(r[:1] for r in rows)]
            )
    data = ("--data_dir", few)

    def command(name: str, model: object) -> None:
        out = ("--output_dir", tmp_path / "out" / name)
        module, *words = {
            "annotate": ("sbic_llama.annotate", posts, "--adapter", model, "--output", tmp_path / "annotated.csv"),
            "trust": ("sbic_llama.trust", posts, "--human_labels", labels, "--adapter", model, *out),
            "sbic evaluate": ("sbic_llama.evaluate", "--adapter", model, *data, *out, "--untouched_base", "false"),
            "robustness": ("sbic_llama.robustness.__main__", "--adapter", model, *data, "--posts", 3, *out),
            "predict": ("snli_roberta.predict", "--model", model, "A dog is wet.", "A pet is dry."),
            "snli evaluate": ("snli_roberta.evaluate", "--model", model, "--title", "x", *data, *out),
            "disagreement": ("snli_roberta.disagreement.__main__", "--model", model, *data, *out),
            "adversarial": ("snli_roberta.adversarial.__main__", "--model", model, *out),
            "train sbic": (
                "sbic_llama.train_offensive_yn", "--model_name_or_path", model, "--prompt", "study", *data, *out, *STEPS
            ),
            "train sbic by its chat template": (
                "sbic_llama.train_offensive_yn", "--model_name_or_path", model, *data, *out, *STEPS
            ),
            "train lora": (
                "snli_roberta.train_lora", "--method", "lora", "--model_name_or_path", model, *data, *out, *STEPS
            ),
            "train full": (
                "snli_roberta.train_full", "--method", "full", "--model_name_or_path", model, *data, *out, *STEPS
            ),
        }[name]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 50))
        importlib.import_module(module).main()

    return command


def check(attack: str, mark: Path, act) -> None:
    if REFUSED[attack] is None:
        act()
    else:
        with pytest.raises(UserError, match=REFUSED[attack]):
            act()
    assert not mark.exists()


def marked(cases: list[tuple[str, ...]], fast: set[tuple[str, ...]]) -> list:
    return [pytest.param(*case, marks=[] if case in fast else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    "code",
    [
        "import torch; torch.load('pytorch_model.bin', weights_only=False)",
        "import jinja2; jinja2.Template(open('chat_template.jinja').read()).render()",
        pytest.param(
            "from transformers import AutoConfig; AutoConfig.from_pretrained('.', trust_remote_code=True)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_attacks_are_real(tmp_path, mark, code):
    """Who loads or imports what lies there has it run."""
    folder = poison(shutil.copytree(MODELS / "tiny_roberta", tmp_path / "evil"), "own architecture", mark)
    subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, timeout=300)
    assert mark.exists()


@pytest.mark.parametrize(
    ("attack", "where", "name"),
    marked(
        [
            (attack, where, name)
            for attack in REFUSED
            for where in ("itself", "its base")
            for name in (*ADAPTER, *CLASSIFIER)
            if not (name in ADAPTER and where == "itself" and attack != "pickles")  # its own configuration is not read
            and not (
                name in CLASSIFIER and where == "itself" and attack == "kernel"
            )  # of an adapter, only the base runs
        ],
        fast={("pickles", "itself", name) for name in ("annotate", "trust", "predict")}
        | {("kernel", "its base", "annotate"), ("code beside", "its base", "predict")},
    ),
)
def test_no_command_runs_what_an_adapter_or_its_base_carries(attack, where, name, trained, run, mark):
    model = trained(attack, "sbic_labels" if name in ADAPTER else "snli_adapter", where)
    check(attack, mark, lambda: run(name, model))


@pytest.mark.parametrize(
    ("attack", "name"),
    marked(
        [(attack, name) for attack in REFUSED for name in CLASSIFIER if name not in LONG],
        fast={("kernel", "predict"), ("own architecture", "predict")},
    ),
)
def test_no_command_runs_what_a_whole_model_carries(attack, name, trained, run, mark):
    check(attack, mark, lambda: run(name, trained(attack, "snli_full", "itself")))


@pytest.mark.parametrize(
    ("attack", "source", "name"),
    marked(
        [(attack, source, name) for attack in REFUSED for source in ("folder", "Hub") for name in TRAIN],
        fast={("pickles", "Hub", "train full"), ("own architecture", "Hub", "train sbic")},
    ),
)
def test_no_training_runs_what_its_base_carries(attack, source, name, base, run, hub, mark):
    folder = base(attack, "tiny_llama" if name == "train sbic" else "tiny_roberta")
    if source == "Hub":
        hub.add_model("miniature/evil", folder)
    check(attack, mark, lambda: run(name, folder if source == "folder" else "miniature/evil"))
    asked = [line for line in hub.log if line.endswith((".bin", ".py", ".pt", ".pkl"))]
    assert [line for line in asked if not line.startswith("HEAD")] == []


def test_a_chat_template_reaches_nothing_but_its_turns(base, run, mark):
    with pytest.raises(UserError, match=r"does not take these turns: .*'__init__'.* Use --prompt study"):
        run("train sbic by its chat template", base("code beside", "tiny_llama"))
    assert not mark.exists()


def test_nobody_is_asked_to_make_other_weights_of_pickles(runs, tmp_path, base, run, hub, mark):
    """As transformers does of itself for a model without safetensors whose commit is not named."""
    hub.add_model("miniature/evil", base("pickles", "tiny_roberta"))
    folder = shutil.copytree(runs["snli_adapter"], tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((folder / "adapter_config.json").read_text()) | {"revision": None}
    config["base_model_name_or_path"] = "miniature/evil"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "training.json").unlink()  # which says that the base without a commit is a folder
    check("pickles", mark, lambda: run("predict", folder))
    assert not any("/commits/" in line or "discussions" in line for line in hub.log)
