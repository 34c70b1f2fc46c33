"""What holds for every test: quiet, one thread, Keras on PyTorch; of notebooks, all but stderr."""

import os

# Set before any kernel or library starts, so that a plain `pytest` is the same as `make test`.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    TQDM_DISABLE="1",
    KERAS_BACKEND="torch",
)


def pytest_collectstart(collector):
    # Warnings of libraries differ between versions; all other text of a notebook is compared.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare = (*collector.skip_compare, "stderr")
