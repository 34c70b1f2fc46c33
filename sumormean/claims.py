"""Statements that a run can refute."""

import re


class ClaimError(AssertionError):
    """A sentence of the book turned out to be false in this run."""


def claim(
    sentence: str,
    condition: bool,
    *,
    id: str | None = None,
    value: dict[str, float] | None = None,
    given: bool = True,
    recorded: bool = False,
) -> None:
    """Print the sentence if the condition holds; fail the notebook if it does not.

    Keep measured numbers out of the sentence: it is compared when the notebook is re-executed,
    on any data set. A sentence that names a data set is claimed only when that set was loaded:
    pass ``given=(data.name == "mnist")``.

    Parameters
    ----------
    sentence : str
        What is claimed.
    condition : bool
        What makes it true.
    id : str, optional
        A short slug by which a page asks for the claim. It stays when the sentence is reworded.
    value : dict, optional
        The numbers that the sentence prints, by name. Pages quote them by `id` and name, out of
        the source, so both are written as literals.
    given : bool
        Whether the sentence is claimed in this run.
    recorded : bool
        Whether the condition reads a record in data/runs/: something that was measured once, and
        not what this run computed.

    Raises
    ------
    ClaimError
        The condition is false.
    TypeError
        The condition is not one truth value (an array, say), or a value is no number.
    ValueError
        The id is no slug, there are values without one, or the sentence does not print a value.

    Examples
    --------
    >>> claim("A sum over 784 pixels is 784 times their mean.", 784 * 0.5 == 392.0)
    ✓ A sum over 784 pixels is 784 times their mean.
    >>> claim("The run of May kept both latents.", True, recorded=True)
    ✓ The run of May kept both latents. (recorded)
    >>> claim("β* is 32.2.", True, id="threshold", value={"beta_star": 32.2})
    ✓ β* is 32.2.
    """
    if getattr(condition, "ndim", 0) != 0:
        raise TypeError(f"a claim needs one truth value, got an array; use .all(): {sentence!r}")
    if id is not None and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
        raise ValueError(f"the id of a claim is a slug such as 'budget-on-mnist', got {id!r}")
    if value and id is None:
        raise ValueError(f"a claim with values needs an id, by which pages ask: {sentence!r}")
    for name, number in (value or {}).items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"the value {name!r} of a claim is a number, got {number!r}")
        # As a number of its own: 5.1 does not stand in "5.12".
        if not re.search(rf"(?<![\d.,]){re.escape(f'{number}')}(?!\d|[.,]\d)", sentence):
            raise ValueError(f"the value {name} = {number} does not stand in {sentence!r}")
    if given and not bool(condition):
        raise ClaimError(sentence)
    print(f"✓ {sentence} (recorded)" if recorded else f"✓ {sentence}")
