"""``vaeloss audit``: the audit of a loss that stands in a module or in a training script."""

import argparse
import json
import math
import os
import sys

from vaeloss.script import resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``vaeloss audit``."""
    parser.add_argument(
        "loss",
        metavar="train.py:function",
        help="a loss of x, x_hat, mu, log_var: path/to/script.py:function, module:function, or "
        "module:Class.method. Of a script only imports, definitions and constants are executed",
    )
    parser.add_argument(
        "--data-shape", required=True, metavar="28,28", help="shape of one image, e.g. 784 or 28,28"
    )
    parser.add_argument("--latent", type=int, required=True, metavar="M", help="number of latents")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help="default: 64")
    parser.add_argument("--likelihood", help="gaussian, bernoulli-logits …; default: recognise it")
    parser.add_argument(
        "--categories", type=int, metavar="V", help="for tokens: the number of symbols"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Print the audit.

    Returns
    -------
    int
        0 if it found β, 1 if the loss has no constant β, 2 if it cannot be loaded or probed.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")  # a Keras loss will be given torch tensors
    os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")  # on the CPU
    try:
        shape = _shape(args.data_shape)
        loss_fn = resolve(args.loss)
        from vaeloss.audit import audit_loss

        found = audit_loss(
            loss_fn,
            data_shape=shape,
            latent_dim=args.latent,
            batch_size=args.batch_size,
            likelihood=args.likelihood,
            categories=args.categories,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_json(found) if args.json else found)
    return 0 if math.isfinite(found.beta) else 1


def as_json(audit) -> str:
    """All of an audit; what is unknown is null."""
    fields = {name: getattr(audit, name) for name in audit.__dataclass_fields__}
    fields["likelihood"] = audit.likelihood and str(audit.likelihood)
    fields["findings"] = [
        {"code": f.code, "sentence": f.sentence, "data": f.data} for f in audit.findings
    ]
    return json.dumps(_null(fields), ensure_ascii=False, indent=2)


def _null(value):
    """The same with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _null(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise ValueError(f"--data-shape {text}: write whole numbers, e.g. 784 or 28,28") from None
