"""`make claims`: every claim of the book for five seeds and the three data sets, in an hour or two.

Each notebook is executed 15 times, with another `SEED` and with another set in place of the first
that it loads; with `--seeds 1` three times, once on each set. The full product is made before a
release. How often a claim held and its smallest margin go to data/claims.json, from where the
page "What this book claims" takes them. Exit status 1 if a claim failed anywhere.

    python tools/claims.py [--seeds 5] [notebook ...]
"""

import argparse
import itertools
import json
import os
import sys
from pathlib import Path

import joblib
import running
from tqdm import tqdm

SEEDS = 5
TABLE = running.ROOT / "data" / "claims.json"
WORKERS = 2


def one_run(notebook: str, name: str, seed: int) -> tuple[str, list[dict]]:
    """The notebook, and its claims in one execution; any other error is one that does not hold."""
    from sumormean import data

    really, loaded = data.load, []

    def load(asked: str, fallback: str | None = None):
        loaded.append(really(running.INSTEAD[name].get(asked, asked), fallback))
        return loaded[-1]

    margins = running.Margins()
    data.load = load
    try:
        cells = running.run_notebook(
            notebook,
            {"_margins": margins},
            lambda tree: running.record_margins(running.set_seed(seed)(tree)),
        )
    finally:
        data.load = really
    found = margins.found
    if cells[-1].error:
        last = f"cell {cells[-1].id}: {cells[-1].error}"
        found.append({"claim": last, "holds": False, "margin": None})
    first = loaded[0].name if loaded else name
    return notebook, [{**claim, "data": first, "seed": seed} for claim in found]


def summary(claims: list[dict]) -> list[dict]:
    """One entry per sentence: in how many runs it was claimed, in how many it held, the margin."""
    rows = []
    for sentence in dict.fromkeys(c["claim"] for c in claims):
        made = [c for c in claims if c["claim"] == sentence and c["holds"] is not None]
        runs = {(c["data"], c["seed"]) for c in made}
        failed = sorted({(c["data"], c["seed"]) for c in made if not c["holds"]})
        row = {"claim": sentence, "runs": len(runs), "held": len(runs) - len(failed)}
        least = min(
            (c for c in made if running.is_finite(c["margin"])),
            key=lambda c: c["margin"],
            default=None,
        )
        if least:
            row |= {"margin": float(f"{least['margin']:.2g}"), "data": least["data"]}
            row |= {"seed": least["seed"]}
        if failed:
            row["failed"] = [f"{name}, seed {seed}" for name, seed in failed]
        rows.append(row)
    return rows


def write(notebook: str, rows: list[dict]) -> None:
    """Put a notebook's rows into the table; the others stay, but for notebooks that are gone.

    Each row has its number of runs: other notebooks may have been run with fewer seeds.
    """
    known = json.loads(TABLE.read_text(encoding="utf-8"))["notebooks"] if TABLE.exists() else {}
    known[notebook] = rows
    table = {
        "command": "make claims",
        "sets": list(running.SETS),
        "notebooks": {n: known[n] for n in running.NOTEBOOKS if n in known},
    }
    # One line per claim, so that a change of one is a change of one line.
    text = json.dumps(table, indent=1, ensure_ascii=False)
    text = text.replace("\n    ", " ").replace("\n   }", " }")
    TABLE.write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="all, if none is named")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many (default: %(default)s)")
    asked = parser.parse_args(arguments)
    if asked.seeds < 1:
        parser.error("--seeds is at least 1")
    chosen = [os.path.relpath(Path(path).resolve(), running.ROOT) for path in asked.notebooks]
    if unknown := set(chosen) - set(running.NOTEBOOKS):
        sys.exit(f"no notebook of the book: {', '.join(sorted(unknown))}")
    chosen = chosen or running.NOTEBOOKS
    runs = list(itertools.product(chosen, running.SETS, range(asked.seeds)))
    claims: dict[str, list[dict]] = {notebook: [] for notebook in chosen}
    waiting = dict.fromkeys(chosen, len(running.SETS) * asked.seeds)
    failures = 0
    pool = joblib.Parallel(n_jobs=WORKERS, return_as="generator_unordered", batch_size=1)
    results = pool(joblib.delayed(one_run)(*run) for run in runs)
    for notebook, found in tqdm(results, total=len(runs), unit="run"):
        claims[notebook] += found
        waiting[notebook] -= 1
        if waiting[notebook]:
            continue
        rows = summary(claims[notebook])
        write(notebook, rows)
        print(f"\n{notebook}: {len(rows)} claims", flush=True)
        for row in rows:
            if "failed" in row:
                failures += 1
                print(f"  FAILED {row['claim']}\n         {row}", flush=True)
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
