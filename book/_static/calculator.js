// What a VAE loss weighs, and whether it collapses: the page book/use/calculator.md without a kernel.
// The same numbers as vaeloss.audit and vaeloss.collapse; a test compares them. β* and budgets of the
// data sets, DATA, come from calculator-data.js.
"use strict";

const IMAGE = 28 * 28; // of all three

// error: what one pixel costs in units of the NLL; unit: needs pixels in [0, 1]
const LIKELIHOODS = {
  "bernoulli": { error: 1, unit: true },
  "squared": { error: 2, threshold: "gaussian" },
  "half-squared": { error: 1, threshold: "gaussian" },
  "gaussian-shared": { error: 1 },
  "gaussian-per-pixel": { error: 1 },
  "continuous-bernoulli": { error: 1, unit: true },
};

const FIELDS = [
  "likelihood", "pixels", "batch", "weight", "latents", "klbatch", "klweight",
  "image", "m", "b", "low", "high", "data", "betastar",
];

class Mend extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

// "0.1", "1e-3", "1/784", "28*28": numbers joined by * and /
function parseNumber(field, text, { positive = true, whole = false } = {}) {
  const number = "[+-]?(\\d+\\.?\\d*|\\.\\d+)(e[+-]?\\d+)?";
  if (!text.trim()) throw new Mend(field, "Enter a number.");
  if (/\d,\d/.test(text)) throw new Mend(field, "Write the decimal point as a point: 0.1.");
  if (!RegExp(`^\\s*${number}(\\s*[*/×]\\s*${number})*\\s*$`, "i").test(text)) {
    throw new Mend(field, `“${text.trim()}” is not a number such as 0.1, 1/784 or 28*28.`);
  }
  const parts = text.replaceAll("×", "*").split(/\s*([*/])\s*/);
  let value = Number(parts[0]);
  for (let i = 1; i < parts.length; i += 2) {
    value = parts[i] === "*" ? value * Number(parts[i + 1]) : value / Number(parts[i + 1]);
  }
  if (!Number.isFinite(value)) throw new Mend(field, "This number is not finite.");
  if (positive && value <= 0) throw new Mend(field, "This must be greater than 0.");
  if (whole && !Number.isInteger(value)) throw new Mend(field, "This must be a whole number.");
  return value;
}

// "784", "28 × 28", "3, 64, 64" -> [3, 64, 64]
function parseShape(text) {
  if (!/^\s*[1-9]\d*(\s*[x×*,\s]\s*[1-9]\d*)*\s*$/i.test(text)) {
    throw new Mend("image", "Write the size of one image: 784, 28 × 28 or 3 × 64 × 64.");
  }
  return text.match(/\d+/g).map(Number);
}

// 4 digits for a reader; the test reads the full number from data-value
function show(value) {
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e7)) {
    return value.toExponential(3);
  }
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

function code(value) {
  return Number.isInteger(value) ? `${value}.0` : String(Number(value.toPrecision(6)));
}

// "0.1·D/(2·M)"
function formula(above, below) {
  const only = (list, other) => list.filter((f) => f === "B" ? !other.includes("B") : true);
  const [a, b] = [only(above, below), only(below, above)];
  const denominator = b.length > 1 ? `(${b.join("·")})` : b[0];
  return (a.join("·") || "1") + (b.length ? `/${denominator}` : "");
}

// Settings as strings, by field -> numbers. Throws Mend for the first field that makes no sense.
function calculate(s) {
  const kind = LIKELIHOODS[s.likelihood];
  const threshold = kind.threshold ?? s.likelihood;
  const weight = parseNumber("weight", s.weight);
  const klweight = parseNumber("klweight", s.klweight);
  const shape = parseShape(s.image);
  const m = parseNumber("m", s.m, { whole: true });
  const b = parseNumber("b", s.b, { whole: true });
  const low = parseNumber("low", s.low, { positive: false });
  const high = parseNumber("high", s.high, { positive: false });
  if (high <= low) throw new Mend("high", "The largest pixel must be above the smallest.");
  if (kind.unit && (low < 0 || high > 1)) {
    throw new Mend(low < 0 ? "low" : "high",
      "Cross-entropy needs pixels between 0 and 1: rescale them, or take squared error.");
  }
  const d = shape.reduce((product, n) => product * n, 1);
  const last = shape.at(-1);
  if (s.data !== "other" && d !== IMAGE) {
    throw new Mend("image", `${DATA[s.data].title} has 28 × 28 = ${IMAGE} pixels, not ${d}. ` +
      "For another size choose “my own: I type β*”.");
  }
  if (s.data !== "other" && kind.unit && (low !== 0 || high !== 1)) {
    throw new Mend("data", "β* of this data set is known for pixels from 0 to 1.");
  }

  const divisor = { sum: 1, mean: d, last }[s.pixels];
  const c = (weight * kind.error * (s.batch === "sum" ? b : 1)) / divisor;
  const kl = (klweight * (s.klbatch === "sum" ? b : 1)) / (s.latents === "mean" ? m : 1);
  const beta = kl / c;

  const names = { sum: [], mean: ["D"], last: [String(last)] }[s.pixels];
  const size = (value, list) => (value === 1 ? list : [show(value), ...list]);
  const error = size(weight, kind.error === 2 ? ["2"] : []);
  const rec = [...error, ...(s.batch === "sum" ? ["B"] : [])];
  const klb = size(klweight, s.klbatch === "sum" ? ["B"] : []);
  const per = s.latents === "mean" ? ["M"] : [];

  // A fixed variance is in squared pixel units; the other thresholds have no unit.
  const unit = threshold === "gaussian" ? (high - low) ** 2 : 1;
  let betaStar, budget;
  if (s.data === "other") {
    betaStar = parseNumber("betastar", s.betastar);
    budget = { "bernoulli": d * Math.LN2, "gaussian": (d * unit) / 8 }[threshold] ?? null;
  } else {
    [betaStar, budget] = DATA[s.data][threshold];
    betaStar *= unit;
    budget = budget === null ? null : budget * unit;
  }
  const sharp = threshold !== "continuous-bernoulli";
  return {
    d, m, c, beta, betaStar,
    cFormula: formula(rec, names),
    betaFormula: formula([...klb, ...names], [...error, ...per, ...(s.batch === "sum" ? ["B"] : [])]),
    sigma2: threshold === "gaussian" ? beta : null,
    std: threshold === "gaussian" ? Math.sqrt(beta) : null,
    range: high - low,
    budget: budget === null ? null : budget / beta,
    anyData: s.data === "other",
    verdict: beta > betaStar ? "collapses" : sharp ? "does not" : "unknown",
    ratio: beta / betaStar,
    threshold,
  };
}

