"""Do the notebooks run where a reader launches them: on Binder, and on Colab?

`python tools/launch.py colab NOTEBOOK` and `… binder NOTEBOOK…` do here what those services
do, in environments of their own that are made anew: minutes, and two gigabytes of disk for a while.
`make launch` runs both. Colab's part needs pip's index, as Colab has it; its git address is played
by a local repository. Prints what was run, how long it took and the peak memory; exits 1 if a cell
fails or prints something other than what is committed.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import nbformat
import psutil
import site_check
import stamp
import websocket

ROOT = site_check.ROOT
REPOSITORY = "https://github.com/someone/sum-or-mean"
ADDRESS = stamp.git_address(REPOSITORY)
BINDER_BYTES = 2e9  # mybinder.org stops whoever takes more
BINDER_PYTHON = (3, 11)  # binder/runtime.txt
COLAB = "ipykernel keras matplotlib nbconvert pooch scikit-learn scipy torch tqdm".split()
TOKEN = uuid.uuid4().hex


# A clone, and what stands in for the address of one


def tracked_files() -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and (ROOT / name).is_file()]


def clone(folder: Path) -> Path:
    """A repository in `folder` with the tracked files of this checkout as they are now."""
    for name in tracked_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
        (folder / name).chmod((ROOT / name).stat().st_mode)
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["-c", "user.name=nobody", "-c", "user.email=", "commit", "--quiet", "-m", "As it is now"],
    ):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def git_finds(repository: Path) -> dict[str, str]:
    """Environment in which git finds this folder at REPOSITORY."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }


def without_this_checkout(**more: str) -> dict[str, str]:
    """The environment, less what could make the library importable or choose a kernel."""
    hide = ("PYTHONPATH", "VIRTUAL_ENV", "JUPYTER_PATH", "JUPYTER_DATA_DIR", "KERAS_BACKEND")
    return {**{k: v for k, v in os.environ.items() if k not in hide}, **more}


