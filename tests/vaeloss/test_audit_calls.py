"""How a loss wants to be called, and where its total is: right or said, not guessed in silence."""

import functools
import inspect

import pytest
import torch
import torch.nn.functional as F

from vaeloss.audit import AuditError, audit_loss

D, M, B = 12, 3, 16
SIZES = {"data_shape": (D,), "latent_dim": M, "batch_size": B}


def kl(mu, log_var):
    return 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1).mean()


def bce(p, x):
    return F.binary_cross_entropy(p, x, reduction="sum") / len(x)


def codes(audit):
    return [found.code for found in audit.findings]


def data(audit, code):
    return next(found.data for found in audit.findings if found.code == code)


# --- the order of the arguments ------------------------------------------------------------------


def pytorch_examples(recon_x, x, mu, logvar):
    return bce(recon_x, x) + 3 * kl(mu, logvar)


def keyword_only(x, *, mu, recon_x, logvar, weight=3.0):
    return bce(recon_x, x) + weight * kl(mu, logvar)


def statistics_first(z_mean, z_log_var, y_true, y_pred):
    return bce(y_pred, y_true) + 3 * kl(z_mean, z_log_var)


def torch_style(input, target, mean, logvar):
    return bce(input, target) + 3 * kl(mean, logvar)


def keras_style(inputs, outputs, z_mean, z_log_var, epsilon=1e-7):
    return bce(outputs, inputs) + 3 * kl(z_mean, z_log_var)


def with_a_weight(x, recon_x, mu, logvar, beta):
    return bce(recon_x, x) + beta * kl(mu, logvar)


class Model:
    def __init__(self):
        self.weight = 3.0

    def loss(self, recon_x, x, mu, logvar):
        return bce(recon_x, x) + self.weight * kl(mu, logvar)


class Needy:
    def __init__(self, weight):
        self.weight = weight

    def loss(self, x, x_hat, mu, log_var):
        return bce(x_hat, x) + self.weight * kl(mu, log_var)


class Module(torch.nn.Module):
    def forward(self, recon_x, x, mu, logvar):
        return bce(recon_x, x) + 3 * kl(mu, logvar)


@pytest.mark.parametrize(
    "loss_fn",
    [
        pytorch_examples,
        keyword_only,
        statistics_first,
        torch_style,
        keras_style,
        lambda x, mean, mu, log_var: bce(mean, x) + 3 * kl(mu, log_var),
        functools.partial(with_a_weight, beta=3.0),
        Model().loss,
        Model.loss,
        Module(),
        lambda a, b, c, d: bce(a, b) + 3 * kl(c, d),
        lambda a, b, c, d: bce(b, a) + 3 * kl(d, c),
        lambda a, b, c, d: bce(d, c) + 3 * kl(a, b),
        lambda *args: bce(args[0], args[1]) + 3 * kl(args[2], args[3]),
        functools.wraps(pytorch_examples)(lambda *args: pytorch_examples(*args)),
    ],
)
def test_the_order_is_found_and_said_unless_it_is_the_usual_one(loss_fn):
    audit = audit_loss(loss_fn, **SIZES)
    assert str(audit.likelihood) == "bernoulli" and audit.beta == pytest.approx(3, rel=1e-4)
    said = {"arguments", "arguments-guessed"} & set(codes(audit))
    first = next(iter(inspect.signature(loss_fn).parameters))
    usual = first in ("inputs", "x") and loss_fn is not keyword_only
    assert bool(said) != usual


def test_the_order_is_said_in_words():
    audit = audit_loss(pytorch_examples, **SIZES)
    assert data(audit, "arguments") == {"call": "loss(x_hat, x, mu, log σ²)"}


def test_the_usual_order_needs_no_word():
    audit = audit_loss(lambda x, x_hat, mu, log_var: bce(x_hat, x) + kl(mu, log_var), **SIZES)
    assert codes(audit)[0] == "elbo"


def test_a_target_taken_for_the_output_is_no_likelihood():
    """BCE(x, x_hat) where torch wants BCE(x_hat, x), under names that say so."""
    audit = audit_loss(lambda x, x_hat, mu, log_var: bce(x, x_hat) + kl(mu, log_var), **SIZES)
    assert audit.likelihood is None and audit.beta != audit.beta
    assert data(audit, "arguments-exchanged")["likelihood"] == "bernoulli"
    assert audit.kl_weight == pytest.approx(1)


