"""The one training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lilliput.core.errors import CorruptFileError, DataError, LilliputError, PreconditionError
from lilliput.core.report import describe
from lilliput.core.seeds import seed_everything
from lilliput.train import checkpoint as files
from lilliput.train import rng
from lilliput.train.config import Checkpoint, Fit
from lilliput.train.evaluate import device_of, mean_loss
from lilliput.train.hooks import Batch, Hook, Hooks, Row, State
from lilliput.train.interrupt import Interrupt
from lilliput.train.losses import CrossEntropy, Loss, loss_of
from lilliput.train.progress import Bar
from lilliput.train.protocols import Dataset

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class DivergenceError(LilliputError):
    """The loss is not finite; the message names epoch, step and remedy."""


@dataclass(frozen=True)
class Trained:
    """The network after the last epoch, and per epoch: `epoch`, `train_loss`, `val_loss`, `val_accuracy` (percent, for
    data with classes), `lr`, `seconds`."""

    model: nn.Module
    history: tuple[Row, ...]


def fit(model: nn.Module, data: Dataset, config: Fit, *, hooks: Sequence[Hook] = (), loss: Loss | None = None,
        checkpoint: Path | Checkpoint | None = None, progress: bool = True) -> Trained:
    """Train a deep copy of `model` on `data.train`, and return it as it is after the last epoch.

    `loss` is cross entropy for data with classes, else mean squared error. With a `checkpoint` the run is saved after each
    epoch (and every so many steps), and on Ctrl-C; when the file exists already, the run goes on from there, bit for bit as
    if it had not stopped. The validation split is only reported, never chosen on. Seeds the global random generators.

    Raises `DivergenceError` when the loss is not finite, `CorruptFileError` for a damaged checkpoint, `PreconditionError`
    for one of another run, `DataError` for an empty training split.
    """
    if len(data.train) == 0:
        raise DataError(f"the training split of {data.name} is empty: load data with training samples")
    loss = loss or loss_of(data)
    target = Checkpoint(path=checkpoint) if isinstance(checkpoint, Path) else checkpoint
    recipe = {} if target is None else {"data": data.digest, "config": describe(config), "loss": describe(loss),
                                        "hooks": describe(list(hooks)), "model": files.digest(model)}
    job = Job(model=copy.deepcopy(model), data=data, config=config, hooks=tuple(hooks), loss=loss, checkpoint=target,
              recipe=recipe, progress=progress)
    from lilliput.train.parallel import accelerator, numbers, run_parallel

    if config.devices > 1:
        return run_parallel(_run, job, config)
    from lightning_fabric import Fabric

    return _run(Fabric(accelerator=accelerator(1), devices=1, plugins=numbers(config)), job)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of `fit`, as handed to each process."""

    model: nn.Module
    data: Dataset
    config: Fit
    hooks: tuple[Hook, ...]
    loss: Loss
    checkpoint: Checkpoint | None
    recipe: dict[str, str]
    progress: bool

    def own(self) -> Self:
        """With network and hooks in memory of its own; the data, which nobody writes to, stays shared."""
        return replace(self, model=copy.deepcopy(self.model), hooks=copy.deepcopy(self.hooks))


def _run(fabric: Fabric, job: Job) -> Trained:
    steps = math.ceil(len(job.data.train) / job.config.batch_size)
    state = State(model=job.model, fabric=fabric, data=job.data, config=job.config, total_steps=job.config.epochs * steps)
    before = device_of(job.model)
    trainer = _Trainer(job, state)
    with Interrupt(active=job.checkpoint is not None and fabric.world_size == 1) as interrupt:
        trainer.train(interrupt, steps)
    trainer.hooks.end(state)
    state.model.zero_grad(set_to_none=True)
    _lay_out_(state.model.to(before), torch.contiguous_format)
    return Trained(state.model, tuple(state.history))


def _lay_out_(model: nn.Module, layout: torch.memory_format) -> None:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)