# A server, and a reader who opens a notebook on it and runs all cells


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(address: str, method: str = "GET", body: dict | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(address, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.read()


@contextlib.contextmanager
def serving(command: list[str], port: int, log: Path, **options):
    """The address and process of a Jupyter server, started by `command` and stopped in the end."""
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
    try:
        end = time.monotonic() + 300
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                ask(f"{address}/api/status")
                break
            time.sleep(0.2)
        yield address, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def session(address: str, path: str):
    """A function that runs code in a kernel opened for this notebook and returns its outputs."""
    body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
    opened = json.loads(ask(f"{address}/api/sessions", "POST", body))
    channels = f"{address}/api/kernels/{opened['kernel']['id']}/channels".replace("http", "ws", 1)
    who = [f"Authorization: token {TOKEN}"]
    socket_ = websocket.create_connection(channels, header=who, timeout=600)

    def run(code: str) -> list[dict]:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "username": "",
            "session": opened["id"],
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        socket_.send(json.dumps({**request, "channel": "shell", "buffers": []}))
        outputs, waiting = [], {"idle", "reply"}
        while waiting:
            message = json.loads(socket_.recv())
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != header["msg_id"]:
                assert content.get("execution_state") not in ("dead", "restarting"), "kernel died"
            elif kind in ("stream", "display_data", "execute_result", "error"):
                outputs.append({"output_type": kind, **content})
            elif kind == "execute_reply":
                waiting.discard("reply")
            elif kind == "status" and content["execution_state"] == "idle":
                waiting.discard("idle")
        return outputs

    try:
        yield run
    finally:
        socket_.close()
        ask(f"{address}/api/sessions/{opened['id']}", "DELETE")


def printed(outputs: list[dict]) -> str:
    """All text of a cell but stderr."""
    return "".join(
        o.get("text", "") if o["output_type"] == "stream" else o["data"].get("text/plain", "")
        for o in outputs
        if o["output_type"] in ("stream", "display_data", "execute_result")
        and o.get("name") != "stderr"
    )


def differences(run, notebook) -> list[str]:
    """Run all cells: which one fails, or prints other text than is committed? As nbval compares."""
    wrong = []
    for cell in notebook.cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        outputs = run(cell.source)
        for error in (o for o in outputs if o["output_type"] == "error"):
            return [*wrong, f"{cell.source}\n{error['ename']}: {error['evalue']}"]
        if "nbval-ignore-output" not in cell.metadata.get("tags", []):
            got, committed = printed(outputs), printed(cell.outputs)
            if got != committed:
                wrong.append(f"{cell.source}\nprinted {got!r}\ninstead of {committed!r}")
    return wrong


@contextlib.contextmanager
def peak_memory(process: subprocess.Popen):
    """A list whose only entry becomes the most bytes this process and its children had at once.

    Shared pages are counted once (PSS), as the limit of a container counts them. Linux only.
    """
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.5):
            total = 0
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                for one in [parent, *parent.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        total += one.memory_full_info().pss
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


# Binder: what repo2docker does with binder/, from the root of a clone


def make_environment(folder: Path) -> Path:
    """A new environment; the folder of its commands."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin"


def binder(notebooks: list[str], folder: Path) -> bool:
    if sys.version_info[:2] != BINDER_PYTHON:
        print(f"(Binder has Python {BINDER_PYTHON[0]}.{BINDER_PYTHON[1]}; this is not it.)")
    repository, commands = clone(folder / "clone"), make_environment(folder / "venv")
    # repo2docker's home is the clone, and JupyterLab is there before the requirements are.
    environment = without_this_checkout(
        HOME=str(repository), PATH=f"{commands}{os.pathsep}{os.environ['PATH']}"
    )
    requirements = ["--no-cache-dir", "-r", "binder/requirements.txt"]
    for command in (
        [commands / "pip", "install", "--quiet", "-c", "constraints.txt", "jupyterlab"],
        [commands / "pip", "install", "--quiet", *requirements],
        [commands / "pip", "check"],
        ["binder/postBuild"],
    ):
        subprocess.run(list(map(str, command)), cwd=repository, env=environment, check=True)
    return run_on_binder(notebooks, repository, environment, folder / "server.log")


def run_on_binder(notebooks: list[str], repository: Path, environment: dict, log: Path) -> bool:
    """Start the server as Binder does and run the notebooks on it, one after the other."""
    port = free_port()
    options = [f"--ServerApp.port={port}", "--no-browser", f"--IdentityProvider.token={TOKEN}"]
    if os.name == "posix" and os.geteuid() == 0:
        options.append("--allow-root")
    good = True
    with serving(
        ["binder/start", "jupyter", "lab", *options],
        port,
        log,
        cwd=repository,
        env=environment,
    ) as (address, process):
        for path in notebooks:
            ask(f"{address}/lab/tree/{path}")  # the page that Binder's button opens
            notebook = nbformat.read(repository / path, as_version=4)
            start = time.monotonic()
            with peak_memory(process) as peak, session(address, path) as run:
                wrong = differences(run, notebook)
            seconds = time.monotonic() - start
            good = good and not wrong and peak[0] < BINDER_BYTES
            print(
                f"{path}: {seconds:.0f} s, {peak[0] / 1e9:.2f} GB", *wrong, sep="\n  ", flush=True
            )
    return good


# Colab: a notebook alone, in an environment that has torch and not the library


def colab(notebook: str, folder: Path) -> bool:
    repository, commands = clone(folder / "clone"), make_environment(folder / "venv")
    pinned = ["-c", str(ROOT / "constraints.txt"), *COLAB]
    subprocess.run([commands / "pip", "install", "--quiet", *pinned], check=True)
    return run_on_colab(notebook, repository, commands, folder)


def run_on_colab(notebook: str, repository: Path, commands: Path, folder: Path) -> bool:
    """Stamp a copy of the notebook, run it alone, and compare what is installed with before."""
    alone = folder / "alone" / Path(notebook).name
    alone.parent.mkdir(parents=True)
    alone.write_bytes((ROOT / notebook).read_bytes())
    stamp.set_stamp(alone, ADDRESS)
    before = packages(commands)
    start = time.monotonic()
    subprocess.run(
        [commands / "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", alone],
        env=without_this_checkout(**git_finds(repository)),
        cwd=alone.parent,
        check=True,
    )
    seconds, after = time.monotonic() - start, packages(commands)
    new = sorted(after - before)
    print(f"{notebook}: {seconds:.0f} s; installed {', '.join(new)}; removed {before - after}")
    return [name.partition(" ")[0] for name in new] == ["vaeloss"] and before < after


def packages(commands: Path) -> set[str]:
    """'name version' of all that is installed there."""
    command = [commands / "pip", "list", "--format", "json", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {f"{p['name']} {p['version']}" for p in json.loads(done.stdout)}


def main(arguments: list[str]) -> int:
    where, *notebooks = arguments
    with tempfile.TemporaryDirectory() as folder:
        if where == "binder":
            return not binder(notebooks, Path(folder))
        return not all([colab(n, Path(tempfile.mkdtemp(dir=folder))) for n in notebooks])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
