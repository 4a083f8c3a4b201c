"""What to type to train a model of the recipe again, without training again what it starts from."""

import shlex

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
    name = ["--name", f"{folder.parent.name}_{num_epochs}_epochs"]
    base = model.exp_dir.parent / "base" / "final.pt"
    given = ["--base_checkpoint", str(base)] if model.role == "teacher" and base.is_file() else []
    return shlex.join([*name, *given, *words])


def flags_beside(student: TrainedModel) -> str:
    """Return the flags that train a student anew beside an earlier one."""
    return shlex.join(["--student_name", f"{student.exp_dir.resolve().name}_2"])