class _Trainer:
    """The loop's own state, beside what hooks see."""

    def __init__(self, job: Job, state: State) -> None:
        self.job, self.state, self.config, self.fabric = job, state, job.config, state.fabric
        self.hooks = Hooks(job.hooks)
        self.local_batch = self.config.batch_size // self.fabric.world_size
        self.running = {"loss": 0.0, "samples": 0.0, "seconds": 0.0}
        self.skip = 0
        self.rng: dict[str, Tensor] | None = None
        self._set_up()

    def _set_up(self) -> None:
        state, config = self.state, self.config
        seed_everything(config.seed)
        state.model.to(self.fabric.device).train()
        self.hooks.start(state)
        if self.fabric.global_rank:
            seed_everything(config.seed + self.fabric.global_rank)
        # Restored before the first batch: what gets imported until then, in the first run of a process only, may draw from them.
        self.rng = rng.capture(self.fabric.device)
        state.model.to(self.fabric.device)
        if config.channels_last:
            _lay_out_(state.model, torch.channels_last)
        state.optimizer = config.optimizer.build(state.model.parameters())
        self.network, self.optimizer = self.fabric.setup(state.model, state.optimizer)
        for module in self.network.modules():
            if isinstance(module, DistributedDataParallel):
                self.hooks.connect(state, module)
        if self.job.checkpoint is not None and self.job.checkpoint.path.exists():
            self._resume(self.job.checkpoint.path)

    def train(self, interrupt: Interrupt, steps: int) -> None:
        state, every = self.state, self.job.checkpoint.every if self.job.checkpoint else None
        with Bar(total=state.total_steps, show=self.job.progress and self.fabric.is_global_zero) as bar:
            for epoch in range(state.epoch, self.config.epochs):
                state.epoch = epoch
                since = time.perf_counter() - self.running["seconds"]
                for position, batch in self._batches():
                    self._step(batch)
                    self.running["seconds"] = time.perf_counter() - since
                    bar.update(state.step, f"epoch {state.epoch + 1}/{self.config.epochs} {self._last()}")
                    if position + 1 < steps and (interrupt.requested or (every and state.step % every == 0)):
                        self._save(state.epoch, position + 1)
                    if interrupt.requested and position + 1 < steps:
                        raise KeyboardInterrupt
                self._end_epoch(time.perf_counter() - since)
                if interrupt.requested:
                    raise KeyboardInterrupt

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """Batches of the present epoch, those of a run that was interrupted left out."""
        fabric, config = self.fabric, self.config
        batches = iter(self.job.data.train.batches(self.local_batch, seed=config.seed, epoch=self.state.epoch,
                                                   rank=fabric.global_rank, world=fabric.world_size))
        skip, self.skip = self.skip, 0
        for _ in range(skip):
            next(batches, None)
        if self.rng is not None:
            rng.restore(self.rng, fabric.device)
            self.rng = None
        yield from enumerate(batches, skip)

    def _step(self, batch: Batch) -> None:
        state = self.state
        state.inputs, state.targets = self.hooks.batch(state, self._place(batch))
        assert state.optimizer is not None
        factor = self.config.schedule(state.progress)
        for group in state.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        self.optimizer.zero_grad()
        outputs = self.network(state.inputs)
        loss = self.hooks.loss(state, outputs, self.job.loss(outputs, state.targets))
        mean, share = self._reduce(loss, len(state.inputs))
        if not math.isfinite(mean):
            raise self._divergence("training loss", mean)
        self.fabric.backward(loss * share if share != 1 else loss)
        self.hooks.gradients(state)
        self.optimizer.step()
        self.hooks.step(state)
        state.step += 1

    def _place(self, batch: Batch) -> Batch:
        inputs, targets = batch[0].to(self.fabric.device), batch[1].to(self.fabric.device)
        if self.config.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, targets

    def _reduce(self, loss: Tensor, samples: int) -> tuple[float, float]:
        """The mean loss over all processes' samples, and this one's weight where shares of the last batch differ."""
        world = self.fabric.world_size
        total: Any = torch.stack([loss.detach().double() * samples, loss.new_tensor(samples, dtype=torch.float64)])
        if world > 1:
            total = self.fabric.all_reduce(total, reduce_op="sum")
        weighted, count = total.tolist()
        self.running["loss"] += weighted
        self.running["samples"] += count
        return weighted / count, samples * world / count

    def _end_epoch(self, seconds: float) -> None:
        state = self.state
        assert state.optimizer is not None
        row = {"epoch": float(state.epoch), "train_loss": self.running["loss"] / max(self.running["samples"], 1.0),
               **self.fabric.broadcast(self._validate()), "lr": float(state.optimizer.param_groups[0]["lr"]), "seconds": seconds}
        if not math.isfinite(row.get("val_loss", 0.0)):
            raise self._divergence("validation loss", row["val_loss"])
        state.history.append(row)
        self.running = {"loss": 0.0, "samples": 0.0, "seconds": 0.0}
        self.hooks.epoch(state)
        self._save(state.epoch + 1, 0)

    def _validate(self) -> Row:
        """Metrics on the validation split, in the first process; the others wait for them."""
        data = self.job.data
        if not self.fabric.is_global_zero or len(data.val) == 0:
            return {}
        plain: Loss = CrossEntropy() if data.num_classes else self.job.loss
        loss, accuracy = mean_loss(self.state.model, data.val, plain, classes=data.num_classes > 0)
        return {"val_loss": loss, "val_accuracy": accuracy} if data.num_classes else {"val_loss": loss}

    def _last(self) -> str:
        accuracy = self.state.history[-1].get("val_accuracy") if self.state.history else None
        return "" if accuracy is None else f"validation {accuracy:.1f} %"

    def _divergence(self, what: str, value: float) -> DivergenceError:
        state = self.state
        if what == "training loss" and state.inputs is not None and not bool(torch.isfinite(state.inputs).all()):
            remedy = "the inputs of this batch are not finite: clean the data"
        else:
            assert state.optimizer is not None
            remedy = f"lower the learning rate (now {state.optimizer.param_groups[0]['lr']:.3g}) or warm it up"
            remedy += ", or use precision='32-true'" if self.config.precision != "32-true" else ""
        return DivergenceError(f"{what} is {value} in epoch {state.epoch + 1}, step {state.step + 1} of {state.total_steps}: {remedy}")

    def _save(self, epoch: int, batch: int) -> None:
        target, state, fabric = self.job.checkpoint, self.state, self.fabric
        if target is None:
            return
        generators = rng.gather(rng.capture(fabric.device), fabric.device)
        if fabric.is_global_zero:
            assert state.optimizer is not None
            files.save(target.path, {
                "recipe": self.job.recipe, "model": dict(state.model.state_dict()), "optimizer": state.optimizer.state_dict(),
                "hooks": self.hooks.state_dict(), "rng": generators, "epoch": epoch, "batch": batch, "step": state.step,
                "running": dict(self.running), "history": [dict(row) for row in state.history]})
        fabric.barrier()

    def _resume(self, path: Path) -> None:
        payload: dict[str, Any] = files.load(path)
        files.check_recipe(path, payload["recipe"], self.job.recipe)
        state, rank = self.state, self.fabric.global_rank
        assert state.optimizer is not None
        try:
            state.model.load_state_dict(payload["model"])
            state.optimizer.load_state_dict(payload["optimizer"])
            # A copy, since torch reads a generator's state from the start of the storage, whatever the view.
            self.rng = {name: value[rank].clone() for name, value in payload["rng"].items()}
            rng.restore(self.rng, self.fabric.device)
            if max(payload["step"], payload["epoch"]) > state.total_steps:
                raise ValueError("it lies beyond the end of training")
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, OverflowError, AttributeError) as error:
            raise CorruptFileError(f"checkpoint {path} does not fit this network: {str(error)[:300]}; delete it to start anew") from error
        try:
            self.hooks.load_state_dict(payload["hooks"])
        except (KeyError, TypeError) as error:
            raise PreconditionError(f"checkpoint {path} holds hooks of another kind ({error}); delete it to start anew") from error
        state.epoch, state.step, self.skip = payload["epoch"], payload["step"], payload["batch"]
        self.running, state.history = payload["running"], payload["history"]
