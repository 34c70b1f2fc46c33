"""The auditor on public code: each package in an environment of its own, one table, one file.

``make audit-public``, or ``python tools/audit_public/run.py pythae pyro`` for some packages. What
cannot be installed here is a row of its own, "absent". It takes a quarter of an hour and a
few gigabytes below ``_build/audit-public``, and no part of any package is kept in the repository.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]
ROOT = TOOLS.parent
RESULTS = ROOT / "data" / "public-audit.json"
ENVIRONMENTS = ROOT / "_build" / "audit-public"
KIND = "step"  # the rows in the file that are replaced


def environment(name: str, requirement: str) -> tuple[Path | None, str]:
    """The Python of an environment that has this package and our torch; or why there is none."""
    home = ENVIRONMENTS / name
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        site = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
        ours = sysconfig.get_path("purelib")  # torch is large: every environment uses this one
        Path(site, "ours.pth").write_text(ours + "\n", encoding="utf-8")
        install = [python, "-m", "pip", "install", "--quiet", requirement]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            return None, _last(done.stderr)
        (home / "ready").touch()
    return python, ""


def rows_of(name: str, requirement: str) -> list[dict]:
    """What the auditor said of each loss of this package."""
    from audit_public.rows import unfinished
    from audit_public.steps import MARK

    python, problem = environment(name, requirement)
    if python is None:
        return [unfinished(name, "absent", f"not installed: {problem}")]
    variables = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{TOOLS}",
        "PYTHONWARNINGS": "ignore",
    }
    command = [python, "-W", "ignore", "-m", "audit_public.steps", name]
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    found = [
        json.loads(line.removeprefix(MARK))
        for line in done.stdout.splitlines()
        if line.startswith(MARK)
    ]
    if done.returncode:
        found.append(unfinished(name, "broken", _last(done.stderr)))
    return found


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return (errors or lines or ["no message"])[-1][:200].replace(str(ROOT), "")


def table(rows: list[dict]) -> str:
    """The rows for people."""
    lines = []
    for row in rows:
        found, truth = row["found"], row.get("truth", {})
        told = found.get("why") or "  ".join(
            f"{name} {_number(found[name])} ({_number(truth[name])})" for name in ("c", "beta")
        )
        lines.append(f"{row['verdict']:10}  {row['package']:22} {row['what']:52} {told}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def main() -> int:
    """1 if a row misleads, or a case is broken."""
    sys.path[:0] = [str(ROOT), str(TOOLS)]
    from audit_public import step_cases  # noqa: F401  registers the packages
    from audit_public.steps import PACKAGES

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", help="default: all")
    names = parser.parse_args().packages or list(PACKAGES)
    rows = []
    for name in names:
        start = time.monotonic()
        rows += (new := rows_of(name, PACKAGES[name][0]))
        print(table(new), f"  [{time.monotonic() - start:.0f} s]", sep="\n", flush=True)
    for row in rows:
        row["kind"] = KIND
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    kept = [r for r in kept if r["kind"] != KIND or r["package"] not in names]
    merged = sorted([*kept, *rows], key=lambda row: (row["kind"], row["package"]))
    text = json.dumps({"rows": merged}, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    counts = Counter(row["verdict"] for row in rows)
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()))
    return int(counts["misleading"] + counts["broken"] > 0)


if __name__ == "__main__":
    sys.exit(main())
