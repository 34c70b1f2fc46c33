"""What an audit can find, one sentence for each code: to reword one, change it here."""

from dataclasses import dataclass, field

# Programs read codes, people read sentences. {names} are filled in from a finding's data.
SENTENCES = {
    # the reconstruction
    "no-reconstruction": "no reconstruction term: the loss ignores x_hat",
    "decodes-inside": (
        "the loss ignores x_hat: it seems to decode by itself, out of reach of this audit; audit "
        "its training step with audit_step or watch_step"
    ),
    "x-hat-detached": ("the value depends on x_hat, the gradient does not: look for .detach()"),
    "x-ignored": "the loss ignores x: is x_hat compared with itself?",
    "reconstruction-random": ("the reconstruction term is random: switch off dropout and noise"),
    "other-likelihood": "the reconstruction is not {asked!r} but {found!r}",
    "reconstruction-weight-varies": (
        "{likelihood}, but its weight changes with the size of the error (a logarithm, a root, a "
        "fitted variance?): no constant c and β"
    ),
    "reconstruction-unknown": (
        "the reconstruction is none of {known} with one weight for all values and samples "
        "(nearest: {nearest}, off by {off:.1g}); audit its parts one at a time"
    ),
    "reconstruction-partly": (
        "{share:.1%} of the gradient of x_hat is that of {likelihood} with a weight of about "
        "{weight:.3g}, the rest is something else (a perceptual, adversarial or velocity term?)"
    ),
    "weights-differ": (
        "{likelihood}, but every {what} has a weight of its own, from {low:.4g} to {high:.4g}: no "
        "single c and β"
    ),
    "own-length": (
        "{likelihood}, averaged over each sample's own length: samples have weights from {low:.4g} "
        "to {high:.4g}, no single c and β; sum over the values, then average over the batch"
    ),
    "beta-range": "β runs from {low:.6g} to {high:.6g}",
    "pos-weight": (
        "{likelihood}, but ones weigh {ratio:.4g} times as much as zeros (pos_weight?): no "
        "likelihood, no single c and β"
    ),
    "huber": (
        "squared error up to a difference of {delta:.4g}, absolute error beyond (Huber, smooth "
        "L1): c and β hold for differences below that"
    ),
    "huber-inside": (
        "squared error of weight {weight:.4g} up to a difference of {delta:.4g}, absolute error "
        "beyond (Huber, smooth L1): no single c and β"
    ),
    "masked": (
        "{left:.1%} of the outputs have no gradient (a mask, padding?): c and β are those of the "
        "others"
    ),
    "mean-over-kept": (
        "averaged over the values that are not left out: c and β go with their number, here "
        "{kept:.4g} a sample"
    ),
    "tokens-as": "the loss takes {outputs}",
    "next-token": "each output is scored against the next token",
    "clipped": (
        "probabilities are clipped at about {probability:.0e}: beyond that a pixel costs at most "
        "{nats:.1f} nats {gradient}; prefer logits"
    ),
    # the KL
    "no-kl": "no KL: an autoencoder's loss; a quantiser's is for audit_quantiser",
    "posterior-detached": (
        "the value depends on mu or log_var, the gradient does not: look for .detach()"
    ),
    "kl-ignores-mu": "not a KL: the loss ignores mu",
    "kl-ignores-log-var": "not a KL: the loss ignores log_var",
    "quantiser": (
        "not a KL: the loss compares the two last arguments with each other, as a quantiser does: "
        "audit_quantiser"
    ),
    "kl-categorical": (
        "the KL is that of {codes} codes of {classes} symbols to the uniform, with mu for their "
        "logits: β is its weight, summed over the codes"
    ),
    "kl-of-log-sigma": (
        "the KL is written for log σ but is given log σ²: pass it log_var / 2, or write "
        "exp(log_var) for σ²"
    ),
    "kl-weight-varies": (
        "the weight of the KL changes with its size (free bits, |KL - C|, KL², a learned weight?): "
        "no constant β"
    ),
    "kl-unknown": (
        "the gradients with respect to mu and log_var are not those of a KL to N(0, I) with one "
        "weight for all latents and samples (free bits, clipping, another prior, importance "
        "weights, one fixed draw of noise?): no β"
    ),
    "kl-sampled": (
        "a Monte Carlo KL: right on average, random from call to call (β is that of its mean); the "
        "closed form costs less"
    ),
    "kl-sampled-once": (
        "a Monte Carlo KL with the same noise in every call: β is that of its mean over fresh noise"
    ),
    "keeps-state": (
        "the loss keeps state: two calls with the same inputs differ (an annealed weight, |KL - C| "
        "with a C that counts the calls?): no constant β"
    ),
    "overflows": (
        "in float32 the loss is not finite at log_var = {log_var:g} (exp itself overflows at 88.7 "
        "only): clamp log_var"
    ),
    # how it is called
    "arguments": "called as {call}: by the names of its arguments",
    "arguments-guessed": "called as {call}: in the usual order it is no loss of a known form",
    "arguments-exchanged": (
        "no known reconstruction as {call}, but {likelihood} with x and x_hat exchanged: does the "
        "loss take its target for the output?"
    ),
    "order-unknown": (
        "{likelihood} in one order of x and x_hat only, and the arguments' names do not say which "
        "is which: call them x and x_hat"
    ),
    "takes": "the loss takes {takes} where others take log σ²",
    "takes-other": (
        "the last argument is called {name}, but the KL is right for {takes}: hand it that, or "
        "mend the KL"
    ),
    "takes-as": (
        "the last argument is called {name}, but the KL takes {takes}: right if the sampler takes "
        "it so as well"
    ),
    "total": "the loss returns several things: {path} is the total",
    "kl-random": (
        "the gradients with respect to mu and log_var change from call to call (noise, an annealed "
        "weight, an estimate from the batch?), and are not those of a sampled KL: no β"
    ),
    # the batch
    "one-batch-size": (
        "works at batch size {size} only; whether its weights depend on it is unknown (at {other}: "
        "{error})"
    ),
    "weights-change-with-batch": (
        "the weights change with the batch size: c and β hold at {size} only"
    ),
    "beta-depends-on-batch": (
        "β depends on the batch size: the reconstruction is {reconstruction}, the KL {kl} (or "
        "divided by a number that is not the batch's size)"
    ),
    "c-depends-on-batch": "{both}: c depends on the batch size, β does not",
    "smaller-batches": "probed in smaller batches than {asked}: c and β hold at {size}",
    # the reading
    "elbo": "β = 1: the negative ELBO, up to the factor c",
    "reductions": "β = {formula}: {error}, {pixels}; KL, {latents}",
    "weighted": (
        "β = {formula}: {error}, {pixels}; KL, {latents}; the {term} has the weight {weight:g}"
    ),
    "negative-beta": "β is negative: the loss rewards KL; check the sign of the KL term",
    "negative-c": "c is negative: something to maximise, not a loss; check the sign",
    # what to change
    "multiply-kl": "for β = 1 multiply the KL by {factor:.6g}",
    "learning-rate": "without c: SGD's learning rate × {factor:.6g}, Adam's as it is",
    # a training step
    "step-no-reconstruction": "no gradient reaches x_hat: no reconstruction term at this step",
    "step-unknown": (
        "the reconstruction is none of {known} with one weight for all values (nearest: {nearest}, "
        "off by {off:.1g}); name another with likelihood=, or hand in the loss's own NLL, nll="
    ),
    "step-partly": (
        "{likelihood} with c = {c:.6g} in {share:.0%} of the values, something else in the others "
        "(a Huber loss, clipping, weights?): no single c and β"
    ),
    "step-not-asked": "the gradient at x_hat is not that of {asked} (off by {off:.1g})",
    "step-ambiguous": (
        "{names}: they fit alike, as the outputs are all alike; audit a later step, or name it "
        "with likelihood="
    ),
    "step-weights-differ": (
        "{likelihood}, but every {what} has a weight of its own: c from {low:.4g} to {high:.4g} "
        "(importance weights, a mean over each one's length, weights of features?): no single β"
    ),
    "step-reached": "{share:.1%} of the outputs have a gradient: the others are masked or padding",
    "step-draws": "{draws} draws of z for every x: c is that of the mean over them",
    "step-repeats": (
        "x_hat holds {times} outputs for each x and mu: they count as values of one sample; if "
        "they are draws of z, c is {times} times this and β 1/{times} of this"
    ),
    "step-batch": (
        "x_hat has {rows} rows, mu {size}: B is taken to be {size}; c depends on it, β does not"
    ),
    "step-second-log-std": "the second of x_hat is read as the log of a standard deviation",
    "step-second-std": "the second of x_hat is read as a standard deviation",
    "step-second-variance": "the second of x_hat is read as a variance",
    "step-given": "the {name} is taken as it is given, as {how}",
    "step-given-unused": "no gradient reaches the {name} that was given: its weight is 0",
    "posterior-is-prior": (
        "the posterior is the prior here, or too near for these digits (zero-initialised heads, "
        "collapse?): the KL has no gradient to weigh; audit a later step"
    ),
    "step-no-kl": "no gradient of a KL at this step: there is none, or free bits hold it back",
    "step-kl-elsewhere": (
        "a gradient reaches the encoder past mu and {spread}: the KL was computed from other "
        "tensors (hand in those), or another term weighs on the encoder (ignore=)"
    ),
    "step-other-term": (
        "another term reaches the encoder past mu and {spread} (a second KL, an auxiliary loss, "
        "weight decay, shared weights): β is that of this KL alone"
    ),
    "step-kl-sampled": "a sampled KL: right on average; the closed form has no noise",
    "step-kl-unknown": (
        "the gradients at mu and {spread} are not those of a KL with one weight. Another prior: "
        "prior=. Several draws: z=. A second output, an auxiliary term: x_hat=(a, b), ignore=. A "
        "KL of your own: kl="
    ),
    "step-kl-reached": (
        "the KL has a gradient in {share:.1%} of the latents (free bits, a clamp): β is theirs"
    ),
    "step-spread": (
        "the KL is one if {spread} is taken for {other}: hand it in as {other}=, or the loss takes "
        "one for the other"
    ),
    "step-kl-halves": (
        "not a KL: its part with mu has weight {first:.4g}, its part with {spread} {second:.4g} (a "
        "sum over the batch in one of them?)"
    ),
    "step-noise": ("z has noise of std {std:.3g} instead of 1: the sampler and the KL disagree"),
    "step-value": (
        "the loss is {value:.6g}, its two terms are {parts:.6g}: constants, other terms, or a "
        "weight that changes with the size (|KL - C|, a logarithm); c and β hold at this step"
    ),
    "step-scaled": "c = {c:.6g} = 2^{power}: a GradScaler's factor? β does not depend on it",
    "step-negative-beta": (
        "β is negative at this step: it rewards KL (a sign, or |KL - C| below its target C)"
    ),
    "steps-beta-varies": (
        "β goes from {low:.4g} to {high:.4g} in {steps} steps: annealed, a schedule, or a weight "
        "that changes with the size of the KL or of the error"
    ),
    "steps-c-varies": (
        "c goes from {low:.4g} to {high:.4g} in {steps} steps: batches or lengths that differ, a "
        "fitted variance, a loss scale"
    ),
    "steps-likelihoods": "not every step has the same likelihood",
    # a quantiser
    "no-term": "no {term} term",
    "not-squared": "the {term} term is not a squared distance",
    "term-depends-on-batch": (
        "the weight of the {term} term depends on the batch size: the reconstruction is "
        "{reconstruction}, the {term} {found}"
    ),
}
CHANGES = ("multiply-kl", "learning-rate")  # they come last


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Parameters
    ----------
    code : str
        A key of SENTENCES, for programs; it stays when the sentence is reworded.
    sentence : str
        The same for people.
    data : dict
        The numbers and names in the sentence.
    """

    code: str
    sentence: str
    data: dict = field(default_factory=dict)


def finding(code: str, **data) -> Finding:
    """The finding with this code and its sentence.

    Examples
    --------
    >>> finding("smaller-batches", asked=64, size=8).sentence
    'probed in smaller batches than 64: c and β hold at 8'
    """
    return Finding(code, SENTENCES[code].format(**data), data)