// The loss to copy: sum, sum, mean, β = 1. Runs as it stands; the test audits it.
function corrected(result) {
  const { threshold, beta, range } = result;
  const torchSum = ".flatten(1).sum(1)  # sum over the pixels";
  const variance = `sigma2 = ${code(range ** 2)}  # in squared pixel units: choose it`;
  const learned = "# log_sigma2: a learned " + (threshold === "gaussian-shared"
    ? "scalar parameter" : "parameter, one for each pixel");
  const nll = {
    "bernoulli": {
      torch: ["import torch.nn.functional as F", "",
        "bce = F.binary_cross_entropy_with_logits(logits, x, reduction=\"none\")",
        `nll = bce${torchSum}`],
      keras: ["nll = ops.binary_crossentropy(x, logits, from_logits=True)"],
    },
    "gaussian": {
      torch: [variance, `nll = (0.5 * (x - x_hat) ** 2 / sigma2)${torchSum}`],
      keras: [variance, "nll = 0.5 * (x - x_hat) ** 2 / sigma2"],
    },
    "continuous-bernoulli": {
      torch: ["from torch.distributions import ContinuousBernoulli", "",
        `nll = -ContinuousBernoulli(logits=logits).log_prob(x)${torchSum}`],
      keras: ["near = ops.abs(logits) < 0.01  # 0 / 0 at 0: the series",
        "safe = ops.where(near, 1.0, logits)",
        "norm = ops.where(near, 2 + logits**2 / 6, safe / ops.tanh(safe / 2))",
        "bce = ops.binary_crossentropy(x, logits, from_logits=True)",
        "nll = bce - ops.log(norm)"],
    },
  }[threshold] ?? {
    torch: [learned,
      "nll = 0.5 * (x - x_hat) ** 2 / log_sigma2.exp() + 0.5 * log_sigma2",
      `nll = nll${torchSum}`],
    keras: [learned, "nll = 0.5 * (x - x_hat) ** 2 / ops.exp(log_sigma2)",
      "nll = nll + 0.5 * log_sigma2"],
  };
  const same = Math.abs(beta - (threshold === "gaussian" ? range ** 2 : 1)) < 1e-9 * beta;
  const yours = threshold === "gaussian"
    ? `sigma2 = ${code(beta)}` : `nll + ${code(beta)} * kl`;
  const note = same ? [] : [`# what you have now, up to the factor c: ${yours}`];
  return {
    torch: [...nll.torch,
      "kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var)",
      "kl = kl.sum(1)  # sum over the latents",
      ...note, "loss = (nll + kl).mean()  # mean over the batch"].join("\n"),
    keras: ["from keras import ops", "", ...nll.keras,
      "nll = ops.sum(nll, axis=tuple(range(1, nll.ndim)))  # sum over the pixels",
      "kl = 0.5 * (mu**2 + ops.exp(log_var) - 1 - log_var)",
      "kl = ops.sum(kl, axis=1)  # sum over the latents",
      ...note, "loss = ops.mean(nll + kl)  # mean over the batch"].join("\n"),
  };
}