@pytest.mark.parametrize("named", [True, False])
def test_the_order_does_not_hide_a_term_of_one_argument(named):
    """A critic sees x_hat alone: in the other order it has no gradient, and the rest would fit."""

    def loss_fn(a, b, mu, log_var):
        return (a - b).abs().sum() / len(a) - 0.1 * a.tanh().sum() / len(a) + kl(mu, log_var)

    if named:
        audit = audit_loss(lambda recon, x, mu, lv: loss_fn(recon, x, mu, lv), **SIZES)
        assert audit.has("reconstruction-unknown")
    else:
        audit = audit_loss(loss_fn, **SIZES)
        assert audit.has("order-unknown")
    assert audit.likelihood is None and audit.beta != audit.beta


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (with_a_weight, r"needs 5 arguments.*partial\(loss_fn, beta=\.\.\.\)"),
        (lambda x: x.sum(), "audit_step or watch_step"),
        (lambda x, x_hat: bce(x_hat, x), r"takes 2 arguments, \(x, x_hat\)"),
        (Needy.loss, r"Needy\(\) raised TypeError: give the method of an object: Needy\(\.\.\.\)"),
        (Model, "Model is a class: give its method"),
        (torch.tensor(1.0), "not a function"),
    ],
)
def test_what_cannot_be_called_is_one_clear_error(loss_fn, message):
    with pytest.raises(AuditError, match=message) as raised:
        audit_loss(loss_fn, **SIZES)
    assert len(str(raised.value)) <= 400


def test_a_method_of_a_local_class_is_told_to_bring_its_object():
    class Local:
        def loss(self, x, x_hat, mu, log_var):
            return bce(x_hat, x)

    with pytest.raises(AuditError, match=r"without its object.*Local\(\.\.\.\)\.loss"):
        audit_loss(Local.loss, **SIZES)


# --- σ, log σ, σ², log σ² ------------------------------------------------------------------------


def kl_of_std(mu, std):
    return 0.5 * (mu**2 + std**2 - 1 - (std**2).log()).sum(1).mean()


def kl_of_variance(mu, variance):
    return 0.5 * (mu**2 + variance - 1 - variance.log()).sum(1).mean()


@pytest.mark.parametrize(
    ("loss_fn", "code"),
    [
        (lambda x, x_hat, mu, sigma: bce(x_hat, x) + kl_of_std(mu, sigma), "takes"),
        (lambda x, x_hat, mu, std: bce(x_hat, x) + kl_of_std(mu, std), "takes"),
        (lambda x, x_hat, mu, z_log_std: bce(x_hat, x) + kl(mu, 2 * z_log_std), "takes"),
        (lambda x, x_hat, mu, var: bce(x_hat, x) + kl_of_variance(mu, var), "takes"),
        (lambda x, x_hat, mu, s: bce(x_hat, x) + kl_of_std(mu, s), "takes"),
        (lambda x, x_hat, mu, s: bce(x_hat, x) + kl(mu, 2 * s), "takes"),
        (lambda x, x_hat, mu, s: bce(x_hat, x) + kl_of_variance(mu, s), "takes"),
        (lambda x, x_hat, mu, log_sigma: bce(x_hat, x) + kl(mu, log_sigma), "takes-as"),
        (lambda x, x_hat, mu, sigma: bce(x_hat, x) + kl_of_variance(mu, sigma), "takes-as"),
        (lambda x, x_hat, mu, sigma: bce(x_hat, x) + kl(mu, sigma), "takes-as"),
        (lambda recon, x, mu, s: bce(recon, x) + kl_of_variance(mu, s), "takes"),
    ],
)
def test_what_the_loss_takes_for_log_var_is_found_and_said(loss_fn, code):
    audit = audit_loss(loss_fn, **SIZES)
    assert audit.beta == pytest.approx(1, rel=1e-4) and code in codes(audit), audit


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda mu, lv: kl_of_std(mu, lv), "takes-other"),
        (lambda mu, lv: kl_of_variance(mu, lv), "takes-other"),
        (lambda mu, lv: kl(mu, 2 * lv), "kl-of-log-sigma"),
    ],
)
def test_a_log_var_that_is_used_as_something_else_has_no_beta(wrong, code):
    audit = audit_loss(lambda x, x_hat, mu, log_var: bce(x_hat, x) + wrong(mu, log_var), **SIZES)
    assert audit.beta != audit.beta and audit.c == pytest.approx(1) and code in codes(audit), audit


# --- tuples and dicts ----------------------------------------------------------------------------


def parts(x, x_hat, mu, log_var):
    return bce(x_hat, x), kl(mu, log_var)


