"""Which argument of a loss is what: by its name first, else by the order that makes sense.

A loss is written ``(x, x_hat, mu, log_var)`` or ``(recon_x, x, mu, logvar)``, with σ or log σ in
the last place, as a method or with keywords. Here it becomes a function of x, x_hat, mu, log_var.
"""

import inspect
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaeloss.audit.evidence import AuditError

ROLES = ("x", "x_hat", "mu", "log_var")
# Names without _, z_ and case. What the last argument is called says what the loss takes there.
NAMES = {
    "x": "x xtrue target targets original orig xorig ytrue true truth image images img imgs real "
    "label labels groundtruth gt obs tokens actions",
    "x_hat": "xhat reconx recon reconstruction reconstructions reconstructed reconst rec recx "
    "reconbatch xrecon xreconst xreconstructed xrec output outputs out xout pred preds prediction "
    "predictions ypred yhat xpred logits xlogits xlogit decoded xdecoded xdecodedmean xtilde "
    "xprime ahat generated reconstructedx recons reconsx xrecons",
    "mu": "mu mus mean means loc muz meanz",
    "log_var": "logvar logvars lv lnvar logv logvariance logsigma2 logsigmasq logsigmasquared "
    "logvarz",
    "log_std": "logstd logstds logsigma logsigmas logscale lnsigma lnstd logstddev logsd",
    "std": "std stds sigma sigmas stddev scale sd",
    "var": "var vars variance variances sigma2 sigmasq sigmasquared",
}
ROLE = {name: role for role, names in NAMES.items() for name in names.split()}
WEAK = {"input", "inputs", "data", "batch"}  # x, unless another argument is the target
TAKES: dict[str, Callable[[Tensor], Tensor]] = {
    "log_var": lambda log_var: log_var,
    "log_std": lambda log_var: log_var / 2,
    "std": lambda log_var: torch.exp(log_var / 2),
    "var": torch.exp,
}
SYMBOL = {"log_var": "log σ²", "log_std": "log σ", "std": "σ", "var": "σ²"}


def role(name: str) -> str | None:
    """A key of NAMES, or None if the name says nothing.

    Examples
    --------
    >>> role("recon_x"), role("z_log_var"), role("sigma"), role("y")
    ('x_hat', 'log_var', 'std', None)
    """
    plain = name.lower().replace("_", "")
    for prefix in ("", "z", "qz", "q", "latent"):
        if plain.startswith(prefix) and (found := ROLE.get(plain.removeprefix(prefix))):
            return found if not prefix or found not in ("x", "x_hat") else None
    return None


@dataclass(frozen=True)
class Order:
    """A loss as a function of x, x_hat, mu and log_var.

    Attributes
    ----------
    names : tuple of str or None
        Its four parameters; None for one without a name.
    roles : tuple of str
        What each is given.
    keyword : tuple of bool
        Which are given by keyword.
    takes : str
        What is given in place of log_var: a key of TAKES.
    named : tuple of str
        The roles that the names say; the rest is a guess.
    said : str or None
        What the name of the last argument says that the loss takes.
    """

    loss_fn: Callable
    names: tuple[str | None, ...]
    roles: tuple[str, ...]
    keyword: tuple[bool, ...]
    takes: str
    named: tuple[str, ...]
    said: str | None

    def __call__(self, x: Tensor, x_hat: Tensor, mu: Tensor, log_var: Tensor):
        given = dict(zip(ROLES, (x, x_hat, mu, TAKES[self.takes](log_var)), strict=True))
        values = [given[role] for role in self.roles]
        arguments = list(zip(self.names, values, self.keyword, strict=True))
        positional = [value for _, value, by_keyword in arguments if not by_keyword]
        return self.loss_fn(*positional, **{name: v for name, v, by_kw in arguments if by_kw})

    def __str__(self) -> str:
        shown = (SYMBOL[self.takes] if role == "log_var" else role for role in self.roles)
        return f"loss({', '.join(shown)})"


def calls(loss_fn: Callable) -> list[Order]:
    """Every way in which the loss may be meant, the most likely first; they differ in the order.

    Raises
    ------
    AuditError
        It does not take four tensors, or it is a method without its object.
    """
    loss_fn = _bound(loss_fn)
    picked = _picked(loss_fn)
    said = [_role_of(p.name, picked) if p else None for p in picked]
    plain = ["log_var" if each in TAKES else each for each in said]
    # a role that two arguments claim says nothing of either
    roles = [each if plain.count(each) == 1 else None for each in plain]
    free = [i for i, each in enumerate(roles) if each is None]
    missing = [each for each in ROLES if each not in roles]
    scale = said[roles.index("log_var")] if "log_var" in roles else None
    found = []
    for order in itertools.permutations(missing):
        filled = list(roles)
        for i, each in zip(free, order, strict=True):
            filled[i] = each
        if set(filled[:2]) in ({"x", "x_hat"}, {"mu", "log_var"}) or len(free) < 4:
            found.append(
                Order(
                    loss_fn,
                    tuple(p.name if p else None for p in picked),
                    tuple(filled),
                    _by_keyword(loss_fn, picked),
                    scale or "log_var",
                    tuple(each for each in roles if each),
                    scale,
                )
            )
    return found


