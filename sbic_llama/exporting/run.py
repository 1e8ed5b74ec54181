"""Export an adapter: merge it, compare the answers, and write what other programs load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from common.cli.console import log, stage
from common.cli.errors import UserError, printable
from common.models.load_errors import loading
from common.models.loading import base_path, load_config, local_folder, with_revision
from common.models.merging import merged_model
from common.models.quantization import attention_for, load_tokenizer
from common.results.finding import Finding, Listing, worded
from common.results.scoring import command_line
from common.runtime import child_process, hardware
from common.runtime.files import atomic_folder, disk_errors, readable_mode, require_space
from common.tables.report import fingerprint
from sbic_llama.data.features import Answers, Feature
from sbic_llama.exporting.arguments import MERGED, ExportArguments
from sbic_llama.exporting.parity import Parity, compare
from sbic_llama.exporting.prompts import MODELFILE, ExportedPrompt, exported_prompt, write_page
from sbic_llama.model.adapter import load_adapter, read_description
from sbic_llama.model.answering import answer
from sbic_llama.model.description import ANNOTATOR_FILE, AnnotatorFile

MODULE = "sbic_llama.export"
REPORT = "export.json"  # in the folder of an exported model
TEMPLATES = Path(__file__).parent / "templates"
HEAD = ["run by", "posts", "other labels", "their largest lead", "largest change", "other prompts", "other answers"]
BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "q8_0": 8.5, "q4_1": 5}


@dataclass(frozen=True)
class Source:
    """The adapter to export."""

    folder: Path
    description: AnnotatorFile
    feature: Feature
    tokenizer: PreTrainedTokenizerBase
    prompt: ExportedPrompt


def export(arguments: ExportArguments) -> Finding:
    """Write the exported model into a folder, which appears once all is well, and return how its answers compare.

    Raises:
        UserError: More labels change than allowed, or the adapter cannot be exported so. Nothing is left.
    """
    source = read_source(arguments)
    posts = arguments.chosen(source.description, source.feature)
    log(f"{len(posts):,} texts to compare answers on, from {arguments.source['name']} ({arguments.source['split']})")
    require_space(_existing(arguments.output_dir), _size(arguments, source), "the exported model")
    hardware.choose_device()
    expected, model = merge(arguments, source, posts)
    fix = "choose an --output_dir on another disk"
    with disk_errors(arguments.output_dir, fix=fix), atomic_folder(arguments.output_dir) as folder:
        if arguments.to == "merged":
            model = save_merged(arguments, source, model, folder)
        else:
            path, prompt = save_gguf(arguments, source, model, folder)
        rows = [compare_merged(arguments, source, model, posts, expected)]
        del model
        if arguments.check:
            rows.append(compare_llama_cpp(arguments, source, path, prompt, posts, expected))
        finding = finding_of(arguments, source, posts, rows)
        finding.write(folder / REPORT)
        shutil.copy(source.folder / ANNOTATOR_FILE, folder)
        write_readme(arguments, source, rows, folder)
        for path in folder.iterdir():  # some libraries write files that only their owner may read
            path.chmod(readable_mode())
    return finding


def read_source(arguments: ExportArguments) -> Source:
    """Read an adapter's description and tokenizer, and refuse what cannot be exported, before a model is loaded."""
    name, revision = (arguments.adapter, arguments.revision)
    folder = local_folder(*(with_revision(name) if revision is None else (name, revision)))
    description = read_description(folder, name)
    feature = description.resolve_feature()
    base = base_path(description.base_model)
    tokenizer = load_tokenizer(base, description.base_revision)
    if arguments.to == "gguf":
        from common.models.gguf_file import architecture_of
        from common.models.gguf_tokenizer import require_known

        if feature.choices:
            problem = "its question has several labels, each asked on its own, and a program that chats asks once"
            raise UserError(problem, file=name, expected="a question with one label or a list", fix="use --to merged")
        architecture_of(load_config(base, description.base_revision), base)
        require_known(tokenizer)
    prompt = exported_prompt(tokenizer, feature, max_post_tokens=description.max_post_tokens)
    return Source(folder, description, feature, tokenizer, prompt)


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.resolve().parents) if each.is_dir())


