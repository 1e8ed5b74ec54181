"""Annotating on Ray Data: the posts stream from this machine to actors, each with a model, and their parts stream back.

Only this machine needs the posts and the output. Adapters and base model must be found where the actors run: by Hub ids, or on a
shared disk.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import log
from common.cli.errors import UserError, shown
from common.models.loading import hub_commit
from common.runtime import hardware
from sbic_llama.annotation.input import Part, RowFormat, Survey, Window, annotated, windows
from sbic_llama.annotation.parts import digest_of

if TYPE_CHECKING:
    import pyarrow

    from sbic_llama.annotation.run import AnnotateArguments
    from sbic_llama.model.annotator import Adapter
    from sbic_llama.model.description import AnnotatorFile

REQUIREMENTS = "requirements-scale.txt"
DEATHS = 10  # of an actor, and of the actors that work on a window, before the run ends: it may be the window that kills them


@dataclass(frozen=True)
class Model:
    """What an actor loads.

    Attributes:
        adapters: Folders or Hub ids, each at the commit that this machine has.
        digests: What makes each of them that one.
        quantisation: How the base model's weights are kept.
        batch_size: Posts a forward pass at most.
        on_gpu: Whether an actor has a GPU.
        precision: In which it computes.
        actors: How many there are, perhaps all on one machine, whose memory they share.
    """

    adapters: tuple[str, ...]
    digests: tuple[str, ...]
    quantisation: Any
    batch_size: int
    on_gpu: bool
    precision: str
    actors: int


class Worker:
    """An actor: a model, and how rows are made with it. It loads when the first window comes, so that a fault can be told."""

    def __init__(self, model: Model, rule: RowFormat):
        self._model, self._rule, self._annotator = model, rule, None

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        import pyarrow

        (window,) = [Window(**row) for row in batch.to_pylist()]
        try:
            if self._annotator is None:
                self._annotator = self._load()
        except UserError as error:
            return pyarrow.table({"error": [str(error)]})
        return pyarrow.Table.from_pylist([asdict(annotated(window, self._annotator, self._rule))])

    def _load(self) -> Any:
        if not self._model.on_gpu:
            os.environ["ACCELERATE_USE_CPU"] = "true"
            os.environ["LOCAL_WORLD_SIZE"] = str(self._model.actors)
        from common.cli.console import quiet_libraries

        quiet_libraries()
        from sbic_llama.model.annotator import Annotator

        found = Annotator(
            *self._model.adapters, quantisation=self._model.quantisation, batch_size=self._model.batch_size
        )
        for adapter, name, digest in zip(found.adapters, self._model.adapters, self._model.digests, strict=True):
            if digest_of(adapter) != digest:
                raise UserError("it is another adapter on a machine of the cluster", file=name, expected="the same")
        if found.precision.value != self._model.precision:
            raise UserError(
                f"machines of the cluster compute in {self._model.precision} and in {found.precision.value}",
                fix="use machines of one kind",
            )
        return found


@dataclass(frozen=True)
class Pool:
    """Actors of a cluster that this process is connected to.

    Attributes:
        model: What each of them loads, and how many there are.
    """

    model: Model

    @property
    def precision(self) -> str:
        return self.model.precision

    def parts(self, files: Sequence[Survey], wanted: Sequence[tuple[int, int]], rule: RowFormat) -> Iterator[Part]:
        """The wanted parts, in the order in which they get done. An actor that dies is replaced, and its window is done again.

        Raises:
            UserError: An actor can't load the model, or they die again and again.
        """
        import ray.data
        from ray.exceptions import RayError

        try:
            # One core is one thread: so the numbers are the same on every machine.
            done = _windows(files, list(wanted), rule.text_column).map_batches(
                Worker,
                fn_constructor_args=(self.model, rule),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=self.model.actors),
                num_cpus=1,
                num_gpus=1 if self.model.on_gpu else 0,
                max_restarts=DEATHS,
                max_task_retries=DEATHS,
            )
            for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in batch.to_pylist():
                    if row.get("error"):
                        raise UserError(f"an actor: {row['error']}")
                    yield Part(**row)
        except RayError as error:
            raise UserError(
                f"Ray: {str(error).strip().splitlines()[0]}", fix="was memory short? The same command continues"
            ) from error


@contextlib.contextmanager
def pool(arguments: AnnotateArguments, adapters: Sequence[Adapter]) -> Iterator[Pool]:
    """While entered, a connection to a cluster: a new one on this machine, or the one at an address.

    Raises:
        UserError: Ray is not installed, there is no cluster at that address, or it has fewer GPUs or cores than actors.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what its C++ part says on standard error
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(
            f"Ray can't be imported: {error}",
            key="--engine",
            fix=f"get it by pip install -r {REQUIREMENTS}",
        ) from None
    if arguments.ray_address:
        _check_address(arguments.ray_address)
    _quiet()
    try:
        if arguments.ray_address:
            ray.init(address=arguments.ray_address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no Ray cluster: {reason}", key="--ray_address", fix="the command ray status shows a running one"
        ) from None
    # Ray tells of deaths on standard output, where the annotated posts may go; of some only when it shuts down.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield _pool(arguments, adapters)
        finally:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Ray itself waits for a cluster for many minutes, and says nothing."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UserError(
            f"{shown(address)} is no address", key="--ray_address", expected="host:port of its head, as 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"nothing answers at {address}: {error}",
            key="--ray_address",
            fix="a cluster is started with: ray start --head",
        ) from None


