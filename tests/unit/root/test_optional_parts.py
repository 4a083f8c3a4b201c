"""Packages that may be missing: what needs them says so, and how to get them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BLOCKER = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == {package!r}:
            raise {error}
sys.meta_path.insert(0, Blocker())
"""
NOT_FOUND = "ModuleNotFoundError(f'No module named {name!r}', name=name)"


def run_without(folder, package, words, error=NOT_FOUND):
    """Run Python where importing a package fails; return status and standard error."""
    (folder / "sitecustomize.py").write_text(BLOCKER.format(package=package, error=error))
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("package", "error", "said"),
    [
        ("torch", NOT_FOUND, "error: torch is not installed, and this command needs it: pip inst"),
        ("numpy", "OSError('libm.so: not found')", "error: libm.so: not found; a package cannot"),
        ("numpy", "KeyboardInterrupt", "interrupted\n"),
    ],
)
def test_what_ends_a_command_while_it_starts_is_one_line(tmp_path, package, error, said):
    status, text = run_without(tmp_path, package, ["-m", "wekws.bin.train"], error)
    assert status != 0 and text.startswith(said) and text.count("\n") == 1


def test_what_ends_a_script_of_the_recipe_while_it_starts_is_one_line(tmp_path):
    script = ROOT / "examples/hi_xiaowen/local/synthesise.py"
    _, text = run_without(tmp_path, "torch", [script, "--out_dir", tmp_path], "KeyboardInterrupt")
    assert text == "interrupted\n"


@pytest.mark.parametrize(
    ("package", "imports", "call", "message"),
    [
        ("onnx", "", "__import__('wekws.export')", "onnx is not installed, and the export needs"),
        (
            "soundfile",
            "",
            "__import__('wekws.dataset.negatives')",
            "soundfile is not installed, and this command needs it: pip install -e .",
        ),
        (
            "onnxruntime",
            "from wekws.stream.onnx_network import open_session",
            "open_session('x.onnx')",
            "onnxruntime is not installed, and exported models need it: pip install onnxruntime",
        ),
        (
            "aiohttp",
            "from wekws.stream.web import _aiohttp_web",
            "_aiohttp_web()",
            "--web needs aiohttp: pip install aiohttp",
        ),
        (
            "sounddevice",
            "from wekws.stream.microphone import read_microphone",
            "next(read_microphone(16000))",
            "the microphone needs sounddevice and PortAudio",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, package, imports, call, message):
    code = f"import sys\nfrom wekws.log import run\n{imports}\nsys.exit(run(lambda: {call}))"
    status, text = run_without(tmp_path, package, ["-c", code])
    assert status == 2 and text.startswith(f"error: {message}") and text.count("\n") == 1
