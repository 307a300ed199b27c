"""Train a BLiTZ network on windows or rows: Adam on the ELBO, early stopping, and checkpoints that resume exactly."""

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.dataset import Dataset, Part, digest, standardise, with_validation
from ..runtime import checks
from ..runtime.contract import Noise, Scaling
from ..runtime.errors import InputError, MurhoError
from ..runtime.fingerprint import fingerprint
from .checkpoint import Checkpoint, State, copy_weights, describe, load_checkpoint, load_weights, save_checkpoint
from .elbo import Criterion, elbo_backward, predict, sampled_layers, sampled_loss
from .history import History
from .likelihood import negative_log_likelihood
from .progress import EpochBar

VALIDATION_SAMPLES = 8
DEFAULT_CRITERION: dict[str, Criterion] = {
    "forecast": nn.functional.mse_loss,
    "regression": nn.functional.mse_loss,
    "classification": nn.functional.cross_entropy,
}


def fit(
    network: nn.Module,
    data: Dataset,
    *,
    epochs: int = 120,
    batch_size: int = 128,
    samples: int = 3,
    learning_rate: float = 0.01,
    patience: int = 40,
    complexity_weight: float | None = None,
    criterion: Criterion | None = None,
    noise: Noise | None = None,
    seed: int = 0,
    threads: int = 1,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Train `network` on the training part of `data`; at the end it has the weights of the best epoch.

    `network`: any torch module with BLiTZ layers, wrapped by `variational_estimator` or not, that maps standardised
    float32 `[B, *data.shape]` to `[B, outputs]`, or to an (output, state) pair; outputs are the horizon of a forecast,
    the targets of a regression, or a logit for each class. With a `noise` that is learned, it gives as many scales
    after them, and the loss is their negative log likelihood (Gaussian or Student-t). It is trained where its weights
    are, and left in evaluation mode, still sampling. Frozen layers stay as they are.

    The loss of a batch is (1/K) Σ_k [criterion + KL_k · `complexity_weight`] over K = `samples` weight samples, in
    standardised units; unless given, `criterion` is the mean squared error, or the cross entropy for a classification,
    and `complexity_weight` 1/N for N training examples. Batches of `batch_size` examples are drawn in a new order in
    each epoch.

    The last 15 % of the training examples are kept out for validation, so that the calibration part stays unseen. The
    validation loss is the criterion over sampled weights, as a prediction draws them: a frozen BLiTZ layer may compute
    with stale means. The samples are the same in every epoch, so that epochs differ by their weights alone. Training
    stops after `epochs`, or after `patience` epochs without a better validation loss.

    `checkpoint`: file to write after every epoch; an older one is replaced. `resume=True` goes on from it, to the same
    result bit for bit as without the break, if everything but `epochs` and `patience` is as it was. Ctrl-C ends the
    training early: the network has the best weights of all whole epochs, the checkpoint too, and the returned
    `History.interrupted` is True. Interrupted before the end of the first epoch, the network has its initial weights,
    `best_epoch` is 0 and no checkpoint is written.

    `threads`: torch threads on the CPU while training. The operations of a small network are too short to share: more
    threads gain nothing, and on a busy machine they wait for each other and take many times as long.

    The same `seed`, network, settings and machine give the same result bit for bit on the CPU. All randomness comes
    from torch's generators, reseeded for each epoch from `seed` and the epoch's number; their state outside is left as
    it was, and no other generator is touched.

    Raises InputError for arguments that do not fit, MurhoError where the loss is no longer finite (the network then has
    the best weights so far), ArtifactError for a damaged checkpoint.
    """
    sizes = {
        "epochs": epochs,
        "batch_size": batch_size,
        "samples": samples,
        "patience": patience,
        "threads": threads,
    }
    checks.instance("data", data, Dataset)
    _check_arguments(network, data.task, noise, sizes, learning_rate, complexity_weight, seed)
    for name, value in (("resume", resume), ("progress", progress)):
        checks.switch(name, value)
    if criterion is not None and not callable(criterion):
        raise InputError(f"criterion must be a function of a prediction and the truth, not {checks.shown(criterion)}.")
    if checkpoint is not None:
        checkpoint = checks.file_path("checkpoint", checkpoint)
    _check_checkpoint(checkpoint, resume)
    device = next(network.parameters()).device
    training, validation = (_tensors(part, data.scaling, device) for part in with_validation(data))
    settings = {
        "batch_size": batch_size,
        "samples": samples,
        "learning_rate": float(learning_rate),
        "complexity_weight": 1 / len(training[0]) if complexity_weight is None else float(complexity_weight),
        "seed": seed,
        "threads": threads,
        "noise": noise and dataclasses.asdict(noise),
        "data_sha256": digest(data),
    }
    criterion_or_default = criterion or (negative_log_likelihood(noise) if noise else DEFAULT_CRITERION[data.task])
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    run = _Run(History(), copy_weights(network), copy_weights(network), copy.deepcopy(optimizer.state_dict()))

    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), _threads(threads):
        _check_output(network, data, training[0][:1], noise, known=criterion is None)
        if checkpoint is not None and resume:
            run = _resumed(load_checkpoint(checkpoint), settings)
            load_weights(network, run.current)
            optimizer.load_state_dict(run.optimizer)
        bar = EpochBar(epochs, run.history, visible=progress)
        started = time.perf_counter() - run.history.seconds
        try:
            with bar:
                while run.history.epochs < epochs and run.history.waited < patience:
                    losses = _epoch(network, optimizer, training, validation, criterion_or_default, settings, run)
                    run = _advanced(run, network, optimizer, losses, time.perf_counter() - started)
                    bar.show(run.history)
                    if checkpoint is not None:
                        save_checkpoint(checkpoint, _checkpoint(network, data, noise, settings, run))
        except KeyboardInterrupt:
            run = dataclasses.replace(run, history=dataclasses.replace(run.history, interrupted=True))
            if checkpoint is not None and run.history.epochs:
                save_checkpoint(checkpoint, _checkpoint(network, data, noise, settings, run))
        finally:
            load_weights(network, run.best)
            optimizer.zero_grad()
            network.eval()
    return run.history


@dataclass(frozen=True)
class _Run:
    """Where a training stands after a whole epoch; replaced, never changed, so that an interrupt leaves it whole."""

    history: History
    best: State
    current: State
    optimizer: dict[str, Any]


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    criterion: Criterion,
    settings: dict[str, Any],
    run: _Run,
) -> tuple[float, float, float]:
    """Train for one epoch; its mean likelihood and complexity, and the validation loss after it."""
    x, y = training
    epoch = run.history.epochs + 1
    _reseed(x.device, settings["seed"], epoch)
    network.train()
    likelihood = complexity = 0.0
    for rows in torch.split(torch.randperm(len(x)), settings["batch_size"]):
        batch = rows.to(x.device)
        optimizer.zero_grad()
        try:
            parts = elbo_backward(
                network, x[batch], y[batch], criterion, settings["samples"], settings["complexity_weight"]
            )
        except ValueError:  # torch's distributions refuse weights that are not finite
            if all(parameter.isfinite().all() for parameter in network.parameters()):
                raise
            parts = math.nan, math.nan
        _check_finite(sum(parts), "training", epoch)
        optimizer.step()
        likelihood += parts[0] * len(rows) / len(x)
        complexity += parts[1] * len(rows) / len(x)
    _reseed(x.device, settings["seed"], 0)
    network.eval()
    loss = sampled_loss(network, *validation, criterion, VALIDATION_SAMPLES, batch_size=1024)
    _check_finite(loss, "validation", epoch)
    return likelihood, complexity, loss


def _advanced(
    run: _Run, network: nn.Module, optimizer: torch.optim.Optimizer, losses: tuple[float, float, float], seconds: float
) -> _Run:
    likelihood, complexity, validation = losses
    old = run.history
    better = validation < old.best_validation
    history = History(
        likelihood=(*old.likelihood, likelihood),
        complexity=(*old.complexity, complexity),
        validation=(*old.validation, validation),
        best_epoch=old.epochs + 1 if better else old.best_epoch,
        seconds=seconds,
    )
    current = copy_weights(network)
    return _Run(history, current if better else run.best, current, copy.deepcopy(optimizer.state_dict()))


def _checkpoint(
    network: nn.Module, data: Dataset, noise: Noise | None, settings: dict[str, Any], run: _Run
) -> Checkpoint:
    kind, config = describe(network)
    return Checkpoint(
        kind=kind,
        config=config,
        state=run.best,
        scaling=data.scaling,
        name=data.name,
        task=data.task,
        target=data.target,
        features=data.features,
        input_names=data.columns,
        output_names=data.output_names,
        shape=data.shape,
        window=data.window,
        horizon=data.horizon,
        splits=data.splits,
        repairs=data.repairs,
        noise=noise,
        fingerprint=tuple(fingerprint(data.train.x)),
        settings=settings,
        history=run.history,
        current=run.current,
        optimizer=run.optimizer,
    )


def _resumed(checkpoint: Checkpoint, settings: dict[str, Any]) -> _Run:
    for key, wanted in settings.items():
        if (was := checkpoint.settings.get(key)) != wanted:
            raise InputError(
                f"The checkpoint was trained with {key}={was!r}, now it is {wanted!r}. Resume with the same data and "
                "settings, or start anew without resume."
            )
    history = dataclasses.replace(checkpoint.history, interrupted=False)
    return _Run(history, checkpoint.state, checkpoint.current, checkpoint.optimizer)


def _tensors(part: Part, scaling: Scaling, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = standardise(part, scaling)
    return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _reseed(device: torch.device, seed: int, epoch: int) -> None:
    number = int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]) >> 1
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)


def _check_arguments(
    network: nn.Module,
    task: str,
    noise: Noise | None,
    sizes: dict[str, int],
    learning_rate: float,
    complexity_weight: float | None,
    seed: int,
) -> None:
    for name, size in sizes.items():
        if type(size) is not int or not 1 <= size < 2**31:
            raise InputError(f"{name} must be a whole number of at least 1, got {checks.shown(size)}.")
    checks.instance("network", network, nn.Module)
    if noise is not None:
        checks.instance("noise", noise, Noise)
    if noise and not noise.learned:
        raise InputError("Constant noise is fitted after the training: call residual_noise(network, data) then.")
    if noise and task == "classification":
        raise InputError("A classification has no observation noise. Leave noise out.")
    if not checks.is_finite(learning_rate) or learning_rate <= 0:
        raise InputError(f"learning_rate must be a finite number above 0, got {checks.shown(learning_rate)}.")
    if complexity_weight is not None and not (checks.is_finite(complexity_weight) and complexity_weight >= 0):
        raise InputError(
            f"complexity_weight must be a finite number of at least 0, got {checks.shown(complexity_weight)}."
        )
    if type(seed) is not int or not 0 <= seed < 2**64:
        raise InputError(f"seed must be a whole number of at least 0, got {checks.shown(seed)}.")
    if not sampled_layers(network):
        raise InputError(
            f"{type(network).__name__} has no BLiTZ layer that samples. Use layers of blitz.modules, and do not freeze "
            "them all."
        )


def _check_checkpoint(checkpoint: str | Path | None, resume: bool) -> None:
    if checkpoint is None:
        if resume:
            raise InputError("resume=True needs the checkpoint to go on from. Give checkpoint=PATH.")
        return
    path = Path(checkpoint)
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {str(path.parent)!r} for the checkpoint. Make it first.")
    if path.is_dir():
        raise InputError(f"The checkpoint {str(path)!r} is a folder. Give the name of a file.")


def _check_output(network: nn.Module, data: Dataset, x: torch.Tensor, noise: Noise | None, known: bool) -> None:
    """Try the network on one example; `known`: the criterion is the default one, which needs a certain shape."""
    forecast = data.task == "forecast"
    network.eval()
    try:
        with torch.no_grad():
            prediction = predict(network, x)
    except (RuntimeError, ValueError, IndexError) as error:
        advice = "Its features must be the target and the further columns." if forecast else "Build it for such rows."
        raise InputError(f"The network cannot take an input of shape {list(x.shape)} ({error}). {advice}") from None
    expected = [1, len(data.output_names) * (2 if noise else 1)]
    if known and list(prediction.shape) != expected:
        example = "window" if forecast else "row"
        advice = {"forecast": "the horizon of the data", "regression": "the data's targets"}.get(
            data.task, "the classes"
        )
        scales = ", with learned_noise=True for as many scales" if noise else ""
        raise InputError(
            f"The network gives shape {list(prediction.shape)} for one {example}, expected {expected}. "
            f"Build it for {advice}{scales}."
        )


def _check_finite(loss: float, part: str, epoch: int) -> None:
    if not math.isfinite(loss):
        raise MurhoError(
            f"The {part} loss became {loss} in epoch {epoch}. The network has the best weights from before. Lower the "
            "learning rate, or look for extreme values in the data."
        )
