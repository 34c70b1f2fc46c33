"""Fuzz the reader of IDX files: `make fuzz`, or `python tools/fuzz.py --help`.

Two engines, 100,000 inputs each. Hypothesis makes files of the format and damages them. Atheris
changes bytes and keeps what reaches new lines of the reader; it is no dependency of the book: where
there is a wheel of it (Linux, Python up to 3.13), `.venv/bin/python -m pip install atheris`.

Of each input the reader must make the array that its header announces, or a DataError; no other
exception, no array that differs, no refusal of a file that is as it should be. Exit status 1
otherwise.
"""

import argparse
import gzip
import importlib.util
import math
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ATHERIS = "--runs-in-atheris"  # how this script calls itself: libFuzzer ends the process
if ATHERIS in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["sumormean.data"]):
        from sumormean.data import DataError, read_idx
    from sumormean.data.idx import MAX_BYTES
else:
    from sumormean.data import DataError, read_idx
    from sumormean.data.idx import MAX_BYTES

SLOW = 5.0  # seconds for one input


def unpacked(content: bytes, limit: int) -> bytes | None:
    """What zlib makes of gzip members, one after the other; None if it is not gzip, or longer."""
    raw = b""
    while content:
        member = zlib.decompressobj(wbits=31)
        try:
            raw += member.decompress(content, limit + 1 - len(raw))
        except zlib.error:
            return None
        if not member.eof or len(raw) > limit:
            return None
        content = member.unused_data.lstrip(b"\0")  # padding is allowed
    return raw


def announced(raw: bytes) -> tuple[int, ...] | None:
    """The shape in the header of an IDX file of bytes; None if there is none."""
    if raw[:3] != b"\0\0\x08" or len(raw) < 4 or raw[3] not in (1, 2, 3):
        return None
    if len(raw) < 4 + 4 * raw[3]:
        return None
    return struct.unpack_from(f">{raw[3]}I", raw, 4)


def examine(content: bytes, path: Path) -> bool:
    """Whether the reader accepts a file with this content; an exception if it may not say so."""
    path.write_bytes(content)
    raw = unpacked(content, 10**6)
    shape = announced(raw or b"")
    size = math.prod(shape) if shape else 0
    good = shape is not None and 0 < size == len(raw) - 4 - 4 * len(shape)
    started = time.monotonic()
    try:
        array = read_idx(path)
    except DataError as error:
        message = str(error)
        assert not good, f"refused, though it is as it should be: {message}"
        assert message.startswith(f"{path}: ") and "\n" not in message, message
        array = None
    assert time.monotonic() - started < SLOW, "too slow"
    if array is None:
        return False
    # What zlib refuses and Python's gzip takes: a wrong sum of gzip's own header, reserved bits.
    raw = gzip.decompress(content)
    shape = announced(raw)
    assert array.shape == shape and array.dtype == "uint8" and array.size <= MAX_BYTES
    assert array.tobytes() == raw[4 + 4 * len(shape) :], "another array than in the file"
    return True


# Hypothesis


def idx(dims: list[int], body: bytes, kind: int = 8, count: int | None = None) -> bytes:
    count = len(dims) if count is None else count
    return struct.pack(f">HBB{len(dims)}I", 0, kind, count, *dims) + body


NUMBERS = st.integers(0, 6) | st.sampled_from([255, 10**9, 2**31, 2**32 - 1]) | st.integers(0, 9999)
BYTE = st.integers(0, 255)


@st.composite
def valid(draw) -> bytes:
    dims = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    size = math.prod(dims)
    return idx(dims, draw(st.binary(min_size=size, max_size=size)))


@st.composite
def nearly_valid(draw) -> bytes:
    """A header of the right length or not, and a body that fits, nearly fits, or does not."""
    dims = draw(st.lists(NUMBERS, max_size=4))
    size = math.prod(dims) if dims else 0
    body = bytes(max(0, min(size, 300) + draw(st.integers(-2, 2)))) or draw(st.binary(max_size=20))
    kind = draw(st.sampled_from([8, 8, 8, 8, 9, 13]) | BYTE)
    return idx(dims, body, kind, draw(st.none() | st.none() | st.none() | BYTE))


@st.composite
def packed(draw, contents) -> bytes:
    """Gzip, in one member or more, perhaps with padding."""
    raw = draw(contents)
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=2)))
    level = draw(st.sampled_from([0, 1, 9]))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    members = b"".join(gzip.compress(piece, level, mtime=0) for piece in pieces)
    return members + bytes(draw(st.sampled_from([0, 0, 0, 1, 600])))


