"""Flags that train a model of the recipe again, but not what it starts from."""

import shlex
from pathlib import Path

from wekws.report.model_folder import TrainedModel


def flags_for_epochs(model: TrainedModel, num_epochs: int) -> str:
    """Return the flags that train a model for other epochs, added to the command that trained it.

    The schedules follow the number of epochs, so the run gets a folder of its own: a student beside
    its teacher, a teacher in another experiment that starts from the same base.
    """
    folder = model.exp_dir.resolve()
    words = [f"--{model.role}_epochs", str(num_epochs)]
    if model.role == "student":
        return shlex.join(["--student_name", f"{folder.name}_{num_epochs}_epochs", *words])
    if model.role == "teacher":
        return longer_teacher_flags(model.exp_dir.parent, num_epochs)
    return shlex.join(["--name", f"{folder.parent.name}_{num_epochs}_epochs", *words])


def longer_teacher_flags(exp: Path, num_epochs: int) -> str:
    """Return the flags that train a longer teacher beside that of ``exp``, from its base."""
    words = ["--name", f"{exp.resolve().name}_{num_epochs}_epochs"]
    base = exp / "base" / "final.pt"
    if base.is_file():
        words += ["--base_checkpoint", str(base)]
    return shlex.join([*words, "--teacher_epochs", str(num_epochs)])


def flags_beside(student: TrainedModel) -> str:
    """Return the flags that train a student anew beside an earlier one."""
    return shlex.join(["--student_name", f"{student.exp_dir.resolve().name}_2"])
