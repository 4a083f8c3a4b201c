"""Savings of a student against its teacher (size, MACs, time), beside the quality it keeps."""

from collections.abc import Sequence

from wekws.report.document import Block, Heading, Table
from wekws.report.format import percent
from wekws.report.model_folder import TrainedModel
from wekws.score.pinyin import with_pinyin


def savings_blocks(
    teacher: TrainedModel | None, students: Sequence[TrainedModel], budget: str
) -> list[Block]:
    """Return heading and table; nothing without a teacher to compare with.

    A line without a figure for any student is left out.
    """
    if teacher is None or not students:
        return []
    lines = {
        "Compression": [_compression(teacher, student) for student in students],
        "Fewer MACs": [_fewer_macs(teacher, student) for student in students],
        "Speed-up, measured": [_speed_up(student) for student in students],
    }
    for keyword in teacher.headline.keywords:
        name = f"Quality kept, {with_pinyin(keyword)}"
        lines[name] = [_quality(teacher, student, keyword, budget) for student in students]
    rows = [[name, *(c or "-" for c in cells)] for name, cells in lines.items() if any(cells)]
    if not rows:
        return []
    header = ["", *(student.name for student in students)]
    table = Table(header, rows, _CAPTION.format(name=teacher.name, budget=budget))
    return [Heading("Savings and quality kept"), table]


_CAPTION = (
    "Compared with {name}. Compression: ratio of parameters. Speed-up: ratio of CPU times of a "
    "forward pass, one utterance on one thread. Quality kept: (1 - FRR) / (1 - FRR of {name}), "
    "both at {budget} on this set's own DET curve; both FRRs in brackets."
)


def _compression(teacher: TrainedModel, student: TrainedModel) -> str:
    if not (teacher.params and student.params):
        return ""
    return f"{teacher.params / student.params:.1f} x"


def _fewer_macs(teacher: TrainedModel, student: TrainedModel) -> str:
    if not (teacher.cost and student.cost):
        return ""
    return f"{teacher.cost['macs_per_second'] / student.cost['macs_per_second']:.1f} x"


def _speed_up(student: TrainedModel) -> str:
    speed = student.speed
    if not speed:
        return ""
    student_ms, teacher_ms = (speed[name]["forward_ms"] for name in ("student", "teacher"))
    return f"{speed['speed_up']:.1f} x ({student_ms:.2f} ms, teacher {teacher_ms:.2f} ms)"


def _quality(teacher: TrainedModel, student: TrainedModel, keyword: str, budget: str) -> str:
    points = [model.headline.own_curve(keyword, budget) for model in (teacher, student)]
    if points[0] is None or points[1] is None or points[0].frr >= 1.0:
        return ""
    teacher_frr, student_frr = points[0].frr, points[1].frr
    kept = percent((1.0 - student_frr) / (1.0 - teacher_frr))
    return f"{kept} ({percent(student_frr)}, teacher {percent(teacher_frr)})"
