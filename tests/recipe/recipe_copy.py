"""A copy of the recipe to run in, apart from the checkout."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml
from tones import SMALL_CONFIG

ROOT = Path(__file__).parents[2]
SMALL = ("--num_workers", 0, "--num_threads", 1, "--device", "cpu", "--synth_positives", 0,
         "--units", "letters", "--num_processes", 1)  # fmt: skip
CONFIGS = ("--teacher_config", "teacher.yaml", "--student_config", "student.yaml")
PARTS = (
    *("wekws", "conf", "tools", "examples", "benchmarks"),
    *("path.sh", "run_distill.sh", "evaluate.sh"),
)


@dataclass(frozen=True)
class Recipe:
    """Folder of links to the project, in which its scripts write data and exp.

    ``python_dir`` holds the ``python`` that they find first.
    """

    folder: Path
    python_dir: Path

    def run(self, script: str, *options: object, status: int = 0, cwd: Path | str = "/") -> str:
        """Run a script, from another folder; return its output, standard error included."""
        path = f"{self.python_dir}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", str(self.folder / script), *map(str, options)],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def files(self, *places: str) -> set[str]:
        """Return the files below some folders, relative to the copy."""
        found = [p for place in places for p in (self.folder / place).rglob("*") if p.is_file()]
        return {str(path.relative_to(self.folder)) for path in found}

    def times(self, *places: str) -> dict[str, int]:
        """Return when each of some files, or of those below some folders, was written."""
        paths = [self.folder / place for place in places]
        files = [f for path in paths for f in ([path] if path.is_file() else path.rglob("*"))]
        return {str(f.relative_to(self.folder)): f.stat().st_mtime_ns for f in files if f.is_file()}


def new_recipe(folder: Path, python_dir: Path) -> Recipe:
    """Link the project's parts into a folder, with configurations of two tiny models."""
    folder.mkdir()
    for name in PARTS:
        (folder / name).symlink_to(ROOT / name)
    (folder / "teacher.yaml").write_text(yaml.safe_dump(SMALL_CONFIG))
    smaller = {"input_affine_dim": 12, "num_layers": 1, "linear_dim": 16, "proj_dim": 8}
    student = {"base": "teacher.yaml", "model": {"backbone": smaller}}
    (folder / "student.yaml").write_text(yaml.safe_dump(student))
    return Recipe(folder, python_dir)