def _size(arguments: ExportArguments, source: Source) -> int:
    """Return about how many bytes the exported weights take."""
    config = load_config(base_path(source.description.base_model), source.description.base_revision)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention_for(config), trust_remote_code=False
        )
    return int(model.num_parameters() * BITS[arguments.dtype] / 8)


def merge(arguments: ExportArguments, source: Source, posts: Sequence[str]) -> tuple[Answers, PreTrainedModel]:
    """Return the adapter's answers in fp32, and the merged model on the CPU; the adapter is freed."""
    description = source.description
    with stage("loading the adapter"):
        model, _, _ = load_adapter(source.folder, precision="fp32")
    with stage("answering with the adapter"):
        expected = ask(arguments, source, model, posts)
    with stage("merging"):
        dtype = hardware.dtype(arguments.dtype) if arguments.dtype in MERGED else torch.float16
        merged = merged_model(model, base_path(description.base_model), description.base_revision, dtype)
    # Neither adapter nor merging changes which fast ways of answering are right for the architecture.
    merged.exactness = model.get_base_model().exactness
    return expected, merged


def ask(arguments: ExportArguments, source: Source, model: Any, posts: Sequence[str]) -> Answers:
    """Return a model's answers, as the product scores them."""
    description = source.description
    return answer(
        model,
        source.tokenizer,
        source.feature,
        posts,
        max_post_tokens=description.max_post_tokens,
        batch_size=arguments.batch_size,
        temperature=description.temperature,
        progress=True,
    )


