"""The book's recorded experiments, one file for each record in data/runs/.

A module has ``settings()``, the grid; ``run(..., seed)``, one row of the record; ``SEEDS``;
``ARRAYS``, what is too large for JSON and is kept beside it in NAME.npz; and its losses by name, so
that a chapter can hold its own against them. ``python -m sumormean ablate NAME``
(``sumormean.experiments.ablate``) makes a record.
"""
