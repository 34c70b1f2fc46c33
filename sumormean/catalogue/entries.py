"""What an entry of the catalogue is: a loss, with what follows from its algebra beside it.

An entry is one function in ``sumormean/catalogue/losses``, with a block above it, ``@entry(...)``,
that says where the loss is from, what it adds up, and the c, β and σ² that follow. The auditor
looks at the function and must find what the block says.
"""

import ast
import math
import operator
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields

from vaeloss.audit import Audit, QuantiserAudit, audit_loss, audit_quantiser
from vaeloss.audit.findings import SENTENCES
from vaeloss.likelihoods import as_likelihood


class CatalogueError(ValueError):
    """An entry of the catalogue makes no sense; the message names it and the mend."""


@dataclass(frozen=True)
class Implementation:
    """One entry; ``entry`` explains its attributes.

    c, beta, sigma2, codebook and commitment are formulas in B, M and D, or None; ``expected`` gives
    their values.
    """

    id: str
    loss: Callable = field(repr=False)
    title: str
    repository: str
    path: str
    commit: str
    terms: str
    likelihood: str
    data: str
    shape: tuple[int, ...]
    latent_dim: int
    batch_size: int
    surprise: str
    c: str | None = None
    beta: str | None = None
    sigma2: str | None = None
    codebook: str | None = None
    commitment: str | None = None
    refused: str | None = None
    when: str | None = None
    pixels: tuple[float, float] = (0.0, 1.0)
    threshold: str | None = None
    besides: str | None = None
    chosen: tuple[str, ...] = ()
    evidence: str = "source read"

    @property
    def d(self) -> int:
        """D, the number of values of an image."""
        return math.prod(self.shape)

    @property
    def quantises(self) -> bool:
        return self.codebook is not None

    def expected(self, what: str) -> float:
        """The value of the formula "c", "beta", "sigma2", "codebook" or "commitment".

        NaN where the block has none. Raises CatalogueError if the formula is none.

        Examples
        --------
        >>> from sumormean.catalogue.losses import chainer
        >>> swap = chainer.chainer_mse_swap.entry
        >>> swap.beta, swap.expected("beta")
        ('D/2', 392.0)
        """
        formula = getattr(self, what)
        if formula is None:
            return math.nan
        try:
            return evaluate(formula, B=self.batch_size, M=self.latent_dim, D=self.d)
        except ValueError as error:
            raise CatalogueError(f"{self.id}: {what} = {formula!r}: {error}") from error

    def audit(self) -> Audit | QuantiserAudit:
        """What the auditor finds in the function, at the sizes of the block."""
        auditor = audit_quantiser if self.quantises else audit_loss
        return auditor(
            self.loss,
            data_shape=self.shape,
            latent_dim=self.latent_dim,
            batch_size=self.batch_size,
        )

    def agrees(self, audit: Audit | QuantiserAudit, rel_tol: float = 1e-4) -> bool:
        """Does an audit say what the block says? The tolerance is the auditor's own."""
        if audit.likelihood != (as_likelihood(self.likelihood) if self.c is not None else None):
            return False
        pairs = [("c", audit.c)]
        names = ["codebook", "commitment"] if self.quantises else ["beta"]
        pairs += [(name, getattr(audit, name)) for name in names]
        if not self.quantises and audit.sigma2 is not None and self.sigma2 is not None:
            pairs.append(("sigma2", audit.sigma2))
        refused = self.refused is None or audit.has(self.refused)
        return refused and all(_same(self.expected(name), found, rel_tol) for name, found in pairs)


def _same(expected: float, found: float, rel_tol: float) -> bool:
    if math.isnan(expected) or math.isnan(found):
        return math.isnan(expected) and math.isnan(found)
    return math.isclose(expected, found, rel_tol=rel_tol)


# Filled as the modules of losses are imported, in the order of ``sumormean.catalogue.losses``.
ENTRIES: dict[str, Implementation] = {}


