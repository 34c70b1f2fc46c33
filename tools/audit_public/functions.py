"""``audit_loss`` on losses of public repositories as they stand, from snapshots of them.

``python tools/audit_public/functions.py FOLDER`` reads the snapshot of github.com/owner/name from
the git directory FOLDER/owner+name/repo, which is cloned if it is not there; what cannot be had is
a row of its own, "absent". ``--python jax=PATH`` names an environment for the losses of JAX. The
rows go to data/public-audit.json; nothing else of any repository is kept.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]
ROOT = TOOLS.parent
RESULTS = ROOT / "data" / "public-audit.json"
KIND = "function"  # the rows in the file that are replaced
NEAR = 1e-4  # the auditor's own tolerance


def snapshot(folder: Path, name: str) -> Path | None:
    """The git directory of github.com/owner/name, cloned on first use; None if it cannot be had."""
    place = folder / name.replace("/", "+") / "repo"
    if not place.exists():
        address = f"https://github.com/{name}"
        command = ["git", "clone", "--quiet", "--bare", "--depth=1", address, str(place)]
        if subprocess.run(command, capture_output=True, timeout=600).returncode:
            return None
    return place


def checked_out(place: Path, target: Path, tops: set[str]) -> str:
    """Write the text below these names of a snapshot into a folder; its commit."""
    listed = subprocess.run(
        ["git", "-C", place, "ls-tree", "-r", "--name-only", "HEAD"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    listed = [name for name in listed if name.partition("/")[0] in tops]
    wanted = [name for name in listed if name.endswith((".py", "cvae.ipynb"))]
    for name in wanted:
        text = subprocess.run(
            ["git", "-C", place, "show", f"HEAD:{name}"], capture_output=True
        ).stdout
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    head = subprocess.run(
        ["git", "-C", place, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return head.stdout.strip()[:12]


def judged(case, commit: str, told: dict) -> dict:
    """A row: right; refused, where there is an answer; or misleading."""
    finite = {k: v for k, v in told.items() if isinstance(v, float) and math.isfinite(v)}
    truth = {"c": case.c, "beta": case.beta}
    same = {
        k: (k not in finite) if true is None
        else k in finite and math.isclose(finite[k], true, rel_tol=NEAR)
        for k, true in truth.items()
    }  # fmt: skip
    false = any(k in finite and not same[k] for k in truth)
    said = not case.say or bool(set(case.say) & set(told["findings"]))
    right = all(same.values()) and said
    return {
        "package": case.repository,
        "version": commit,
        "what": f"{case.path}: {case.what}",
        "derivation": case.derivation,
        "truth": {**truth, "say": list(case.say)},
        "found": {
            **{k: float(f"{finite[k]:.8g}") if k in finite else None for k in ("c", "beta")},
            "kl_weight": finite.get("kl_weight"),
            "findings": told["findings"],
        },
        "verdict": "misleading" if false else "right" if right else "refused",
    }


def run_one(repository: str, folder: str, commit: str) -> None:
    """Print a line of JSON for each case of a repository; in an environment that can run it."""
    from audit_public.function_cases import CASES
    from vaeloss.audit import AuditError, audit_loss

    for case in CASES:
        if case.repository != repository:
            continue
        try:
            loss_fn = case.load(Path(folder))
            found = audit_loss(loss_fn, **case.sizes)
            told = {"c": found.c, "beta": found.beta, "kl_weight": found.kl_weight}
            codes = {f.code for f in found.findings} - {"multiply-kl", "learning-rate"}
            told["findings"] = sorted(codes)
        except AuditError as error:
            told = {"findings": [f"error: {str(error)[:160]}"]}
        except ImportError as error:
            row = judged(case, commit, {"findings": [f"error: {error}"]})
            print("ROW " + json.dumps({**row, "verdict": "absent"}), flush=True)
            continue
        print("ROW " + json.dumps(judged(case, commit, told), ensure_ascii=False), flush=True)


def rows_of(repository: str, cases: list, folder: Path, pythons: dict) -> list[dict]:
    """The rows of a repository, from a process of its own."""
    row = {"package": repository, "version": "", "what": "all of it"}
    place = snapshot(folder, repository)
    if place is None:
        return [{**row, "found": {"why": "no snapshot"}, "verdict": "absent"}]
    with tempfile.TemporaryDirectory() as target:
        commit = checked_out(place, Path(target), {case.path.partition("/")[0] for case in cases})
        program = (
            f"import sys; sys.path[:0] = {[str(ROOT), str(TOOLS)]!r}\n"
            "from audit_public.functions import run_one\n"
            f"run_one({repository!r}, {target!r}, {commit!r})"
        )
        command = [pythons.get(cases[0].framework, sys.executable), "-W", "ignore", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    found = [
        json.loads(line.removeprefix("ROW "))
        for line in done.stdout.splitlines()
        if line.startswith("ROW ")
    ]
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        found.append({**row, "version": commit, "found": {"why": why}, "verdict": "broken"})
    return found


def main() -> int:
    """1 if a row misleads, or a case is broken."""
    sys.path[:0] = [str(ROOT), str(TOOLS)]
    from audit_public.function_cases import CASES

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with the snapshots, or for them")
    parser.add_argument("repositories", nargs="*", help="default: all")
    parser.add_argument(
        "--python", action="append", default=[], metavar="FRAMEWORK=PATH", help="jax, tensorflow"
    )
    args = parser.parse_args()
    pythons = dict(each.split("=", 1) for each in args.python)
    known = {case.repository: [] for case in CASES}
    for case in CASES:
        known[case.repository].append(case)
    rows = []
    for repository in args.repositories or known:
        rows += (new := rows_of(repository, known[repository], args.folder, pythons))
        for row in new:
            found, truth = row["found"], row.get("truth", {})
            told = found.get("why") or f"β {found['beta']} ({truth['beta']})"
            print(f"{row['verdict']:10} {repository:28} {row['what'][:70]:70} {told}", flush=True)
    names = {row["package"] for row in rows}
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    kept = [r for r in kept if r["kind"] != KIND or r["package"] not in names]
    merged = [*kept, *({**row, "kind": KIND} for row in rows)]
    merged.sort(key=lambda row: (row["kind"], row["package"]))
    text = json.dumps({"rows": merged}, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    counts = Counter(row["verdict"] for row in rows)
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()))
    return int(counts["misleading"] + counts["broken"] > 0)


if __name__ == "__main__":
    sys.exit(main())
