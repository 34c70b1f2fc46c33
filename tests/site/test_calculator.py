"""The calculator page says what vaeloss says."""

import itertools
import math
import random
import re

import calculator_data
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import ContinuousBernoulli

from sumormean.data import DataError, load
from vaeloss.audit import audit_loss
from vaeloss.collapse import collapse_threshold, information_budget

DATA = calculator_data.read()
PAGE = "book/use/calculator.html"

# bytes are one of the ranges that the page is asked about
pytestmark = pytest.mark.filterwarnings("ignore::vaeloss.collapse.UnitsWarning")


@pytest.mark.parametrize("name", ["digits28", "mnist", "fashion_mnist"])
def test_its_thresholds_and_budgets_are_those_of_the_data(name):
    try:
        x = load(name).x_train
    except DataError:
        pytest.skip(f"{name} is not on this machine and cannot be downloaded")
    assert list(DATA[name])[1:] == calculator_data.likelihoods(), "run make calculator"
    for likelihood in calculator_data.likelihoods():
        threshold, budget = DATA[name][likelihood]
        assert np.isclose(threshold, collapse_threshold(x, likelihood), rtol=1e-6), likelihood
        expected = information_budget(x, likelihood)
        assert np.isclose(math.inf if budget is None else budget, expected, rtol=1e-6), likelihood


# Settings: every combination of the reductions, with sizes and weights drawn for each

LOSSES = ["bernoulli", "squared", "half-squared", "gaussian-shared", "gaussian-per-pixel"]
LOSSES += ["continuous-bernoulli"]
REDUCTIONS = itertools.product(
    LOSSES, ["sum", "mean", "last"], ["mean", "sum"], ["sum", "mean"], ["mean", "sum"]
)
OWN = [("12", (12,)), ("3 x 4 x 5", (3, 4, 5)), ("6×2", (6, 2)), ("3, 2, 2", (3, 2, 2))]
RANGES = [("0", "1"), ("-1", "1"), ("0", "255")]


def settings() -> list[dict]:
    draw = random.Random(0)
    found = []
    for likelihood, pixels, batch, latents, klbatch in list(REDUCTIONS) * 2:
        unit = likelihood.endswith("bernoulli")
        data = draw.choice(["mnist", "fashion_mnist", "digits28", "other", "other", "other"])
        image, shape = draw.choice(OWN) if data == "other" else ("28 × 28", (28, 28))
        low, high = RANGES[0] if unit else draw.choice(RANGES)
        s = dict(likelihood=likelihood, pixels=pixels, batch=batch, latents=latents)
        s |= dict(klbatch=klbatch, data=data, image=image, low=low, high=high)
        s |= dict(weight=draw.choice(["1", "28*28", "1/784", "0.5"]))
        s |= dict(klweight=draw.choice(["1", "0.1", "4", "2e-3"]))
        s |= dict(m=str(draw.choice([1, 2, 3, 16])), b=str(draw.choice([2, 5, 8])))
        s |= dict(betastar=draw.choice(["0.7", "12.5", "300"]) if data == "other" else "")
        found.append(s | {"shape": shape})
    return found


def number(text: str) -> float:
    return eval(text, {"__builtins__": {}})  # ours: 28*28


def published(s: dict):
    """The loss that the settings describe, with the reductions of torch itself."""
    error = {
        "bernoulli": lambda x, p: F.binary_cross_entropy(p, x, reduction="none"),
        "squared": lambda x, p: F.mse_loss(p, x, reduction="none"),
        "continuous-bernoulli": lambda x, p: -ContinuousBernoulli(probs=p).log_prob(x),
    }.get(s["likelihood"], lambda x, p: F.mse_loss(p, x, reduction="none") / 2)

    def loss(x, x_hat, mu, log_var):
        rec = error(x, x_hat)
        if s["pixels"] == "last":
            rec = rec.mean(-1)
        per_image = rec.reshape(len(x), -1)
        rec = per_image.mean(1) if s["pixels"] == "mean" else per_image.sum(1)
        kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var)
        kl = kl.sum(1) if s["latents"] == "sum" else kl.mean(1)
        rec = rec.mean() if s["batch"] == "mean" else rec.sum()
        kl = kl.mean() if s["klbatch"] == "mean" else kl.sum()
        return number(s["weight"]) * rec + number(s["klweight"]) * kl

    return loss