function advice(c) {
  if (Math.abs(c - 1) < 1e-12) {
    return [["Every optimiser", "c = 1: leave the learning rate as it is."]];
  }
  const to = c < 1 ? `divide the learning rate by ${show(1 / c)}`
    : `multiply the learning rate by ${show(c)}`;
  const grow = c < 1 ? `multiply by ${show(1 / c)}` : `divide by ${show(c)}`;
  return [
    ["SGD, with or without momentum", `${to} (that is, times c)`],
    ["Adam, AdamW, RMSprop, Adagrad", "leave the learning rate as it is"],
    ["Gradient clipping, threshold", grow],
    ["L2 penalty added to the loss", `${grow}; AdamW's decoupled decay stays`],
  ];
}

function verdictText(r, title) {
  const than = `β = ${show(r.beta)} and β* = ${show(r.betaStar)}`;
  if (r.verdict === "unknown") {
    return `Cannot say. ${than}, but for the continuous Bernoulli β* is only an upper bound, ` +
      "ruled by pixels that are almost never on.";
  }
  const times = show(r.verdict === "collapses" ? r.ratio : 1 / r.ratio);
  const side = r.verdict === "collapses" ? "above" : "below";
  const near = Math.max(r.ratio, 1 / r.ratio) < 1.25 ? " Close: training is slow to decide here." : "";
  const text = r.verdict === "collapses" ? `Collapses on ${title}` : `Does not collapse on ${title}`;
  return `${text}: ${than}, a factor of ${times} ${side} the threshold.${near}`;
}

function start() {
  const form = document.getElementById("calculator");
  if (!form) return;
  const results = document.getElementById("calc-results");
  const verdict = document.getElementById("calc-verdict");
  const field = (name) => form.elements[name];
  const out = (name) => document.getElementById(`calc-${name}`);

  const read = () => Object.fromEntries(FIELDS.map((name) => [name, field(name).value]));

  const put = (name, text, value) => {
    out(name).textContent = text;
    out(name).dataset.value = value ?? "";
  };

  const complain = (error) => {
    for (const name of FIELDS) {
      const wrong = error !== null && error.field === name;
      document.getElementById(`${name}-error`).textContent = wrong ? error.message : "";
      field(name).setAttribute("aria-invalid", String(wrong));
    }
  };

  const update = () => {
    const settings = read();
    document.getElementById("betastar-row").hidden = settings.data !== "other";
    let r;
    try {
      r = calculate(settings);
    } catch (error) {
      if (!(error instanceof Mend)) throw error;
      complain(error);
      results.hidden = true;
      verdict.dataset.value = "";
      verdict.textContent = "One field makes no sense yet: its message says how to mend it.";
      return;
    }
    complain(null);
    results.hidden = false;
    put("c", `${r.cFormula} = ${show(r.c)}`, r.c);
    put("beta", `${r.betaFormula} = ${show(r.beta)}`, r.beta);
    if (r.sigma2 !== null) {
      put("sigma2", `${show(r.sigma2)} in squared pixel units`, r.sigma2);
      put("std", `${show(r.std)}: ${show(r.std / r.range)} times the range of a pixel`, r.std);
    } else {
      const learned = r.threshold.startsWith("gaussian-");
      const why = learned ? "the decoder learns it" : "none: this likelihood has no variance";
      put("sigma2", why);
      put("std", "—");
    }
    const whose = r.anyData ? "on any data with this range" : "at the optimum, any network";
    put("budget", r.budget === null ? "no bound for this likelihood"
      : `KL ≤ ${show(r.budget)} nats (${show(r.budget / Math.LN2)} bits) ${whose}`, r.budget);
    put("betastar", show(r.betaStar), r.betaStar);
    const title = r.anyData ? "your data" : DATA[settings.data].title;
    put("verdict", verdictText(r, title), r.verdict);
    verdict.dataset.margin = r.ratio;
    const rows = advice(r.c).map(([optimiser, text]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = optimiser;
      row.append(head, Object.assign(document.createElement("td"), { textContent: text }));
      return row;
    });
    out("advice").replaceChildren(...rows);
    const lines = corrected(r);
    out("torch").textContent = lines.torch;
    out("keras").textContent = lines.keras;
    // The fragment, because a page opened from a folder may change nothing else of its address.
    try {
      history.replaceState(null, "", `#${new URLSearchParams(settings)}`);
    } catch {
      // a browser that forbids even that: the page works, the link is not kept up to date
    }
  };

  const restore = () => {
    const shared = new URLSearchParams(location.hash.slice(1));
    const ignored = [];
    for (const [name, value] of shared) {
      if (!FIELDS.includes(name)) continue;
      const input = field(name);
      const known = input.options ? [...input.options].some((o) => o.value === value) : true;
      if (known) input.value = value;
      else ignored.push(`${name}=${value}`);
    }
    out("share").textContent = ignored.length
      ? `The link says ${ignored.join(", ")}, which is no choice here: left as it was.` : "";
    update();
  };

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("calc-reset").addEventListener("click", () => {
    form.reset();
    update();
  });
  document.getElementById("calc-copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      out("share").textContent = "The link is in the clipboard.";
    } catch {
      out("share").textContent = `Copy it from the address bar: ${location.href}`;
    }
  });
  window.addEventListener("hashchange", restore);
  form.hidden = false;
  restore();
}

document.addEventListener("DOMContentLoaded", start);
