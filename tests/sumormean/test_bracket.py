"""The measured threshold agrees with the predicted one where the answer is planted."""

import numpy as np
import pytest
import torch
from torch import nn

from sumormean.bracket import bracket_threshold
from sumormean.models import mlp_vae
from vaeloss.collapse import collapse_threshold
from vaeloss.likelihoods import gaussian_nll


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    scales = np.linspace(1.0, 0.4, 20)
    scales[0] = 2.0
    return (rng.normal(size=(4000, 20)) * scales + 3.0).astype(np.float32)


def test_a_planted_threshold_is_found_from_a_wrong_guess(planted):
    truth = collapse_threshold(planted, "gaussian")
    assert truth == pytest.approx(4, rel=0.1)
    x = torch.as_tensor(planted)
    bracket = bracket_threshold(
        mlp_vae((20,), hidden=()), x, gaussian_nll, x.mean(0), 0.6 * truth, steps=400, lr=3e-3
    )
    assert 0.85 * truth < bracket.low < bracket.high < 1.15 * truth
    assert bracket.high / bracket.low < 1.03
    assert bracket.low < bracket.middle < bracket.high
    # Each end was tested, and nothing tested contradicts the bracket.
    verdicts = {beta: grew for beta, grew, _ in bracket.tests}
    assert verdicts[bracket.low] and not verdicts[bracket.high]
    assert all(grew == (beta <= bracket.low) for beta, grew in verdicts.items())


def test_a_model_that_is_not_alive_is_an_error(planted):
    x = torch.as_tensor(planted)
    model = mlp_vae((20,), hidden=(16,), activation=nn.Tanh)
    with pytest.raises(RuntimeError, match="not alive after 250 steps"):
        bracket_threshold(model, x, gaussian_nll, x.mean(0), 1e3, steps=50)