FILL = """settings => settings.map(s => {
  const form = document.getElementById("calculator");
  for (const [name, value] of Object.entries(s)) form.elements[name].value = value;
  form.dispatchEvent(new Event("input"));
  const of = name => document.getElementById("calc-" + name).dataset.value;
  return {
    ...Object.fromEntries(["c", "beta", "sigma2", "std", "betastar", "budget", "verdict"]
      .map(name => [name, of(name)])),
    margin: document.getElementById("calc-verdict").dataset.margin,
    torch: document.getElementById("calc-torch").textContent,
    keras: document.getElementById("calc-keras").textContent,
    errors: [...document.querySelectorAll(".calc-error")].map(e => e.textContent).join(""),
  };
})"""


@pytest.fixture(scope="module")
def page(chromium, site):
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{site}/{PAGE}")
        page.wait_for_selector("#calculator")
        yield page


@pytest.fixture(scope="module")
def answers(page):
    asked = settings()
    fields = [{k: v for k, v in s.items() if k != "shape"} for s in asked]
    return list(zip(asked, page.evaluate(FILL, fields), strict=True))


def test_c_beta_and_sigma2_are_the_auditors(answers):
    assert len(answers) >= 200
    for s, answer in answers:
        assert answer["errors"] == "", s
        audit = audit_loss(
            published(s), data_shape=s["shape"], latent_dim=int(s["m"]), batch_size=int(s["b"])
        )
        assert math.isfinite(audit.beta), (s, audit)
        # the auditor is right to 1e-4
        assert np.isclose(float(answer["c"]), audit.c, rtol=1e-4, atol=0), s
        assert np.isclose(float(answer["beta"]), audit.beta, rtol=1e-4, atol=0), s
        if s["likelihood"] in ("squared", "half-squared"):
            assert np.isclose(float(answer["sigma2"]), audit.sigma2, rtol=1e-4, atol=0), s
            assert np.isclose(float(answer["std"]) ** 2, audit.sigma2, rtol=1e-4, atol=0), s
        else:
            assert answer["sigma2"] == answer["std"] == "", s


def test_thresholds_budgets_and_verdicts_are_those_of_the_library(answers):
    x = load("digits28").x_train
    library = {}  # likelihood, low, high -> threshold, budget
    seen = set()
    for s, answer in answers:
        beta, threshold = float(answer["beta"]), float(answer["betastar"])
        if s["data"] == "digits28":
            name = s["likelihood"]
            name = "gaussian" if name.endswith("squared") else name
            key = name, s["low"], s["high"]
            if key not in library:
                low, high = int(s["low"]), int(s["high"])
                fed = low + (high - low) * x
                library[key] = collapse_threshold(fed, name), information_budget(fed, name)
            expected, budget = library[key]
            assert np.isclose(threshold, expected, rtol=1e-4), s
            found = float(answer["budget"] or "inf") * beta
            assert np.isclose(found, budget, rtol=1e-4), s
        elif s["data"] == "other":
            assert threshold == float(s["betastar"])
        assert np.isclose(float(answer["margin"]), beta / threshold)
        below = "unknown" if s["likelihood"] == "continuous-bernoulli" else "does not"
        assert answer["verdict"] == ("collapses" if beta > threshold else below), s
        seen.add(answer["verdict"])
    assert seen == {"collapses", "does not", "unknown"}
    assert len(library) >= 6


