"""A `python` for scripts, each call of which is a fork of one process that has torch imported.

Importing torch takes about 2.5 s of CPU, an optimiser another 1.4 s, and the recipe starts Python
some fifty times. The process that forks has imported libraries alone, nothing of the project.

    with forked_python(folder) as path:  # a folder for PATH
        subprocess.run(["bash", "run_distill.sh"], env={"PATH": f"{path}:/usr/bin"})

Calls of `python -m MODULE` and `python FILE` are forked; any other is a Python of its own.
"""

import atexit
import contextlib
import gc
import importlib
import json
import multiprocessing.process
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    *("numpy", "yaml", "soundfile", "matplotlib.pyplot", "torch", "torch._dynamo", "torchaudio"),
    "torch.utils.tensorboard",
)
MOST_BYTES = 1 << 20
# It locks a file handle of its shell's; the fork gets standard input, output and error alone.
OF_THEIR_OWN = {"wekws.bin.hold_folder"}


@contextlib.contextmanager
def forked_python(folder: Path) -> Iterator[Path]:
    """Write ``folder/python``, which works until the context ends; yield the folder.

    On macOS, where forks of such a process are not safe, yield the folder of the Python that runs.
    """
    if sys.platform == "darwin":
        yield Path(sys.executable).parent
        return
    place, own = str(folder / "socket"), shlex.quote(sys.executable)
    script = f'exec {own} -SE {shlex.quote(__file__)} {own} {shlex.quote(place)} "$@"\n'
    (folder / "python").write_text(f"#!/usr/bin/env bash\n{script}")
    (folder / "python").chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        command = [sys.executable, __file__, "--serve", str(listener.fileno())]
        server = subprocess.Popen(command, env=env, pass_fds=[listener.fileno()])
    try:
        yield folder
    finally:
        server.terminate()
        server.wait()


def call(python: str, place: str, words: list[str]) -> int:
    """Have a call forked, wait for its end and return its status."""
    module = words[1] if words[:1] == ["-m"] and len(words) > 1 else ""
    if module in OF_THEIR_OWN or not (module or words and words[0].endswith(".py")):
        os.execv(python, [python, *words])
    request = json.dumps({"words": words, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(place)
        header = len(request).to_bytes(4, "big")
        socket.send_fds(server, [header], [0, 1, 2])
        server.sendall(request)
        answer = server.recv(16)
    status = int(answer or b"1")
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for each call, for ever; return in the forks alone, with what was called.

    Between this process and the call is another fork, which waits for its end.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those
    while True:
        caller, _ = listener.accept()
        request, handles = _receive(caller)
        if os.fork() == 0:
            break
        caller.close()
        for handle in handles:
            os.close(handle)
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        for handle in handles:
            os.close(handle)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):  # the caller is gone
            caller.send(str(status).encode())
        os._exit(0)
    caller.close()
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    return request


def _receive(caller: socket.socket) -> tuple[dict[str, Any], list[int]]:
    header, handles, _, _ = socket.recv_fds(caller, 4, 3)
    size, request = int.from_bytes(header, "big"), b""
    while len(request) < size:
        request += caller.recv(MOST_BYTES)
    return json.loads(request), handles


def run(request: dict[str, Any]) -> None:
    """Run a module or a file as Python would that was started for it."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    multiprocessing.process.ORIGINAL_DIR = request["cwd"]  # where its own processes will begin
    words = request["words"]
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    first = request["cwd"] if words[0] == "-m" else os.path.dirname(os.path.abspath(words[0]))
    sys.path[:1] = [first, *filter(None, added)]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def run_and_end(request: dict[str, Any]) -> NoReturn:
    """Run a call and end the process.

    Python is not taken down: that takes half a second where so many libraries are imported.
    """
    status: object = 0
    try:
        run(request)
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        for library in LIBRARIES:
            importlib.import_module(library)
        gc.freeze()  # no fork looks through the libraries' objects
        run_and_end(serve(socket.socket(fileno=int(sys.argv[2]))))
    else:
        sys.exit(call(sys.argv[1], sys.argv[2], sys.argv[3:]))
