"""Record what Benchmark_VAE (pythae) 0.1.1 or 0.1.2 computes (recipe: README.md).

A small network (12 pixels, 7 hidden units, 3 latents) with fixed weights, images and noise: the
losses of VAE and BetaVAE with their gradients, the likelihood evaluation get_nll, the quantiser of
VQVAE for two batch sizes, and 20 steps of training, with the library's own classes.
"""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

N_IN, N_H, N_LATENT, BATCH, SAMPLES, STEPS, CODES = 12, 7, 3, 5, 8, 20, 6
SHAPE = (1, 3, 4)
SIZES = {
    "hidden": (N_IN, N_H),
    "mu": (N_H, N_LATENT),
    "log_var": (N_H, N_LATENT),
    "back": (N_LATENT, N_H),
    "out": (N_H, N_IN),
}


def inputs() -> dict[str, np.ndarray]:
    """Images, outputs, posteriors, noise, weights and a code book, float64."""
    random = np.random.RandomState(0)
    arrays = {
        "x": random.rand(BATCH, *SHAPE),
        "x_hat": 1 / (1 + np.exp(-random.randn(BATCH, *SHAPE))),
        "mu": random.randn(BATCH, N_LATENT),
        "log_var": random.randn(BATCH, N_LATENT),
        "eps": random.randn(STEPS, BATCH, N_LATENT),
        "eps_nll": random.randn(SAMPLES, N_LATENT),
        "z": random.randn(2 * BATCH, 2, 2, N_LATENT),
        "codes": random.randn(CODES, N_LATENT),
    }
    for name, (n_in, n_out) in SIZES.items():
        arrays[f"{name}/weight"] = random.randn(n_out, n_in) / np.sqrt(n_in)
        arrays[f"{name}/bias"] = 0.1 * random.randn(n_out)
    return arrays


def main() -> None:
    import torch
    from pythae.models import VAE, VQVAE, BetaVAE, BetaVAEConfig, VAEConfig, VQVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.models.vq_vae.vq_vae_utils import Quantizer

    arrays = inputs()

    def layer(name):
        linear = torch.nn.Linear(*SIZES[name], dtype=torch.float64)
        state = {key: torch.tensor(arrays[f"{name}/{key}"]) for key in ("weight", "bias")}
        linear.load_state_dict(state)
        return linear

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden, self.mu, self.log_var = layer("hidden"), layer("mu"), layer("log_var")

        def forward(self, x):
            h = torch.tanh(self.hidden(x.flatten(1)))
            return ModelOutput(embedding=self.mu(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.back, self.out = layer("back"), layer("out")

        def forward(self, z):
            x_hat = torch.sigmoid(self.out(torch.tanh(self.back(z))))
            return ModelOutput(reconstruction=x_hat.reshape(-1, *SHAPE))

    def model(loss, beta, dtype):
        sizes = {"input_dim": SHAPE, "latent_dim": N_LATENT, "reconstruction_loss": loss}
        if beta is None:
            made = VAE(VAEConfig(**sizes), Encoder(), Decoder())
        else:
            made = BetaVAE(BetaVAEConfig(**sizes, beta=beta), Encoder(), Decoder())
        return made.to(dtype)

    golden = {f"input:{name}": array for name, array in arrays.items()}
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        tensors = {key: torch.tensor(array, dtype=dtype) for key, array in arrays.items()}
        for loss in ("mse", "bce"):
            for beta in (None, 2.0):
                leaves = [tensors[k].clone().requires_grad_() for k in ("x_hat", "mu", "log_var")]
                vae = model(loss, beta, dtype)
                terms = vae.loss_function(leaves[0], tensors["x"], leaves[1], leaves[2], None)
                gradients = torch.autograd.grad(terms[0], leaves)
                parts = [*terms, *gradients]
                vector = torch.cat([part.detach().flatten() for part in parts])
                golden[f"{name}:{loss}:{beta}"] = vector.numpy()

            vae = model(loss, None, dtype)
            noise = tensors["eps_nll"]
            vae._sample_gauss = lambda mu, std, noise=noise: (mu + noise * std, noise)
            with torch.no_grad():
                golden[f"{name}:{loss}:get_nll"] = np.array(
                    vae.get_nll(tensors["x"], n_samples=SAMPLES, batch_size=SAMPLES)
                )

            # the same configuration, trained
            vae = model(loss, None, dtype)
            optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
            losses = []
            for eps in tensors["eps"]:
                vae._sample_gauss = lambda mu, std, eps=eps: (mu + eps * std, eps)
                value = vae({"data": tensors["x"]}).loss
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                losses.append(value.item())
            golden[f"{name}:{loss}:training"] = np.array(losses)

    # the quantiser computes in float32 only
    for batch in (BATCH, 2 * BATCH):
        config = VQVAEConfig(input_dim=SHAPE, latent_dim=N_LATENT, num_embeddings=CODES)
        config.embedding_dim = N_LATENT
        quantiser = Quantizer(config)
        quantiser.embeddings.weight.data = torch.tensor(arrays["codes"], dtype=torch.float32)
        z = torch.tensor(arrays["z"][:batch], dtype=torch.float32).requires_grad_()
        out = quantiser(z)
        gradients = torch.autograd.grad(out.loss, [z, quantiser.embeddings.weight])
        parts = [out.loss, *gradients]
        golden[f"float32:quantiser:{batch}"] = torch.cat(
            [part.detach().flatten() for part in parts]
        ).numpy()
        golden[f"float32:chosen:{batch}"] = out.quantized_indices.numpy()
        x_hat = torch.tensor(np.concatenate([arrays["x_hat"]] * 2)[:batch], dtype=torch.float32)
        x = torch.tensor(np.concatenate([arrays["x"]] * 2)[:batch], dtype=torch.float32)
        terms = VQVAE.loss_function(None, x_hat, x, out)
        golden[f"float32:vqvae:{batch}"] = np.array([term.item() for term in terms])

    stamp = {
        "script": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "versions": {name: version(name) for name in ("pythae", "torch", "numpy")},
    }
    stamp["versions"]["python"] = platform.python_version()
    golden["stamp"] = np.array(json.dumps(stamp))
    name = f"pythae-{stamp['versions']['pythae']}.npz"
    np.savez_compressed(Path(__file__).parents[2] / "data/oracles" / name, **golden)


if __name__ == "__main__":
    main()
