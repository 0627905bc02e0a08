"""Data-parallel training: Fabric's DDP over processes of which the caller's is the first.

Since rank zero is the caller's own process, the trained network and the hooks' state need no way back. Fabric's
`ddp_spawn` trains in children only and returns results through a pipe that nobody reads before they have ended.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import ClassVar, Protocol, Self, TypeVar

import torch
import torch.multiprocessing as mp
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lilliput.core.errors import LilliputError
from lilliput.train.config import Fit


class Owned(Protocol):
    """A job that can be made independent of the memory it shares with the caller's process."""

    def own(self) -> Self:
        """A copy to write to."""


Job = TypeVar("Job", bound=Owned)
Out = TypeVar("Out")


class _Processes(ClusterEnvironment):
    """Processes of this machine that are already running."""

    def __init__(self, *, rank: int, world: int, port: int) -> None:
        super().__init__()
        self._rank, self._world, self._port = rank, world, port

    creates_processes_externally = True
    main_address = "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._world

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self._rank

    def node_rank(self) -> int:
        return 0


class _Replicated(DDPStrategy):
    """Keeps for good what gradients are exchanged by, once a run has failed.

    Freeing it waits, with the interpreter held, for gloo's threads, and these may wait for the interpreter to free an exchange that the
    failure broke: neither would ever end.
    """

    _failed: ClassVar[list[object]] = []
    _reducer: object = None

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        """The network, replicated."""
        network = super().setup_module(module)
        self._reducer = network.reducer
        return network

    def fail(self) -> None:
        """Keep it."""
        self._failed.append(self._reducer)


def accelerator(devices: int) -> str:
    """GPUs where there are enough of them, the CPU otherwise."""
    return "cuda" if torch.cuda.is_available() and torch.cuda.device_count() >= devices else "cpu"


def numbers(config: Fit) -> Precision:
    """What layers compute in, by Fabric's own means, but for its scaling of the loss, which hooks would not see, and for
    its refusal of half precision on the CPU."""
    if config.precision == "32-true":
        return Precision()
    mixed = MixedPrecision(config.precision, accelerator(config.devices))
    mixed.scaler = None
    return mixed


def run_parallel(function: Callable[[Fabric, Job], Out], job: Job, config: Fit) -> Out:
    """Run `function(fabric, job)` in `config.devices` processes; the result is that of the caller's, rank zero.

    Raises `LilliputError` with the child's own message when one fails.
    """
    context, world, port = mp.get_context("spawn"), config.devices, _free_port()
    threads = torch.get_num_threads()
    share = max(1, threads // world)
    children: list[tuple[BaseProcess, Connection]] = []
    child: BaseProcess
    try:
        for rank in range(1, world):
            ours, theirs = context.Pipe()
            child = context.Process(target=_child, args=(function, job, config, (rank, port, share), theirs), daemon=True)
            child.start()
            theirs.close()
            children.append((child, ours))
        for child, pipe in children:
            _expect_ready(child, pipe)
        torch.set_num_threads(share)
        try:
            return _run(function, job, config, (0, port))
        except RuntimeError as error:
            raise _reported(children) or error from error
        finally:
            torch.set_num_threads(threads)
    finally:
        for child, _ in children:
            child.join(timeout=5)
            if child.is_alive():
                child.terminate()
                child.join()


def _run(function: Callable[[Fabric, Job], Out], job: Job, config: Fit, place: tuple[int, int], pipe: Connection | None = None) -> Out:
    rank, port = place
    strategy = _Replicated(cluster_environment=_Processes(rank=rank, world=config.devices, port=port))
    fabric = Fabric(accelerator=accelerator(config.devices), devices=config.devices, strategy=strategy, plugins=numbers(config))
    with _environment_kept():
        try:
            fabric.launch()
            return function(fabric, job)
        except BaseException as error:
            strategy.fail()
            if pipe is not None:
                pipe.send(f"process {rank}: {type(error).__name__}: {error}")
            raise
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def _child(function: Callable[[Fabric, Job], object], job: Job, config: Fit, place: tuple[int, int, int], pipe: Connection) -> None:
    rank, port, threads = place
    torch.set_num_threads(threads)
    job = job.own()
    pipe.send("ready")
    code = 1  # the caller's process reports why
    try:
        _run(function, job, config, (rank, port), pipe)
        code = 0
    finally:
        # Not the interpreter's way out: gloo's group waits for a thread of its own there, which may wait for the interpreter, and the
        # caller's process for connections that do not break.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _expect_ready(child: BaseProcess, pipe: Connection) -> None:
    wait([pipe, child.sentinel])
    try:
        pipe.recv()
    except EOFError:
        raise LilliputError("a training process ended before it began: the script needs `if __name__ == \"__main__\":` around its "
                            "entry, and model, data, hooks and loss must pickle (no lambdas or local classes); or use devices=1") from None


def _reported(children: list[tuple[BaseProcess, Connection]]) -> LilliputError | None:
    """The message of a child that failed, for which the others' broken connections are only an echo."""
    for rank, (child, pipe) in enumerate(children, 1):
        try:
            if pipe.poll(timeout=5):
                return LilliputError(str(pipe.recv()))
        except EOFError:
            child.join(timeout=5)
            return LilliputError(f"process {rank} died with exit code {child.exitcode}: is there enough memory for {len(children) + 1}?")
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Fabric writes the cluster's address into the environment, where later runs would find it, and logs on the way."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
