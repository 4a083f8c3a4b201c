"""The layers of the package, read off the imports: names, order, no cycles, one place for flags."""

import ast
import collections
import graphlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "wekws"
# Lowest first; a part imports only from lines above its own, never from its own line.
LAYERS = [
    ["errors", "machine", "front_end"],
    ["files", "shell"],
    ["log", "yaml_files"],
    ["config"],
    ["dataset", "model", "decode"],
    ["stream"],
    ["runlog", "score"],
    ["distill"],
    ["train", "export"],
    ["report", "plot"],
    ["sweep"],
    ["bin"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules():
    """Every module of the package, by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(
            path.read_text(encoding="utf-8")
        )
    return found


MODULES = modules()


def imports(tree):
    """Dotted names of all modules of the package that a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("wekws."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wekws"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                name = whole if whole in MODULES else node.module
                if name != "wekws":
                    yield name


def part(module):
    """The layer's name of a module: ``wekws.train.loop`` belongs to ``train``."""
    return module.split(".")[1]


def test_the_list_of_layers_is_complete():
    parts = {part(name) for name in MODULES if name != "wekws"}
    assert parts == set(LEVEL)


def test_imports_go_down():
    wrong = [
        f"{module} imports {other}"
        for module, tree in MODULES.items()
        if module != "wekws"
        for other in imports(tree)
        if part(other) != part(module) and LEVEL[part(other)] >= LEVEL[part(module)]
    ]
    assert wrong == []


def test_no_module_is_in_a_cycle():
    graph = {module: set(imports(tree)) - {module} for module, tree in MODULES.items()}
    # A package's __init__ is imported by its modules in any case; only its own imports count.
    graphlib.TopologicalSorter(graph).prepare()


def test_no_import_hides_behind_type_checking():
    names = [m for m, tree in MODULES.items() if "TYPE_CHECKING" in ast.dump(tree)]
    assert names == []


def test_flags_stay_in_bin():
    users = [
        module
        for module, tree in MODULES.items()
        if not module.startswith("wekws.bin")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name == "argparse" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "argparse")
    ]
    assert users == []


def test_only_bin_prints():
    users = [
        f"{module}:{node.lineno}"
        for module, tree in MODULES.items()
        if not module.startswith("wekws.bin") and module != "wekws.log"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert users == []


def test_no_two_files_have_one_name():
    """Commands are named for what the user asks for, so bin is left out."""
    files = collections.defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py" and path.parent.name != "bin":
            files[path.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in files.items() if len(paths) > 1} == {}


def test_no_two_classes_have_one_name():
    classes = collections.defaultdict(list)
    for module, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(module)
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}


def test_train_report_and_runlog_name_no_method():
    """They know methods by their interface; the list is wekws/distill/methods.py."""
    listed = (
        *("kd", "guide", "hidden", "gate", "embedding", "adversarial", "inner_head", "consistency"),
    )
    methods = {f"wekws.distill.{name}" for name in listed}
    wrong = [
        f"{module} imports {other}"
        for module, tree in MODULES.items()
        if module != "wekws" and part(module) in ("train", "report", "runlog", "plot")
        for other in imports(tree)
        if other in methods
    ]
    assert wrong == []


def test_commands_that_compute_nothing_import_no_torch():
    """They start in less than half a second instead of two."""
    commands = (
        *("add_negatives", "check_budgets", "compare_runs", "compute_det_ctc", "hold_folder"),
        *("make_dict", "make_list", "model_info", "plan_evaluation", "plot_confidence"),
        *("plot_curves", "plot_det", "plot_durations", "prepare_kaldi", "report", "stage_inputs"),
        *("tune_threshold", "validate_data"),
    )
    code = f"""
import importlib, sys
for name in {commands}:
    importlib.import_module("wekws.bin." + name)
    assert "torch" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_test_imports_from_a_conftest():
    """There are several of them, and all have one module name: a run of two folders would fail."""
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert "conftest" not in names, path
