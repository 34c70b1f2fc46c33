"""Take the run times of the last test run over into data/run-times.json, which the site shows.

`python tools/times.py`, which is `make times`; conftest.py measures.
"""

import json

import site_check

ROOT = site_check.ROOT
MEASURED = "_build/run-times.json"
COMMITTED = "data/run-times.json"


def merged(old: dict, new: dict, notebooks: set[str]) -> dict:
    """The new measurement; what it lacks is kept from the old one if that was on the same terms.

    >>> old = {"machine": "m", "notebooks": {"a": 1, "b": 2, "gone": 3}}
    >>> merged(old, {"machine": "m", "notebooks": {"a": 4}}, {"a", "b"})
    {'machine': 'm', 'notebooks': {'a': 4, 'b': 2}}
    >>> merged(old, {"machine": "another", "notebooks": {"a": 4}}, {"a", "b"})
    {'machine': 'another', 'notebooks': {'a': 4}}
    """

    def terms(measured: dict) -> dict:
        return {key: measured[key] for key in measured if key not in ("date", "notebooks")}

    kept = old["notebooks"] if old and terms(old) == terms(new) else {}
    rows = {name: row for name, row in {**kept, **new["notebooks"]}.items() if name in notebooks}
    return {**new, "notebooks": dict(sorted(rows.items()))}


def main() -> None:
    path = ROOT / COMMITTED
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    new = json.loads((ROOT / MEASURED).read_text(encoding="utf-8"))
    notebooks = {p.relative_to(ROOT).as_posix() for p in (ROOT / "book").rglob("*.ipynb")}
    measured = merged(old, new, notebooks)
    path.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    missing = sorted(notebooks - set(measured["notebooks"]))
    print(f"{COMMITTED}: {len(measured['notebooks'])} notebooks", *missing, sep="\nnot measured: ")


if __name__ == "__main__":
    main()
