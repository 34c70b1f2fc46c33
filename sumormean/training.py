"""One training loop for all chapters: tensors in memory, any loss, any device.

Data are moved to the device once and shuffled once per epoch; the loop never touches a Python
object per image and never waits for a number from the device inside an epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

LossFn = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class TrainingError(RuntimeError):
    """The loss or the weights stopped being finite; the message says at which step."""


@dataclass
class History:
    """What a run leaves behind.

    Attributes
    ----------
    loss : array, shape (steps,)
        The loss of every step, in the units of the loss function.
    evals : list of dict
        One per evaluation: what ``evaluate`` returned, and the "step" it was called after.
    """

    loss: np.ndarray
    evals: list[dict] = field(default_factory=list)


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU: for long runs. Chapters stay on the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    model: nn.Module,
    x: np.ndarray | Tensor,
    loss_fn: LossFn,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    lr: float = 1e-3,
    optimizer: torch.optim.Optimizer | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    on_step: Callable[[int], None] | None = None,
    evaluate: Callable[[nn.Module], dict] | None = None,
    every: int | None = None,
) -> History:
    """Train ``model`` in place and return its history.

    Parameters
    ----------
    model : Module
        Maps ``(x, generator)`` to ``(out, mu, log_var)``; see ``sumormean.models``.
    x : array or Tensor, shape ``(N, *data_shape)``
        float, pixels in [0, 1].
    loss_fn : callable
        ``loss_fn(x, out, mu, log_var)`` -> a scalar, or one value per sample, (B,), whose batch
        mean is then minimised.
    epochs, steps : int
        How long; give exactly one. The last batch of an epoch may be smaller.
    optimizer : Optimizer, optional
        Adam with ``lr`` by default; pass one to use another (then ``lr`` is ignored).
    seed : int
        Of the shuffling and of the latent noise; the global generator is left alone.
    device : device or str, optional
        To move the model to before it trains. Default: it trains, and stays, where it is, so that
        what comes after finds it there.
    on_step : callable, optional
        ``on_step(step)`` is called in every step, the first of which is 0, when the gradients are
        there and before the optimiser moves. It may change them, in ``.grad``, or set one to None,
        and then that parameter stays where it is. What it sets for the loss function, such as a
        weight, counts from the next step on.
    evaluate, every : callable, int
        ``evaluate(model)`` is called every so many steps (default: after each epoch) and after the
        last one; its dicts end up in ``History.evals``.

    Raises
    ------
    ValueError
        Not exactly one of epochs and steps, or x is empty or not finite.
    TrainingError
        The loss, or a gradient and so the weights, became NaN or infinite; says at which step, at
        the end of that epoch or before the next evaluation.

    Examples
    --------
    >>> from vaeloss.likelihoods import bernoulli_nll, kl_standard_normal
    >>> from sumormean.models import mlp_vae
    >>> def loss_fn(x, logits, mu, log_var):
    ...     return bernoulli_nll(x, logits) + kl_standard_normal(mu, log_var)
    >>> fit(mlp_vae(), np.zeros((256, 28, 28)), loss_fn, steps=3).loss.shape
    (3,)
    """
    if (epochs is None) == (steps is None):
        raise ValueError("say how long to train: give either epochs or steps")
    if device is not None:
        model.to(device)
    device = next(model.parameters()).device
    model.train()
    x = torch.as_tensor(x, dtype=torch.float32, device=device)
    if len(x) == 0:
        raise ValueError("there are no images in x to train on")
    # The sum costs one pass and no memory; a large one may overflow without a fault in the data.
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        bad = ~torch.isfinite(x).flatten(1).all(1)
        raise ValueError(
            f"{int(bad.sum())} of {len(x)} images have pixels that are NaN or infinite; "
            f"the first is x[{int(bad.nonzero()[0])}]"
        )
    # Shuffling is drawn on the CPU, so a seed means the same order on every device.
    order = torch.Generator().manual_seed(seed)
    noise = torch.Generator(device).manual_seed(seed)
    if optimizer is None:
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)

    per_epoch = -(-len(x) // batch_size)
    total = steps if steps is not None else epochs * per_epoch
    every = every or per_epoch
    losses = torch.empty(total, device=device)
    evals: list[dict] = []
    checked = 0
    with tqdm(total=total, unit="step", leave=False) as bar:
        for step in range(total):
            if step % per_epoch == 0:
                batches = torch.randperm(len(x), generator=order).to(device).split(batch_size)
            x_batch = x.index_select(0, batches[step % per_epoch])  # five times x[...] on a CPU
            loss = loss_fn(x_batch, *model(x_batch, noise)).mean()
            optimizer.zero_grad()
            loss.backward()
            if on_step is not None:
                on_step(step)
            optimizer.step()
            losses[step] = loss.detach()
            bar.update()
            done = step + 1
            due = evaluate is not None and (done % every == 0 or done == total)
            if due or done % per_epoch == 0 or done == total:
                _check_finite(losses[:done], checked, optimizer)
                checked = done
            if due:
                model.eval()
                evals.append({"step": done, **evaluate(model)})
                model.train()
    model.eval()
    return History(losses.cpu().numpy(), evals)


def _check_finite(losses: Tensor, since: int, optimizer: torch.optim.Optimizer) -> None:
    # Once per epoch, not per step: on a GPU every look at a number is a wait.
    bad = (~torch.isfinite(losses[since:])).nonzero()
    if len(bad):
        step = since + int(bad[0])
        raise TrainingError(
            f"the loss became {losses[step].item()} at step {step}: lower the learning rate, "
            "or check the loss for log(0) and exp(large)"
        )
    # The last step has no later loss to show that its gradient was not finite.
    weights = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    if not all(torch.isfinite(w).all() for w in weights):
        raise TrainingError(
            f"the weights became NaN or infinite by step {len(losses) - 1}, although the losses "
            "are finite: a gradient was not"
        )
