"""Packages that may be missing: what needs them says so, and how to get them."""

import subprocess
import sys

import pytest

BLOCK = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {missing}:
            raise {error}
sys.meta_path.insert(0, Blocker())
"""
NOT_FOUND = "ModuleNotFoundError(f'No module named {name!r}', name=name)"


def run_without(missing, code, error=NOT_FOUND):
    """Run code in an interpreter that lacks some packages; return status and what it said."""
    block = BLOCK.format(missing=missing, error=error)
    done = subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("missing", "code", "message"),
    [
        ({"torch"}, "import wekws.bin.train", "torch is not installed, and this command needs it"),
        ({"yaml"}, "import wekws.bin.make_dict, wekws.yaml_files", "yaml is not installed"),
        (
            {"onnx"},
            "import wekws.bin; from wekws.log import run\n"
            "def main():\n    import wekws.export\n"
            "sys.exit(run(main))",
            "onnx is not installed, and the export needs it: pip install -e .[export]",
        ),
        (
            {"onnxruntime"},
            "import wekws.bin; from wekws.log import run\n"
            "from wekws.stream.onnx_network import open_session\n"
            "from pathlib import Path\n"
            "sys.exit(run(lambda: open_session(Path('x.onnx'))))",
            "onnxruntime is not installed, and exported models need it: pip install onnxruntime",
        ),
        (
            {"aiohttp"},
            "from wekws.log import run; from wekws.stream.web import _aiohttp_web\n"
            "sys.exit(run(_aiohttp_web))",
            "--web needs aiohttp: pip install aiohttp",
        ),
        (
            {"sounddevice"},
            "from wekws.log import run; from wekws.stream.microphone import read_microphone\n"
            "sys.exit(run(lambda: next(read_microphone(16000))))",
            "the microphone needs sounddevice and PortAudio",
        ),
    ],
)
def test_what_is_missing_is_named(missing, code, message):
    status, said = run_without(missing, code)
    assert status != 0 and message in said
    assert said.startswith("error: ") and said.count("\n") == 1


def test_a_package_that_cannot_be_loaded_is_named():
    """As soundfile without libsndfile, or torchaudio beside another torch."""
    status, said = run_without(
        {"soundfile"}, "import wekws.bin.make_list", "OSError('sndfile library not found')"
    )
    assert status != 0 and said.startswith("error: sndfile library not found; a package cannot be")
    assert said.count("\n") == 1