def test_the_budget_of_unknown_data_bounds_every_data_set(answers):
    """½ of the squared range in each pixel, and log 2, are what the worst data would have."""
    for s, answer in answers:
        if s["data"] != "other":
            continue
        d, spread = math.prod(s["shape"]), int(s["high"]) - int(s["low"])
        worst = np.tile([[int(s["low"])], [int(s["high"])]], (1, d)).astype(float)
        if s["likelihood"] in ("squared", "half-squared"):
            assert np.isclose(information_budget(worst, "gaussian"), d * spread**2 / 8)
            bound = information_budget(worst, "gaussian")
        elif s["likelihood"] == "bernoulli":
            bound = information_budget(worst, "bernoulli")
        else:
            assert answer["budget"] == ""
            continue
        assert np.isclose(float(answer["budget"]) * float(answer["beta"]), bound), s


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("likelihood", LOSSES)
def test_the_lines_it_offers_are_the_negative_elbo(answers, likelihood, framework):
    from keras import ops

    codes = {a[framework]: s for s, a in answers if s["likelihood"] == likelihood}
    assert codes
    for code, s in codes.items():
        learned = torch.tensor(0.3, dtype=torch.float64)  # log of the learned variance

        def loss(x, x_hat, mu, log_var, code=code, learned=learned):
            names = {"x": x, "x_hat": x_hat, "logits": x_hat, "mu": mu, "log_var": log_var}
            names |= {"log_sigma2": learned, "ops": ops}
            exec(code, names)  # what the page shows
            return names["loss"]

        logits = "-logits" if likelihood.endswith("bernoulli") else ""
        audit = audit_loss(loss, data_shape=(3, 4), latent_dim=2)
        spread = int(s["high"]) - int(s["low"])
        sigma2 = {"squared": spread**2, "half-squared": spread**2}.get(
            likelihood, 1 if logits else math.exp(0.3)
        )
        assert str(audit.likelihood) == (likelihood + logits if logits else "gaussian"), audit
        # β is measured against variance 1: weighting the KL is choosing σ²
        assert np.isclose(audit.c, 1 / sigma2, rtol=1e-4)
        assert np.isclose(audit.beta, sigma2, rtol=1e-4)
        note = re.search(r"# what you have now.*: (.*)", code)
        if note and likelihood.endswith("squared"):
            assert np.isclose(float(note[1].split(" = ")[1]), float_of(answers, code, framework))
        elif note:
            assert np.isclose(float(note[1].split(" ")[2]), float_of(answers, code, framework))


def float_of(answers, code: str, framework: str) -> float:
    return float(next(a["beta"] for _, a in answers if a[framework] == code))


# As a reader meets it


@pytest.mark.parametrize(
    "field, text, message",
    [
        ("weight", "", "Enter a number"),
        ("weight", "0", "greater than 0"),
        ("weight", "two", "not a number"),
        ("weight", "1/0", "not finite"),
        ("klweight", "0,1", "point"),
        ("klweight", "-1", "greater than 0"),
        ("m", "2.5", "whole number"),
        ("b", "0", "greater than 0"),
        ("image", "28 by 28", "size of one image"),
        ("image", "0 × 28", "size of one image"),
        ("image", "32 × 32", "MNIST has 28 × 28 = 784 pixels, not 1024"),
        ("high", "0", "above the smallest"),
        ("high", "255", "between 0 and 1"),
        ("low", "-1", "between 0 and 1"),
    ],
)
def test_bad_input_has_a_message_beside_its_field(page, field, text, message):
    page.click("text=Start again")
    page.fill(f"#{field}", text)
    error = page.locator(f"#{field}-error")
    assert message in error.inner_text()
    assert page.get_attribute(f"#{field}", "aria-invalid") == "true"
    assert f"{field}-error" in page.get_attribute(f"#{field}", "aria-describedby")
    assert page.locator("#calc-results").is_hidden()
    assert page.locator('[aria-invalid="true"]').count() == 1
    page.click("text=Start again")
    assert page.locator("#calc-results").is_visible()
    assert error.inner_text() == ""


def test_a_link_brings_its_settings(page, site, chromium):
    page.click("text=Start again")
    page.select_option("#data", "other")
    page.fill("#betastar", "17.5")
    page.select_option("#likelihood", "squared")
    page.fill("#image", "3 × 64 × 64")
    wanted = page.locator("#calc-verdict").inner_text()
    assert "17.5" in wanted
    with chromium.new_context() as context:
        other = context.new_page()
        other.goto(page.url)
        assert other.locator("#calc-verdict").inner_text() == wanted
        assert other.input_value("#image") == "3 × 64 × 64"
    with chromium.new_context() as context:
        other = context.new_page()
        other.goto(f"{site}/{PAGE}#likelihood=poisson&m=16&nonsense=1")
        assert "likelihood=poisson" in other.locator("#calc-share").inner_text()
        assert other.input_value("#m") == "16"


def test_it_works_from_a_folder_and_by_keyboard(html, chromium):
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto((html / PAGE).as_uri())
        assert page.locator("#calc-verdict").get_attribute("data-value") == "collapses"
        page.focus("#likelihood")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "pixels"
        page.keyboard.press("s")  # sum
        assert page.locator("#calc-verdict").get_attribute("data-value") == "does not"
        assert "pixels=sum" in page.url


def test_without_javascript_it_says_what_else_to_do(chromium, site):
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{site}/{PAGE}")
        assert "python -m vaeloss audit" in page.inner_text("main")
