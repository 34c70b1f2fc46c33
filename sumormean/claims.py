"""Statements that a run can refute."""


class ClaimError(AssertionError):
    """A sentence of the book turned out to be false in this run."""


def claim(sentence: str, condition: bool, *, given: bool = True) -> None:
    """Print the sentence if the condition holds; fail the notebook if it does not.

    Keep measured numbers out of the sentence: it is compared when the notebook is re-executed,
    on any data set. A sentence that names a data set is claimed only when that set was loaded:
    pass ``given=(data.name == "mnist")``.

    Raises
    ------
    ClaimError
        The condition is false.
    TypeError
        The condition is not one truth value (an array, say).

    Examples
    --------
    >>> claim("A sum over 784 pixels is 784 times their mean.", 784 * 0.5 == 392.0)
    ✓ A sum over 784 pixels is 784 times their mean.
    """
    if getattr(condition, "ndim", 0) != 0:
        raise TypeError(f"a claim needs one truth value, got an array; use .all(): {sentence!r}")
    if given and not bool(condition):
        raise ClaimError(sentence)
    print(f"✓ {sentence}")