def _quiet() -> None:
    """Silences what Ray says of its plans and settings; its log files keep it."""
    warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # the only way to bound restarts
    for handler in logging.getLogger("ray.data").handlers:
        if type(handler).__name__ == "PlainRayHandler":  # the console's
            handler.setLevel(logging.CRITICAL)


def _pool(arguments: AnnotateArguments, adapters: Sequence[Adapter]) -> Pool:
    import ray

    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    on_gpu = gpus > 0 and hardware.device_type() != "cpu" if not arguments.ray_address else gpus > 0
    size = arguments.actors or (gpus if on_gpu else 1)
    if size > (there := gpus if on_gpu else cores):
        kind = "GPUs" if on_gpu else "cores"
        raise UserError(f"the cluster has {there} {kind}", key="--actors", expected=f"at most {there}")
    there = ray.remote(_precision).options(num_cpus=1, num_gpus=1 if on_gpu else 0)
    precision = ray.get(there.remote(on_gpu, adapters[0].description))
    names = []
    for name, adapter in zip(arguments.adapter, adapters, strict=True):
        # Another machine must not get a later commit, nor look for a folder beside its own working folder.
        on_hub = f"{name.partition('@')[0]}@{hub_commit(adapter.folder)}"
        names.append(str(Path(name).resolve()) if Path(name).exists() else on_hub)
    names_of = ", ".join(adapter.name for adapter in adapters)
    actors = "1 actor" if size == 1 else f"{size} actors"
    log(f"{names_of} in {precision}, {actors} with a {'GPU' if on_gpu else 'core'} each")
    digests = tuple(digest_of(adapter) for adapter in adapters)
    shape = (arguments.quantisation, arguments.batch_size, on_gpu, precision, size)
    return Pool(Model(tuple(names), digests, *shape))


def _precision(on_gpu: bool, description: AnnotatorFile) -> str:
    if not on_gpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    from sbic_llama.model.adapter import precision_for

    return precision_for(description).value


def _windows(files: Sequence[Survey], wanted: list[tuple[int, int]], text_column: str) -> Any:
    """A dataset of windows, a row each, that are read here, as they are taken."""
    import ray.data
    from ray.data.block import BlockMetadata

    class Windows(ray.data.Datasource):
        supports_distributed_reads = False  # on this machine, whose files they are

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ray.data.ReadTask]:
            read = functools.partial(_blocks, list(files), wanted, text_column)
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ray.data.ReadTask(read, unknown)]

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # byte: a window is not held back until others fill a block of 128 MB with it
    # No core of its own: with an actor on each, reading would wait for ever.
    return ray.data.read_datasource(Windows(), num_cpus=0, override_num_blocks=1)


def _blocks(files: list[Survey], wanted: list[tuple[int, int]], text_column: str) -> Iterator[pyarrow.Table]:
    import pyarrow

    schema = pyarrow.schema(
        [
            ("file", pyarrow.int64()),
            ("number", pyarrow.int64()),
            ("reasons", pyarrow.list_(pyarrow.string())),
            ("posts", pyarrow.list_(pyarrow.string())),
        ]
    )
    for window in windows(files, wanted, text_column):
        yield pyarrow.Table.from_pylist([asdict(window)], schema=schema)