def entry(**block) -> Callable[[Callable], Callable]:
    """Make a function an entry of the catalogue: ``@entry(title=..., ...)`` above it.

    The function takes ``(x, x_hat, mu, log_var)``, or ``(x, x_hat, z, e)`` if it quantises: z
    (B, M) is what the encoder said, e (B, M) the code vectors that replace it. x_hat holds
    probabilities or means, and logits where the original wants them. The function's name, with -
    for _, is the entry's id. The function itself is left as it is, but for an attribute ``entry``,
    an ``Implementation``. One that is defined outside the catalogue, in a notebook say, is an entry
    like any other, and no part of ``catalogue()``.

    Parameters
    ----------
    title, repository, path, commit : str
        What it is called here, and where it is from.
    when : str, optional
        Dates of the commits between which it holds, where they are known.
    terms : str
        What is added up. SE, AE, BCE: squared error, absolute error, cross-entropy of a pixel;
        sum_BD: sum over batch and pixels; mean_M: mean over latents; and so on.
    likelihood : str
        Of the reconstruction, a name that ``vaeloss.likelihoods`` knows.
    data : str
        What the original is trained on.
    threshold : str, optional
        The data set whose collapse threshold applies, if it is known here.
    pixels : tuple of float, optional
        The range of the pixels if it is not [0, 1].
    shape, latent_dim, batch_size : tuple of int, int, int
        Of one image, as the loss gets it; M; B.
    chosen : tuple of str, optional
        Sizes that the original leaves open or that were not read: any would do.
    c, beta : str
        loss = c · [NLL + beta · KL]: formulas in B, M and D, the number of values of an image.
    sigma2 : str, optional
        For squared error: the decoder variance with which beta is one, in units of the pixels fed.
    codebook, commitment : str
        Instead of beta, for quantisers: weights of the sums over one image's code, against the NLL
        (squared error: at variance one, half the sum).
    refused : str
        Instead of beta, where no constant beta exists: the code of the auditor's finding, a key of
        ``vaeloss.audit.findings.SENTENCES``. Without c if the weight of the reconstruction is
        unknown too.
    besides : str, optional
        What the original adds and the function leaves out: a GAN, a perceptual loss.
    surprise : str
        What to know.
    evidence : str, optional
        If the source itself was not read.

    Raises
    ------
    CatalogueError
        A key is missing, unknown or of the wrong kind, the catalogue has the id already, or the
        block has not exactly one of beta, codebook and refused.
    """

    def carry(loss: Callable) -> Callable:
        loss.entry = _checked(loss, block)
        if loss.__module__.startswith(f"{__package__}."):
            if loss.entry.id in ENTRIES:
                raise CatalogueError(f"{loss.entry.id}: there are two entries with this id")
            ENTRIES[loss.entry.id] = loss.entry
        return loss

    return carry


def _checked(loss: Callable, block: dict) -> Implementation:
    name = loss.__name__.replace("_", "-")
    keys = [f for f in fields(Implementation) if f.name not in ("id", "loss")]
    if missing := [f.name for f in keys if f.default is MISSING and f.name not in block]:
        raise CatalogueError(f"{name}: add {', '.join(missing)}")
    if unknown := sorted(set(block) - {f.name for f in keys}):
        raise CatalogueError(f"{name}: unknown key {', '.join(unknown)}")
    for key in ("shape", "pixels", "chosen"):
        if not isinstance(block.get(key, ()), tuple):
            raise CatalogueError(f"{name}: {key} = {block[key]!r} is no tuple: (784,) is one")
    if sum(key in block for key in ("beta", "codebook", "refused")) != 1:
        raise CatalogueError(
            f"{name}: give beta, or codebook and commitment, or the auditor's finding (refused)"
        )
    if block.get("refused", next(iter(SENTENCES))) not in SENTENCES:
        raise CatalogueError(
            f"{name}: refused = {block['refused']!r}: the auditor has no such code"
        )
    return Implementation(id=name, loss=loss, **block)


OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
FUNCTIONS = {"exp": math.exp, "log": math.log}


def evaluate(formula: str, **names: float) -> float:
    """The value of a formula: numbers, names, ``+ - * / **``, exp and log. Nothing else.

    Raises
    ------
    ValueError
        The formula is not one.

    Examples
    --------
    >>> evaluate("B*D/2", B=100, D=784)
    39200.0
    """

    def value(node: ast.AST) -> float:
        match node:
            case ast.Constant(value=int() | float()):
                return float(node.value)
            case ast.Name(id=name) if name in names:
                return float(names[name])
            case ast.BinOp(op=op) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(node.left), value(node.right))
            case ast.UnaryOp(op=op) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(node.operand))
            case ast.Call(func=ast.Name(id=name), args=[argument]) if name in FUNCTIONS:
                return FUNCTIONS[name](value(argument))
        raise ValueError(f"not understood: {ast.unparse(node)}")

    try:
        return value(ast.parse(formula, mode="eval").body)
    except (SyntaxError, ArithmeticError) as error:
        raise ValueError(str(error)) from error
