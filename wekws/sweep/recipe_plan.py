"""Plan of a run of ``run_distill.sh``: everything that its stages read, resolved."""

from dataclasses import dataclass
from pathlib import Path

from wekws.dataset.manifest import SPLITS
from wekws.errors import DataError
from wekws.files import read_json
from wekws.sweep.synthesis_plan import SynthesisPlan
from wekws.sweep.token_plan import TokenPlan
from wekws.sweep.training_length import Length
from wekws.train.run_record import RUN_NAME

TEACHER_STAGE, STUDENT_STAGE = 2, 3
"""Stages of ``run_distill.sh`` that train; the base is trained in the teacher's."""
_REPORT_STAGES = {5, 6}


@dataclass(frozen=True, kw_only=True)
class RecipePlan:
    """Everything that the stages read, paths resolved. Paths are absolute or of the project."""

    corpus: str
    """``synth``, ``mobvoi`` or ``kaldi``."""
    data_dir: Path | None
    """Kaldi folder of the user's own recordings."""
    from_text: bool
    """Whether there are no recordings of the keywords."""
    negatives: tuple[Path, ...]
    """Folders of audio without a keyword that join train, dev and test; from text only what is
    transcribed joins train."""
    learns_transcripts: bool
    """Whether models that hear no recordings of the keywords learn the phonemes of transcribed
    negatives, whatever their language."""
    language: str
    """Language of the keywords: zh or en."""
    lists: Path
    """Folder of lists, dictionary and features."""
    exp: Path
    """Folder of the models and the report."""
    download_dir: Path
    """Folder of a downloaded or synthesised corpus."""
    synthesis: SynthesisPlan | None
    """Speech that is synthesised; None: none."""
    tokens: TokenPlan
    """What the tokens are."""
    extra_lists: Path | None
    """Lists of another corpus whose training set joins the base's."""
    overlays: tuple[Path, ...]
    """YAML laid over the configurations of base, teacher and student."""
    student_overlays: tuple[Path, ...]
    """YAML laid over the student's configuration alone: the preset first."""
    front_end: str
    """Checksum of ``dataset_conf``, overlays included; the lists are made anew when it changes."""
    teacher_config: Path
    """Configuration of base and teacher."""
    student_config: Path
    """Configuration of the student."""
    base_checkpoint: Path
    """The base, given or to be trained."""
    base_dict: Path
    """Dictionary of the base's outputs."""
    base_given: bool
    """Whether the user gave a base, so that none is trained."""
    base: Length
    """Training of the base."""
    base_overrides: tuple[str, ...]
    """Settings of the base, as ``SECTION.KEY=VALUE``: it learns the tokens alone, whatever else the
    overlays add for the keywords; synthesised utterances are not joined."""
    teacher_checkpoint: Path
    """The teacher, given or to be trained."""
    teacher_given: bool
    """Whether the user gave a teacher, so that neither base nor teacher is trained."""
    teacher: Length
    """Training of the teacher."""
    more_teachers: tuple[Path, ...]
    """Further teachers of the student."""
    num_teachers: int
    """Teachers to train, which differ in the seed."""
    feature_teacher: str
    """Frozen model whose outputs are targets of base, teacher and student; empty: none."""
    student_name: str
    """Name of the student's folder."""
    student: Length
    """Training of the student."""
    student_overrides: tuple[str, ...]
    """Settings of the student, as ``SECTION.KEY=VALUE``, that follow from the options."""
    weighting: str
    """Weights of labels and teacher, and the option or file that sets them."""
    baseline: Path | None
    """Run that the diagnosis compares the student with."""
    report_dir: Path
    """Folder of the report."""
    num_workers: int
    """Processes for feature extraction."""
    num_processes: int
    """Processes of each training."""
    average_best: bool
    """Whether the epochs of lowest loss on dev are averaged; False: the last ones."""
    bf16: bool | None
    """Whether models train in bfloat16; None: as they began, and new ones where it is faster."""
    is_bf16_faster: bool
    """Whether bfloat16 is faster than float32 here."""
    without_effect: tuple[str, ...]
    """Options that change nothing in this run, each with the reason."""

    @property
    def student_checkpoint(self) -> Path:
        """The averaged student."""
        return self.exp / self.student_name / f"avg_{self.student.num_average}.pt"

    @property
    def teacher_checkpoints(self) -> tuple[Path, ...]:
        """The averaged teachers, in the order of their seeds."""
        first = self.teacher_checkpoint
        numbers = range(2, self.num_teachers + 1)
        more = (first.parent.with_name(f"teacher_{n}") / first.name for n in numbers)
        return (first, *more)

    def uses_bf16(self, folder: Path) -> bool:
        """Return whether the model of a folder trains in bfloat16."""
        if self.bf16 is not None:
            return self.bf16
        record = folder / RUN_NAME
        if not record.is_file():
            return self.is_bf16_faster
        try:
            return bool(read_json(record).get("bf16", False))
        except DataError:
            return False  # the training names what is wrong with the file

    @property
    def speech_beside_recordings(self) -> Path | None:
        """Folder of the speech that is synthesised where there are recordings as well."""
        if self.synthesis is None or not self.synthesis.is_beside_recordings:
            return None
        return self.synthesis.out_dir

    @property
    def base_sets(self) -> tuple[Path, ...]:
        """Folders of the training sets of the base."""
        first = self.speech_beside_recordings or self.lists
        more = [self.extra_lists] if self.extra_lists else []
        return tuple(folder / SPLITS[0] for folder in (first, *more))

    def _negatives(self) -> str:
        if not self.negatives:
            return "only those of the corpus"
        where = " (dev and test alone, none in training)" if self.from_text else ""
        if self.learns_transcripts:
            where = " (dev and test; the phonemes of transcribed ones are learnt)"
        return " ".join(map(str, self.negatives)) + where

    def summary(self, stages: range) -> str:
        """Return the plan in a few lines: models, epochs and who set them, where results go.

        stages: those that run; of a model that none of them trains, only its place is said. Weights
        and report are left out where no student is trained and no report is written.
        """
        idle = "not trained in these stages"
        base = teacher = student = idle
        if TEACHER_STAGE in stages:
            base, teacher = f"{self.base.epochs} epochs ({self.base.source})", str(self.teacher)
        if STUDENT_STAGE in stages:
            student = str(self.student)
        if self.base_given:
            base = "given, not trained"
        base += f" -> {self.base_checkpoint}"
        if self.teacher_given:
            base, teacher = "not needed, the teacher is given", "given, not trained"
        overlays = " ".join(map(str, (*self.overlays, *self.student_overlays)))
        rows = {
            "lists": str(self.lists),
            "synthesis": self.synthesis.summary if self.synthesis else "none",
            "negatives": self._negatives(),
            "tokens": self.tokens.summary(self.language),
            "overlays": overlays or "none",
            "base": base,
            "teacher": f"{teacher} -> {self.teacher_checkpoint}",
            "student": f"{student} -> {self.student_checkpoint}",
        }
        if STUDENT_STAGE in stages:
            rows["weights"] = self.weighting
        if _REPORT_STAGES.intersection(stages):
            rows["report"] = str(self.report_dir / "report.html")
        if self.without_effect:
            rows["ignored"] = "; ".join(self.without_effect)
        if self.num_teachers > 1 and TEACHER_STAGE in stages:
            rows["teacher"] += f", and {self.num_teachers - 1} of other seeds; dev chooses"
        if self.feature_teacher:
            rows["features"] = f"towards {self.feature_teacher}"
        return "\n".join(f"   {name:<10}{value}" for name, value in rows.items())
