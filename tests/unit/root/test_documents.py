"""Documents: every command has existing options, every path and link exists."""

import importlib
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NOTES = ("README", "ABLATION", "TRANSPLANT")
DOCUMENTS = [
    "README.md",
    "README.zh.md",
    "wekws/export/PORTING.md",
    "wekws/train/CLUSTER.md",
    "benchmarks/README.md",
    "examples/LOG_FIELDS.md",
    "examples/PEOPLE.md",
    *(f"examples/hi_xiaowen/{name}.md" for name in NOTES),
]
COMMAND = re.compile(r"(?:python (?:-m )?|bash )([\w./]+)(.*)")


def code_lines(text):
    """Lines of code blocks (with continued lines joined) and pieces of inline code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return lines + [piece.replace("\n", " ") for piece in re.findall(r"`([^`]+)`", prose)]


def commands():
    """(document, target, flag) of every flag that a command in a document uses."""
    found = set()
    for name in DOCUMENTS:
        for line in code_lines((ROOT / name).read_text(encoding="utf-8")):
            for target, rest in COMMAND.findall(line):
                flags = re.findall(r"(?<!\S)--\w+", rest)
                found |= {(name, target, flag) for flag in ["--help", *flags]}
    return found


def options_of(target, capsys, python_dir):
    """Text that names the options of a command: its help, or the head of a shell script."""
    if target.startswith("wekws.bin."):
        if target == "wekws.bin.NAME":
            return "--help"
        with pytest.raises(SystemExit):
            importlib.import_module(target).main(["--help"])
        return capsys.readouterr().out
    path = ROOT / target
    if path.suffix == ".sh":
        names = re.findall(r"^(\w+)=", path.read_text(encoding="utf-8"), re.M)
        return " ".join(["--help", *(f"--{name}" for name in names)])
    command = [python_dir / "python", path, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


TARGETS = sorted({target for _, target, _ in commands()})


@pytest.mark.parametrize("target", TARGETS)
def test_options_of_commands_exist(target, capsys, python_dir):
    known = set(re.findall(r"--\w+", options_of(target, capsys, python_dir)))
    used = {(name, flag) for name, other, flag in commands() if other == target}
    assert [(name, flag) for name, flag in sorted(used) if flag not in known] == []


def test_the_documents_show_commands():
    assert {"run_distill.sh", "evaluate.sh", "wekws.bin.ablate"} <= set(TARGETS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w/])(?:conf|benchmarks|wekws|tools)/[\w/]+\.(?:yaml|py|sh)\b", text)
    # entropy.py is the README's example of a new method.
    examples = {"wekws/distill/entropy.py"}
    paths = [path for path in paths if "NAME" not in path and path not in examples]
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


def slug(heading):
    """Anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    document = ROOT / name
    text = document.read_text(encoding="utf-8")
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if path.startswith("http"):
            continue
        target = (document.parent / path).resolve() if path else document
        if not target.exists():
            broken.append(link)
        elif anchor:
            there = target.read_text(encoding="utf-8")
            anchors = {slug(h) for h in re.findall(r"^#+ (.*)$", there, re.M)}
            anchors |= set(re.findall(r'<a id="([^"]+)"', there))
            if anchor not in anchors:
                broken.append(link)
    assert broken == []


def test_the_page_for_users_of_wekws_names_commands_that_exist():
    text = (ROOT / "examples/FROM_WEKWS.md").read_text(encoding="utf-8")
    names = set(re.findall(r"wekws\.bin\.(\w+)", text))
    assert len(names) >= 10
    assert [n for n in sorted(names) if not (ROOT / f"wekws/bin/{n}.py").is_file()] == []


def test_the_chinese_readme_has_the_commands_and_figures_of_the_english_one():
    english, chinese = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")
    )
    command = r"`((?:bash|python) [^`]+)`"
    wanted = english[english.index("## I want X") : english.index("## Glossary")]
    ours = re.findall(command, chinese)
    assert [c for c in ours if c not in re.findall(command, english)] == []
    assert [c for c in re.findall(command, wanted) if c not in ours] == []

    def figures(text):
        rows = [line.split("|")[2:] for line in text.splitlines() if line.startswith("|")]
        return [
            [cell.strip() for cell in row] for row in rows if re.search(r" M | at \d", str(row))
        ]

    assert len(figures(chinese)) == 14
    assert [row for row in figures(chinese) if row not in figures(english)] == []


def test_the_chinese_readme_has_the_demos_times():
    english, chinese = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")
    )
    start = english.index("| part of `make demo` | time |")
    table = english[start : english.index("\n\n", start)]
    times = re.findall(r"\| ([\d min s]+) \|$", table, re.M)
    assert len(times) == 6
    translated = [time.replace(" min", " 分").replace(" s", " 秒") for time in times]
    assert [time for time in translated if time not in " ".join(chinese.split())] == []


def test_examples_after_the_demo_use_the_averages_that_it_makes():
    demo = re.search(r"--num_average (\d+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"exp/synth_small/\w+/avg_(\d+)", text)) == {demo[1]}
