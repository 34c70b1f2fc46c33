"""sumormean: the workbench of the book "Sum or Mean?".

What the chapters share and readers need not take home: data sets, networks, the training loop,
plots, recorded experiments, other people's losses. What is for keeping is in ``vaeloss``.
"""