@st.composite
def damaged(draw, contents) -> bytes:
    """Bytes changed, put in, taken out, or cut off."""
    content = bytearray(draw(contents))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from("change put take cut bit".split())):
            case "change":
                content[at : at + 1] = bytes([draw(BYTE)])
            case "put":
                content[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "take":
                del content[at : at + draw(st.integers(1, 8))]
            case "cut":
                del content[at:]
            case "bit" if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def bombs() -> list[bytes]:
    """Files of some kB that unpack to 32 MB, whatever their headers announce."""
    headers = (idx([4], b""), idx([2, 28, 28], b""), idx([10**9], b""), idx([2**32 - 1] * 3, b""))
    zeros = bytes(32 * 2**20)
    made = [gzip.compress(header + zeros, 9, mtime=0) for header in headers]
    return [*made, gzip.compress(zeros, 9, mtime=0), gzip.compress(idx([4], bytes(4))) + made[0]]


def inputs() -> st.SearchStrategy[bytes]:
    good, near, bomb = packed(valid()), packed(nearly_valid()), st.sampled_from(bombs())
    return st.one_of(
        good,
        near,
        damaged(good),
        damaged(near),
        packed(damaged(valid())),
        bomb,
        damaged(bomb),
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda raw: gzip.compress(raw, mtime=0)),
        valid(),
    )


def with_hypothesis(number: int, first_seed: int, path: Path) -> None:
    verdicts = {True: 0, False: 0}
    for attempt in range(100):  # Hypothesis may stop before it has made so many
        missing = number - sum(verdicts.values())
        if missing <= 0:
            break

        @seed(first_seed + attempt)
        @settings(
            max_examples=missing,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs())
        def fuzz(content):
            verdicts[examine(content, path)] += 1

        fuzz()
    report("Hypothesis", verdicts)


# Atheris


def with_atheris(number: int, first_seed: int, path: Path) -> None:
    verdicts = {True: 0, False: 0}
    reported = False

    def fuzz(content: bytes) -> None:
        """The first byte chooses: as it is, packed, or packed and one byte changed."""
        nonlocal reported
        mode, rest = content[0] % 4 if content else 0, content[1:]
        if mode == 3 and len(rest) >= 2:
            changed = bytearray(gzip.compress(rest[2:], mtime=0))
            changed[rest[0] % len(changed)] = rest[1]
            rest = bytes(changed)
        elif mode in (1, 2):
            rest = gzip.compress(rest, mtime=0)
        verdicts[examine(rest, path)] += 1
        if sum(verdicts.values()) == number and not reported:
            reported = True
            report("Atheris", verdicts)

    corpus = path.parent / "corpus"
    corpus.mkdir()
    for i, dims in enumerate(([7], [2, 3], [1, 4, 4])):
        raw = idx(dims, bytes(range(math.prod(dims))))
        (corpus / f"packed-{i}").write_bytes(b"\1" + raw)
        (corpus / f"as-it-is-{i}").write_bytes(b"\0" + gzip.compress(raw, mtime=0))
        (corpus / f"changed-{i}").write_bytes(b"\3\x09\xff" + raw)
    options = [f"-runs={number}", f"-seed={first_seed}", "-max_len=400", "-verbosity=0"]
    options += [f"-artifact_prefix={path.parent}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], fuzz)
    atheris.Fuzz()  # does not return


def report(engine: str, verdicts: dict[bool, int]) -> None:
    print(
        f"{engine}: {sum(verdicts.values()):,} inputs, {verdicts[True]:,} accepted, "
        f"{verdicts[False]:,} refused, no finding; {time.monotonic() - STARTED:.0f} s",
        flush=True,
    )


STARTED = time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="for each engine")
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], help="one of them alone")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="to repeat a run")
    parser.add_argument(ATHERIS, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz-idx3-ubyte.gz"
        if options.runs_in_atheris:
            with_atheris(options.inputs, options.seed, path)
        print(f"{options.inputs:,} inputs for each engine, --seed {options.seed}", flush=True)
        if options.engine != "atheris":
            with_hypothesis(options.inputs, options.seed, path)
        if options.engine == "hypothesis":
            return 0
        if importlib.util.find_spec("atheris") is None:
            print("Atheris is not installed; the head of this file says how to.")
            return options.engine == "atheris"
        command = [sys.executable, __file__, ATHERIS, "--inputs", str(options.inputs)]
        return bool(subprocess.run([*command, "--seed", str(options.seed)]).returncode)


if __name__ == "__main__":
    sys.exit(main())