@pytest.mark.parametrize(
    ("gather", "path"),
    [
        (lambda r, k: (r + 3 * k, r, k), "[0]"),
        (lambda r, k: (r, k, r + 3 * k), "[2]"),
        (lambda r, k: [r.detach(), (k, r + 3 * k)], "[1][1]"),
        (lambda r, k: {"loss": r + 3 * k, "kld": -k.detach()}, "['loss']"),
        (
            lambda r, k: {"rec": r, "kl": k, "Total_Loss": r + 3 * k, "elbo": -r - k},
            "['Total_Loss']",
        ),
        (lambda r, k: {"a": r, "b": k, "c": r + 3 * k}, "['c']"),
        (lambda r, k: (r + 3 * k, {"loss": r + 3 * k}), "[1]['loss']"),
        (lambda r, k: (r + 3 * k, torch.zeros(B, 4), "text", None, 0.5), "[0]"),
    ],
)
def test_the_total_is_found_and_named(gather, path):
    audit = audit_loss(lambda *args: gather(*parts(*args)), **SIZES)
    assert audit.beta == pytest.approx(3, rel=1e-4)
    assert data(audit, "total") == {"path": path}


@pytest.mark.parametrize(
    ("gather", "message"),
    [
        (lambda r, k: (r, k), r"no total: \[0\] depends on x_hat; \[1\] depends on mu, log_var"),
        (lambda r, k: {"loss": r, "kl": k}, r"no total: \['loss'\] depends on x_hat"),
        (lambda r, k: (r + k, r + 2 * k), r"several numbers that could be the total.*args\)\[0\]"),
        (lambda r, k: (r, k * torch.ones(B, M)), r"no total: \[0\] depends on x_hat"),
        (lambda r, k: ((r + k).item(), r.item()), "no tensor"),
        (lambda r, k: ((r + k).detach(), "a"), "no number with a gradient"),
        (lambda r, k: (r + k).detach().numpy(), "returned a ndarray"),
    ],
)
def test_a_part_is_never_taken_for_the_whole(gather, message):
    with pytest.raises(AuditError, match=message) as raised:
        audit_loss(lambda *args: gather(*parts(*args)), **SIZES)
    assert len(str(raised.value)) <= 400


# --- errors of the loss itself -------------------------------------------------------------------


def test_an_error_is_short_and_prints_no_tensor():
    def loss_fn(x, x_hat, mu, log_var):
        raise TypeError(f"cannot interpret {x} " + "again and again " * 100)

    with pytest.raises(AuditError, match=r"TypeError: cannot interpret …\. It was") as raised:
        audit_loss(loss_fn, **SIZES)
    assert len(str(raised.value)) <= 400 and isinstance(raised.value.__cause__, TypeError)


def test_no_exception_of_a_later_call_escapes():
    calls = iter(range(100))

    def loss_fn(x, x_hat, mu, log_var):
        if next(calls) > 3:
            raise IndexError("out of batches")
        return bce(x_hat, x) + kl(mu, log_var)

    with pytest.raises(AuditError, match="IndexError: out of batches"):
        audit_loss(loss_fn, **SIZES)


def test_a_loss_that_calls_backward_is_told_so():
    def loss_fn(x, x_hat, mu, log_var):
        total = bce(x_hat, x) + kl(mu, log_var)
        total.backward()
        return total

    with pytest.raises(AuditError, match=r"call \.backward\(\) itself"):
        audit_loss(loss_fn, **SIZES)


def test_an_adaptive_weight_is_given_tensors_that_require_gradients():
    def loss_fn(x, x_hat, mu, log_var):
        rec, other = (x - x_hat).abs().sum() / len(x), 0 * x_hat.sum()
        [a] = torch.autograd.grad(rec, x_hat, retain_graph=True)
        [b] = torch.autograd.grad(other, x_hat, retain_graph=True)
        assert a.norm() > 0
        return rec + (a.norm() / (b.norm() + 1e-4)).detach() * other + 1e-6 * kl(mu, log_var)

    audit = audit_loss(loss_fn, **SIZES)
    assert str(audit.likelihood) == "laplace" and audit.beta == pytest.approx(1e-6, rel=1e-4)


def test_grey_pixels_that_cost_infinity_are_replaced_by_binary_ones():
    def loss_fn(x, p, mu, log_var):
        outside = torch.where((x == 0) | (x == 1), 0.0, torch.inf)  # as in NumPyro
        return bce(p, x) + outside.sum() + kl(mu, log_var)

    assert audit_loss(loss_fn, **SIZES).beta == pytest.approx(1, rel=1e-4)
