"""Files of models that lead a lax parser, PEFT or the loader elsewhere: refused in one line, before a library reads them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from common.cli.errors import UserError
from common.miniature.pretrain import MODELS
from common.models import encoder, quantization
from common.models.adapters import check_adapter_config
from common.models.loading import check_config, load_tokenizer
from snli_roberta.data.corpus import LABELS

ROOT = Path(__file__).parents[3]
KERNEL = '"attn_implementation": "user/kernel"'
DEEP = '"a": ' + "[" * 200 + "]" * 200


@pytest.fixture
def base(tmp_path):
    return shutil.copytree(MODELS / "tiny_llama", tmp_path / "base")


def load(folder: Path | str) -> torch.nn.Module:
    return quantization.load_base(str(folder), None, precision="fp32", quantization="none")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("filename", ["config.json", "generation_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("added", "reason"),
    [
        (f"{KERNEL}, {KERNEL.replace('user/kernel', 'sdpa')}", "duplicate name"),
        (f'{KERNEL}, "a": "\\ud800"', "half of a surrogate pair"),
        (f"{KERNEL}, {DEEP}", "nested deeper than 100 levels"),
        (f'{KERNEL}, "a": {"9" * 5000}', "not JSON"),
    ],
)
def test_what_only_a_lax_parser_can_read_is_refused(filename, added, reason, base):
    path = base / filename
    text = path.read_text() if path.is_file() else '{"weight_map": {}}'
    path.write_text(text.replace("{", "{" + added + ", ", 1))
    with pytest.raises(UserError, match=rf"{filename}: damaged file: {reason}.*; expected a JSON object"):
        load(base)


@pytest.mark.parametrize("filename", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_so_it_is_of_a_tokenizer(filename, base):
    (base / filename).write_text('{"a": 1, "a": 2}')
    with pytest.raises(UserError, match=f"{filename}: damaged file: duplicate name 'a'"):
        load_tokenizer(str(base))


def test_a_tokenizer_without_a_vocabulary_is_refused(base):
    (base / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no vocabulary for the tokenizer"):
        quantization.load_tokenizer(str(base))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"attn_implementation": "user/kernel@v1:forward"}, "asks for the kernel 'user/kernel@v1:forward'"),
        ({"_attn_implementation": {"": "sdpa", "text_config": "a/b"}}, "asks for the kernel"),
        ({"text_config": {"attn_implementation": "a/b"}}, "asks for the kernel 'a/b'"),
        ({"experts_implementation": "sonicmoe"}, "asks for the kernel 'sonicmoe'"),
        ({"attribute_map": {"x": "_attn_implementation"}, "x": "a/b"}, "sets 'attribute_map'"),
        ({"vision": {"sub_configs": {}}}, "sets 'sub_configs'"),
        ({"__dict__": {"_attn_implementation_internal": "a/b"}}, "sets '__dict__'"),
        ({"configuration_files": ["config.4.0.0.json"]}, "sets 'configuration_files'"),
        ({"transformers_weights": "adapter_model.bin"}, "names the weights 'adapter_model.bin'"),
        ({"transformers_weights": "../x/model.safetensors.index.json"}, "names the weights"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "describes weights that are quantized in a way"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["(a+)+$"]}},
            "describes weights that are quantized in",
        ),
    ],
)
def test_a_configuration_leads_nowhere_else(changes, problem, base):
    edit(base / "config.json", **changes)
    with pytest.raises(UserError, match=rf"config\.json {re.escape(problem)}.*; expected a model of plain safetensors"):
        load(base)


def test_settings_that_fetch_nothing_are_loaded(base):
    edit(base / "config.json", attn_implementation="flash_attention_2", _attn_implementation="flash_attention_2",
         auto_map={"AutoModel": "evil.Evil"}, quantization_config=None, transformers_weights="model.safetensors")  # fmt: skip
    assert load(base).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_roberta"])
@pytest.mark.parametrize("place", ["folder", "Hub"])
def test_a_base_with_an_adapter_is_refused(name, place, tmp_path, hub):
    """Transformers would load the adapter with it, whatever it does to the answers."""
    folder = shutil.copytree(MODELS / name, tmp_path / name)
    settings = {"peft_type": "LORA", "base_model_name_or_path": f"miniature/{name}", "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    hub.add_model("user/base", folder)
    base = str(folder) if place == "folder" else "user/base"
    with pytest.raises(UserError, match=rf"{base}: it is an adapter, or holds one; expected a base model"):
        load(base) if name == "tiny_llama" else encoder.load_base(base, labels=LABELS)


def sharded(folder: Path) -> dict[str, str]:
    """Save a base in shards; return its index."""
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="300KB")
    (folder / "model.safetensors").unlink()
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def test_shards_lie_in_the_models_folder(base, tmp_path):
    shards = sharded(base)
    assert len(set(shards.values())) > 1
    load(base)
    name = next(iter(shards))
    outside = tmp_path / "outside.safetensors"
    shutil.copy(base / shards[name], outside)
    torch.save({}, base / "pytorch_model.bin")
    for shard in (
        str(outside),
        "../outside.safetensors",
        "pytorch_model.bin",
        "sub/a.safetensors",
        ".safetensors",
        5,
        None,
    ):
        edit(base / "model.safetensors.index.json", weight_map=shards | {name: shard})
        with pytest.raises(
            UserError, match=r"index\.json names the shard .*; expected names of \*\.safetensors in the"
        ):
            load(base)
    edit(base / "model.safetensors.index.json", weight_map=[])
    with pytest.raises(UserError, match="names the shard"):
        check_config(str(base), None)


ADAPTER = {
    "task_type": "SEQ_CLS",
    "peft_type": "LORA",
    "base_model_name_or_path": "user/base",
    "revision": None,
    "r": 16,
    "lora_alpha": 32,
    "target_modules": r"roberta\.(encoder)\..*\b(dense|key|query|value)",
    "modules_to_save": ["classifier", "classifier", "score"],
}


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": "(.*a)*b"},
        {"target_modules": r"roberta\.(encoder)\..*\b(dense|(a+)+)"},
        {"target_modules": ["q_proj", "(a+)+$"]},
        {"target_modules": ["q"] * 3000},
        {"target_modules": {"q": 1}},
        {"target_parameters": ["(a+)+$"]},
        {"exclude_modules": "(a+)+$"},
        {"modules_to_save": [".*"]},
        {"modules_to_save": [f"layer{i}" for i in range(9)]},
        {"r": 100_000_000},
        {"r": True},
        {"r": 8.5},
        {"rank_pattern": {"query": 100_000_000}},
        {"rank_pattern": {"(a+)+": 8}},
        {"alpha_pattern": {"query": 1e300}},
        {"lora_alpha": float("nan")},
        {"lora_dropout": -1},
        {"layer_replication": [[0, 1]] * 1000},
        {"layers_to_transform": [1]},
        {"layers_pattern": "(a+)+"},
        {"init_lora_weights": "eva"},
        {"init_lora_weights": {"a": 1}},
        {"loftq_config": {"loftq_iter": 10**9}},
        {"corda_config": {"cache_file": "/tmp/x"}},
        {"arrow_config": {"top_k": 1}},
        {"trainable_token_indices": [1]},
        {"auto_mapping": {"parent_library": "os", "base_model_class": "x"}},
        {"megatron_config": {"a": 1}},
        {"megatron_core": "os"},
        {"base_model_name_or_path": ["a"]},
        {"revision": 5},
        {"some_later_setting": True},
    ],
    ids=lambda changes: next(iter(changes), "unchanged"),
)
def test_an_adapter_asks_for_known_things_only(changes):
    key = next(iter(changes))
    with pytest.raises(UserError, match=rf"adapter_config\.json sets '{key}' to .*; expected a plain LoRA") as error:
        check_adapter_config({**ADAPTER, **changes}, "SEQ_CLS", "user/adapter")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_modules": ["q_proj", "model.layers.0.self_attn.v_proj"], "modules_to_save": None},
        {"exclude_modules": ["model.layers.1.feed_forward.router"]},
        {"rank_pattern": {r".*\.gate_up": 32}, "alpha_pattern": {r".*\.gate_up": 64}, "target_parameters": ["gate.weight"]},
        {"use_dora": True, "use_rslora": True, "init_lora_weights": "pissa", "lora_dropout": 0.1, "lora_alpha": 0.5},
        {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16, "peft_version": "0.21.2", "loftq_config": {}},
        {"some_later_setting": None},
    ],
    ids=lambda changes: next(iter(changes), "unchanged"),
)  # fmt: skip
def test_what_this_project_and_peft_write_is_loaded(changes):
    check_adapter_config({**ADAPTER, **changes}, "SEQ_CLS", "user/adapter")


def test_the_attention_is_always_set():
    """Otherwise a configuration chooses it, and may choose a kernel from the Hub; also in the cards' code."""
    calls = 0
    for folder in ("common", "sbic_llama", "snli_roberta"):
        for path in (path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".jinja")):
            text = path.read_text(encoding="utf-8")
            for call in re.finditer(r"Auto(Peft)?ModelFor\w+\.from_(pretrained|config)\(", text):
                end = re.compile(r"\n\s*\)").search(text, call.end()).start()
                assert "attn_implementation=" in text[call.start() : end], path
                calls += 1
    assert calls >= 8


def test_a_base_in_the_cache_is_enough_where_the_hub_is_down(hub, monkeypatch):
    """The files that a base need not have are asked for once, and without them, the cache decides."""
    hub.add_model("user/base", MODELS / "tiny_llama")
    load("user/base")
    load_tokenizer("user/base")
    hub.fail(".", status=503, times=-1)
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)  # the Hub here, a thread of this process, sleeps for 0 seconds
    load("user/base")
    load_tokenizer("user/base")
    assert not any(slept)