def _role_of(name: str, picked: list) -> str | None:
    if name.lower() in WEAK:
        others = {role(p.name) for p in picked if p and p.name != name}
        return None if "x" in others else "x"
    return role(name)


def _signature(loss_fn: Callable) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(loss_fn).parameters.values())
    except (TypeError, ValueError):  # some builtins have none
        return None


def _bound(loss_fn: Callable) -> Callable:
    """A module's forward, a method with its object, or the function itself."""
    if not callable(loss_fn):
        raise AuditError(
            f"the loss is a {type(loss_fn).__name__}, not a function: give the function itself, "
            "without calling it; a loss that is computed already is for audit_step"
        )
    if isinstance(loss_fn, torch.nn.Module):
        return loss_fn.forward
    if inspect.isclass(loss_fn):
        raise AuditError(
            f"{loss_fn.__name__} is a class: give its method, {loss_fn.__name__}(...).loss"
        )
    parameters = _signature(loss_fn)
    if not parameters or parameters[0].name not in ("self", "cls") or inspect.ismethod(loss_fn):
        return loss_fn
    path, _, method = getattr(loss_fn, "__qualname__", "").rpartition(".")
    owner = sys.modules.get(getattr(loss_fn, "__module__", ""))
    for part in path.split("."):
        owner = getattr(owner, part, None)
    name = path.removesuffix(".<locals>").rpartition(".")[2] or "its class"
    hint = f"give the method of an object: {name}(...).{method}"
    if not inspect.isclass(owner):
        raise AuditError(f"the loss is a method without its object: {hint}")
    try:
        return getattr(owner(), method)
    except Exception as error:
        raise AuditError(
            f"{name}.{method} is a method, and {name}() raised {type(error).__name__}: {hint}"
        ) from error


POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _picked(loss_fn: Callable) -> list[inspect.Parameter | None]:
    """The four parameters that are x, x_hat, mu and log_var in some order; None: of ``*args``."""
    parameters = _signature(loss_fn)
    if parameters is None:
        return [None] * 4
    variadic = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p for p in single if p.default is p.empty]
    named: dict[str, inspect.Parameter] = {}
    for p in [*needed, *(p for p in single if p not in needed)]:
        found = role(p.name) or ("x" if p.name.lower() in WEAK else p.name)
        named.setdefault("log_var" if found in TAKES else found, p)
    if len(needed) > 4:
        known = [named[each] for each in ROLES if each in named]
        more = [p.name for p in needed if p not in known] if len(known) == 4 else []
        raise AuditError(
            f"the loss needs {len(needed)} arguments, ({_list(p.name for p in needed)}), not x, "
            f"x_hat, mu and log_var alone: fix the others, functools.partial(loss_fn, "
            f"{(more or ['beta'])[0]}=...)"
        )
    likely = [p for key, p in named.items() if key in ROLES and p not in needed]
    rest = [p for p in single if p not in needed and p not in likely and p.kind in POSITIONAL]
    four = [*needed, *likely, *([] if variadic else rest)][:4]
    four = sorted(four, key=single.index)
    if len(four) < 4 and variadic:
        four += [None] * (4 - len(four))
    if len(four) < 4:
        raise AuditError(
            f"the loss takes {len(single)} arguments, ({_list(p.name for p in single)}), not x, "
            "x_hat, mu and log_var: wrap it. One that encodes and decodes by itself is for "
            "audit_step or watch_step, which look at the training step"
        )
    return four


def _by_keyword(loss_fn: Callable, picked: list) -> tuple[bool, ...]:
    """By position as long as the parameters are the first ones, then by keyword."""
    first = [p.name for p in _signature(loss_fn) or [] if p.kind in POSITIONAL]
    in_place = [p is None or first[i : i + 1] == [p.name] for i, p in enumerate(picked)]
    return tuple(not each for each in itertools.accumulate(in_place, lambda a, b: a and b))


def _list(names) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def other_takes(call: Order) -> list[Order]:
    """The same order, with something else in the place of log_var."""
    return [replace(call, takes=takes) for takes in TAKES if takes != call.takes]


def exchanged(call: Order) -> Order:
    """The same with x and x_hat exchanged."""
    other = {"x": "x_hat", "x_hat": "x"}
    return replace(call, roles=tuple(other.get(each, each) for each in call.roles))