def save_merged(arguments: ExportArguments, source: Source, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Save a model that plain transformers loads, with a chat template that makes a message a post; load it again."""
    prompt, exactness = source.prompt, model.exactness
    model.config.eos_token_id = prompt.end_id
    model.generation_config = GenerationConfig(
        eos_token_id=prompt.end_id, pad_token_id=source.tokenizer.pad_token_id, do_sample=False
    )
    tokenizer = load_tokenizer(base_path(source.description.base_model), source.description.base_revision)
    bos = tokenizer.convert_ids_to_tokens(prompt.bos) if prompt.bos is not None else ""
    tokenizer.chat_template = prompt.chat_template(bos)
    with stage("saving, and loading again"):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / MODELFILE).write_text(prompt.modelfile("."), encoding="utf-8")
        attention = model.config._attn_implementation
        del model
        with loading(arguments.output_dir):
            saved = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype="auto",
                attn_implementation=attention,
                use_safetensors=True,
                trust_remote_code=False,
            )
    saved.exactness = exactness
    return saved.eval()


def compare_merged(
    arguments: ExportArguments, source: Source, model: PreTrainedModel, posts: Sequence[str], expected: Answers
) -> Parity:
    """Answer with the merged model, cast to the precision to run it in, and compare the answers with the adapter's."""
    with stage(f"answering with the merged model in {arguments.precision}"):
        for parameter in model.parameters():  # not the buffers: frequencies of RoPE stay in fp32
            parameter.data = parameter.data.to(hardware.dtype(arguments.precision))
        if arguments.dtype not in MERGED:
            from common.models.gguf_file import round_as_stored

            round_as_stored(model, arguments.dtype)
        try:
            answers = ask(arguments, source, model.to(hardware.device_type()), posts)
        except torch.OutOfMemoryError:
            fix = "use --precision fp16, or ACCELERATE_USE_CPU=true"
            raise UserError("the merged model does not fit into the GPU's memory", key="--precision", fix=fix) from None
    by = f"transformers {metadata.version('transformers')}, weights {arguments.dtype}, run in {arguments.precision}"
    parity = compare(source.feature, expected, answers, by)
    log(parity.line())
    parity.require(arguments.max_flips)
    return parity


def save_gguf(
    arguments: ExportArguments, source: Source, model: PreTrainedModel, folder: Path
) -> tuple[Path, ExportedPrompt]:
    """Write a GGUF file and a Modelfile; return the file, and the prompt as the file names its control tokens."""
    from common.models.gguf_file import write_gguf
    from common.models.gguf_tokenizer import vocabulary

    words = vocabulary(source.tokenizer, model.config.vocab_size, chat=source.prompt.chat)
    prompt, path = source.prompt.in_gguf(words), folder / gguf_name(arguments, source)
    with stage(f"writing {path.name}"):
        write_gguf(
            path,
            model,
            words,
            storage=arguments.dtype,
            title=source.feature.name,
            chat_template=prompt.chat_template(),
            end=prompt.end_id,
            bos=prompt.bos,
        )
        (folder / MODELFILE).write_text(prompt.modelfile(f"./{path.name}"), encoding="utf-8")
    return path, prompt


def compare_llama_cpp(
    arguments: ExportArguments,
    source: Source,
    path: Path,
    prompt: ExportedPrompt,
    posts: Sequence[str],
    expected: Answers,
) -> Parity:
    """Answer with llama.cpp, and compare the answers with the adapter's."""
    from sbic_llama.exporting import llama_cpp

    task = llama_cpp.Task(path, prompt.context, torch.get_num_threads(), source.description, list(posts))
    with stage("answering with llama.cpp"):
        run = child_process.call(llama_cpp.run_llama_cpp, task, preload=llama_cpp.__name__)
    by = f"llama.cpp (xllamacpp {metadata.version('xllamacpp')}), weights {arguments.dtype}"
    parity = compare(source.feature, expected, run.answers, by, run.prompts, run.written)
    log(parity.line())
    parity.require(arguments.max_flips)
    return parity


def gguf_name(arguments: ExportArguments, source: Source) -> str:
    """Return a file's name as llama.cpp and the Hub know it: with the type of the weights at its end."""
    kind = arguments.dtype.upper().replace("FP", "F")
    return f"{source.feature.slug}-{kind}.gguf"


def finding_of(arguments: ExportArguments, source: Source, posts: Sequence[str], rows: Sequence[Parity]) -> Finding:
    """Return the comparisons as a finding."""
    cells = [
        [row.by, row.posts, row.flips, round(row.lead, 6), round(row.change, 6), row.prompts, row.written]
        for row in rows
    ]
    return Finding(
        name="export",
        task=source.feature.task,
        model=f"{arguments.to}, {arguments.dtype}",
        **worded(TEMPLATES / "export.jinja", rows=rows, lists=not source.feature.branches),
        parts=[Listing("The exported model's answers next to the adapter's", HEAD, cells)],
        data={**arguments.source, "fingerprint": fingerprint([text] for text in posts)},
        facts={
            "comparisons": [asdict(row) for row in rows],
            "max_flips": arguments.max_flips,
            "base": source.description.base_model.rpartition("/")[2],
            "packages": {name: metadata.version(name) for name in packages(arguments)},
        },
        miniature=source.description.of_miniature,
        command=command_line(MODULE),
    )


def packages(arguments: ExportArguments) -> list[str]:
    return ["peft", "bitsandbytes", *["gguf"] * (arguments.to == "gguf"), *["xllamacpp"] * arguments.check]


def write_readme(arguments: ExportArguments, source: Source, rows: Sequence[Parity], folder: Path) -> None:
    """Write the page that says what the exported model is, and how to use it."""
    feature, description = source.feature, source.description
    plain = partial(printable, markdown=True)
    write_page(
        folder,
        "README.md.jinja",
        gguf=gguf_name(arguments, source) if arguments.to == "gguf" else None,
        dtype=arguments.dtype,
        name=feature.slug.lower(),
        title=plain(feature.title),
        question=plain(feature.question),
        labels=[plain(label) for label in feature.labels],
        choices=[plain(label) for label in feature.choices],
        base=Path(description.base_model).name if Path(description.base_model).is_dir() else description.base_model,
        revision=description.base_revision,
        prompt=source.prompt,
        text_before=json.dumps(source.prompt.head, ensure_ascii=False),
        text_after=json.dumps(source.prompt.tail, ensure_ascii=False),
        max_post_tokens=description.max_post_tokens,
        rows=rows,
        miniature=description.of_miniature,
    )
