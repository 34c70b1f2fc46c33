"""How public implementations of the VAE reduce and weight their loss.

``data/implementations.toml`` has one block per loss: where it is from, what it adds up, and the c,
β and σ² that follow. ``sumormean/catalogue/losses.py`` has one function per block. The auditor
looks at the functions and must find what the blocks say.
"""

import ast
import math
import operator
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields

from sumormean.catalogue import losses
from sumormean.data import bundled
from vaeloss.audit import Audit, QuantiserAudit, audit_loss, audit_quantiser
from vaeloss.likelihoods import as_likelihood


class CatalogueError(ValueError):
    """A block of the catalogue makes no sense; the message names it and the mend."""


@dataclass(frozen=True)
class Implementation:
    """One block of ``data/implementations.toml``, whose head explains the keys.

    c, beta, sigma2, codebook and commitment are formulas in B, M and D, or None; ``expected`` gives
    their values.
    """

    id: str
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

    @property
    def loss(self) -> Callable:
        """The function of ``sumormean.catalogue.losses`` that bears the id.

        Raises CatalogueError if there is none.
        """
        name = self.id.replace("-", "_")
        if not hasattr(losses, name):
            raise CatalogueError(f"{self.id}: write {name}() in sumormean/catalogue/losses.py")
        return getattr(losses, name)

    def expected(self, what: str) -> float:
        """The value of the formula "c", "beta", "sigma2", "codebook" or "commitment".

        NaN where the block has none. Raises CatalogueError if the formula is none.

        Examples
        --------
        >>> [entry] = [e for e in catalogue() if e.id == "chainer-mse-swap"]
        >>> entry.beta, entry.expected("beta")
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


def catalogue() -> list[Implementation]:
    """All blocks, in the order of the file.

    Raises
    ------
    CatalogueError
        A key is missing or unknown, an id is used twice, or a block has neither of beta, codebook
        and refused.

    Examples
    --------
    >>> len(catalogue()) > 60
    True
    """
    text = bundled("implementations.toml").read_text(encoding="utf-8")
    return parse(tomllib.loads(text)["implementation"])


def parse(blocks: list[dict]) -> list[Implementation]:
    """The checked entries in the tables of the file. Errors as in ``catalogue``."""
    known = {f.name for f in fields(Implementation)}
    required = [f.name for f in fields(Implementation) if f.default is MISSING]
    entries = []
    for block in blocks:
        name = block.get("id", "a block without id")
        if missing := [key for key in required if key not in block]:
            raise CatalogueError(f"{name}: add {', '.join(missing)}")
        if unknown := sorted(set(block) - known):
            raise CatalogueError(f"{name}: unknown key {', '.join(unknown)}")
        if any(entry.id == name for entry in entries):
            raise CatalogueError(f"{name}: there are two blocks with this id")
        if sum(key in block for key in ("beta", "codebook", "refused")) != 1:
            raise CatalogueError(
                f"{name}: give beta, or codebook and commitment, or the auditor's words (refused)"
            )
        tuples = {k: tuple(v) for k, v in block.items() if isinstance(v, list)}
        entries.append(Implementation(**{**block, **tuples}))
    return entries


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
