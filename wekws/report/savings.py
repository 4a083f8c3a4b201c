"""The report's balance: what a student saves against its teacher, and what it keeps."""

from collections.abc import Sequence

from wekws.report.document import Block, Heading, Table
from wekws.report.model_folder import Model
from wekws.report.next_step import BUDGET, percent
from wekws.score.pinyin import with_pinyin


def kept_blocks(teacher: Model | None, students: Sequence[Model]) -> list[Block]:
    """Return heading and table; nothing without a teacher to compare with.

    A line that no student has a figure for is left out.
    """
    if teacher is None or not students:
        return []
    lines = {
        "Compression": [_compression(teacher, student) for student in students],
        "Fewer MACs": [_fewer_macs(teacher, student) for student in students],
        "Speed-up, measured": [_speed_up(student) for student in students],
    }
    for word in teacher.headline.keywords:
        name = f"Quality kept, {with_pinyin(word)}"
        lines[name] = [_quality(teacher, student, word) for student in students]
    rows = [[name, *(c or "-" for c in cells)] for name, cells in lines.items() if any(cells)]
    if not rows:
        return []
    header = ["", *(student.name for student in students)]
    table = Table(header, rows, _CAPTION.format(name=teacher.name, budget=BUDGET))
    return [Heading("What was saved and what was kept"), table]


_CAPTION = (
    "Against {name}. Compression: of parameters. Speed-up: CPU time of a forward pass, one "
    "utterance on one thread. Quality kept: (1 - FRR) / (1 - FRR of {name}), each at its own "
    "threshold for {budget}, FRR of both in brackets."
)


def _compression(teacher: Model, student: Model) -> str:
    if not (teacher.params and student.params):
        return ""
    return f"{teacher.params / student.params:.1f} x"


def _fewer_macs(teacher: Model, student: Model) -> str:
    if not (teacher.cost and student.cost):
        return ""
    return f"{teacher.cost['macs_per_second'] / student.cost['macs_per_second']:.1f} x"


def _speed_up(student: Model) -> str:
    speed = student.speed
    if not speed:
        return ""
    times = [speed[name]["forward_ms"] for name in ("student", "teacher")]
    return f"{speed['speed_up']:.1f} x ({times[0]:.2f} ms of {times[1]:.2f})"


def _quality(teacher: Model, student: Model, keyword: str) -> str:
    points = [model.headline.operating_point(keyword, BUDGET) for model in (teacher, student)]
    if not all(point and point.get("misses") for point in points):
        return ""
    theirs, own = (point["misses"]["rate"] for point in points)
    if theirs >= 1.0:
        return ""
    kept = percent((1.0 - own) / (1.0 - theirs))
    return f"{kept} ({percent(own)}, teacher {percent(theirs)})"
