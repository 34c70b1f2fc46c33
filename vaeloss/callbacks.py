"""Callbacks for Lightning and Keras: what a VAE's training is doing, in nats, once an epoch.

The loss that a trainer logs is c · [NLL + β · KL], of which c and β are rarely known. These log the
terms without their weights, the weights, and the threshold β* above which the collapsed solution is
stable. The trainer and the loss stay as they are: ``vaeloss.audit.watch_step`` watches them.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaeloss.audit import watch_step
from vaeloss.collapse import collapse_threshold
from vaeloss.metrics import live_units


def lightning_callback(
    pick: Callable, *, model=None, x: np.ndarray | Tensor | None = None, steps: int = 10
):
    """A callback for ``lightning.Trainer``; needs the extra ``vaeloss[lightning]``.

    Parameters
    ----------
    pick, model
        As in ``vaeloss.audit.watch_step``; model is by default the LightningModule, and what is
        watched its ``forward``.
    x : array or Tensor, optional
        The training data, ``(N, *data_shape)``, in the units that the loss is given: adds β*.
    steps : int
        How many steps of each epoch are watched. Each costs about one backward pass more.

    Returns
    -------
    lightning.Callback
        It logs ``vae/nll`` and ``vae/kl``, in nats of a sample, the means over the steps;
        ``vae/live_units`` of their posteriors; ``vae/beta`` and ``vae/c`` at the last of them; and
        ``vae/beta_star``. What is unknown is left out.
    """
    import lightning

    log = _EpochLog(pick, model, x, steps)

    class VAELog(lightning.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            log.begin(pl_module)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            log.batch_end()

        def on_train_epoch_end(self, trainer, pl_module):
            pl_module.log_dict(log.end())

        def on_exception(self, trainer, pl_module, exception):
            log.abandon(exception)

    return VAELog()


def keras_callback(
    pick: Callable, *, model=None, x: np.ndarray | Tensor | None = None, steps: int = 10
):
    """A callback for ``keras.Model.fit`` on the torch backend; needs ``vaeloss[keras]``.

    Parameters
    ----------
    pick, model, x, steps
        As for ``lightning_callback``; model is by default the one that is fitted, and what is
        watched its ``call``. A train_step of your own may call encoder and decoder instead: give
        those, ``model=(encoder, decoder)``.

    Returns
    -------
    keras.callbacks.Callback
        It adds the numbers of ``lightning_callback`` to the logs, and so to the history.
    """
    import keras

    log = _EpochLog(pick, model, x, steps)

    class VAELog(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            log.begin(self.model)

        def on_train_batch_end(self, batch, logs=None):
            log.batch_end()

        def on_epoch_end(self, epoch, logs=None):
            if logs is not None:
                logs.update(log.end())

    return VAELog()


class _EpochLog:
    """Watches the first steps of an epoch and says what they show."""

    def __init__(self, pick: Callable, model, x, steps: int):
        if steps < 1:
            raise ValueError(f"steps={steps}: watch at least one step of each epoch")
        self.pick, self.model, self.x, self.steps = pick, model, x, steps
        self.thresholds: dict[str, float] = {}

    def begin(self, model) -> None:
        self.mu: list[Tensor] = []
        self.left = self.steps
        self.watching = watch_step(self.model if self.model is not None else model, self._pick)
        self.watch = self.watching.__enter__()

    def batch_end(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.watching.__exit__(None, None, None)

    def end(self) -> dict[str, float]:
        if self.left > 0:
            self.watching.__exit__(None, None, None)
        last = self.watch.audits[-1]
        found = {
            "vae/nll": _mean([audit.nll for audit in self.watch.audits]),
            "vae/kl": _mean([audit.kl for audit in self.watch.audits]),
            "vae/live_units": float(live_units(torch.cat(self.mu))),
            "vae/beta": last.beta,
            "vae/c": last.c,
            "vae/beta_star": self._threshold(last.likelihood),
        }
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def abandon(self, error: BaseException) -> None:
        if self.left > 0:
            self.watching.__exit__(type(error), error, None)

    def _pick(self, *args, **kwargs) -> dict:
        given = self.pick(*args, **kwargs)
        posterior = given.get("posterior")
        mu = given["mu"] if posterior is None else posterior.mean
        self.mu.append(mu.detach().cpu())
        return given

    def _threshold(self, likelihood) -> float:
        if self.x is None or likelihood is None:
            return math.nan
        name = str(likelihood)
        if name not in self.thresholds:
            try:
                self.thresholds[name] = float(collapse_threshold(self.x, likelihood))
            except ValueError as error:
                warnings.warn(f"no vae/beta_star: {error}", stacklevel=2)
                self.thresholds[name] = math.nan
        return self.thresholds[name]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
