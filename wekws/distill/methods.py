"""The list of all distillation methods, and what a run builds from it.

A new loss is one file with a ``MethodConfig``, and one line here: a field of ``DistillConfig``.
"""

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Literal

from wekws.dataset.embeddings import EmbeddingSpace
from wekws.dataset.label_set import LabelSet
from wekws.distill.adversarial import AdversarialConfig
from wekws.distill.consistency import ConsistencyConfig
from wekws.distill.ctc import CtcConfig
from wekws.distill.embedding import EmbeddingConfig
from wekws.distill.ensemble import TeachersConfig, TeacherWeights
from wekws.distill.growth import GrowthHook, ProgressiveConfig
from wekws.distill.guide import GuideConfig
from wekws.distill.hidden import HiddenConfig
from wekws.distill.hook import TrainingHook
from wekws.distill.inner_head import InnerConfig
from wekws.distill.kd import KdConfig
from wekws.distill.keyword_loss import HardNegatives, KeywordConfig
from wekws.distill.layer_pairs import LayerPairs
from wekws.distill.method import Group, Method, MethodConfig, MethodContext
from wekws.distill.objective import Objective
from wekws.distill.schedule import as_schedule
from wekws.distill.stages import Stage, StageHook, StagePlan, StageWeighting
from wekws.distill.transplant import TransplantConfig
from wekws.distill.weight_average import WeightAverage
from wekws.distill.weighting import AlphaWeighting, BesideTask, Weighting
from wekws.distill.weighting_conf import WeightingConfig
from wekws.errors import ConfigError
from wekws.model.model import KwsModel
from wekws.runlog.health import HealthRule

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DistillConfig(WeightingConfig):
    """Section ``distill_conf``: how the student is distilled."""

    teacher_view: Literal["student", "clean"] = "student"
    """Whether the teacher's input has the SpecAugment masks of the ``student``'s, or is
    ``clean``."""
    teachers: TeachersConfig = field(default_factory=TeachersConfig)
    """Weights of several teachers relative to each other."""

    # The methods, each with its own weight within distillation, in the order in which they are
    # logged.
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    kd: KdConfig = field(default_factory=KdConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)
    hidden: HiddenConfig = field(default_factory=HiddenConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)

    @property
    def needs_feature_teacher(self) -> bool:
        """Whether a method in use has the outputs of a feature teacher as targets."""
        return any(s.is_used and s.needs_feature_teacher for s in self.methods.values())

    @property
    def methods(self) -> dict[str, MethodConfig]:
        """The sections of all methods, by name."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: v for name, v in values.items() if isinstance(v, MethodConfig)}


@dataclass(frozen=True, kw_only=True)
class MethodSections:
    """The sections of a training configuration that belong to methods."""

    ctc_conf: CtcConfig = field(default_factory=CtcConfig)
    """The task's own loss."""
    keyword_conf: KeywordConfig = field(default_factory=KeywordConfig)
    """Misses and false alarms of the keywords, beside CTC, with and without a teacher."""
    distill_conf: DistillConfig = field(default_factory=DistillConfig)
    """Terms of distillation."""
    transplant: TransplantConfig = field(default_factory=TransplantConfig)
    """Rules by which ``--init_from_teacher`` fills the student."""
    stages: tuple[Stage, ...] = ()
    """Stages, in place of ``distill_conf.alpha``; empty: alpha weighs labels and teacher."""
    progressive: ProgressiveConfig = field(default_factory=ProgressiveConfig)
    """Depth that grows while training."""

    def check_methods(self, *, num_layers: int, max_epoch: int, has_masks: bool) -> None:
        """Check the rules between these sections.

        num_layers: blocks of the student. has_masks: whether SpecAugment is on.
        Raises: ConfigError naming the sections that exclude each other.
        """
        if self.distill_conf.consistency.is_used and not has_masks:
            raise ConfigError(
                "distill_conf.consistency: two views differ by SpecAugment's masks; switch "
                "dataset_conf.spec_aug on"
            )
        usual, conf = DistillConfig(), self.distill_conf
        if self.stages and (conf.alpha, conf.alpha_floor) != (usual.alpha, usual.alpha_floor):
            raise ConfigError(
                "stages: given beside distill_conf.alpha or alpha_floor; expected one way of "
                "weighing, leave alpha out"
            )
        if self.stages:
            StagePlan(self.stages, max_epoch)
        if self.progressive.is_used:
            self._check_growth(num_layers, max_epoch)

    def _check_growth(self, num_layers: int, max_epoch: int) -> None:
        """Refuse what changes with the number of blocks, and a student that stays shallow."""
        start = self.progressive.start_blocks
        last = start
        if start <= num_layers:
            last = self.progressive.depth_at(max_epoch - 1, num_layers, max_epoch)
        if last != num_layers:
            raise ConfigError(
                f"progressive: {start} blocks at the start, {last} in the last epoch, num_layers "
                f"{num_layers}; expected to end there: change start_blocks, every or max_epoch"
            )
        conf = self.distill_conf
        if (conf.hidden.is_used or conf.adversarial.is_used) and not conf.hidden.pairs:
            raise ConfigError(
                "progressive: the rule of distill_conf.hidden pairs other blocks at every depth; "
                f"name `pairs` within the student's first {start} blocks"
            )
        if conf.embedding.is_used and not conf.embedding.tap:
            raise ConfigError(
                "progressive: the last block changes with every depth; name distill_conf.embedding."
                f"tap within the student's first {start} blocks"
            )
        if conf.inner.is_used and conf.inner.block > start:
            raise ConfigError(
                f"progressive: distill_conf.inner.block {conf.inner.block} does not exist at the "
                f"start; expected at most {start}"
            )
        takes_slices = self.transplant.channels != "activation" and not self.transplant.source
        if self.progressive.new_block == "teacher" and not takes_slices:
            raise ConfigError(
                "progressive.new_block: teacher takes the same channels of the teacher at every "
                "depth; expected transplant.channels first or uniform and no transplant.source, "
                "or new_block identity"
            )


def build_objective(
    sections: MethodSections,
    student: KwsModel,
    teacher: KwsModel | None = None,
    plan: StagePlan | None = None,
    label_set: LabelSet | None = None,
    *,
    embedding_space: EmbeddingSpace | None = None,
    hop_ms: float = 30.0,
) -> Objective:
    """Return the loss of a student, with the adapters and heads that its methods need.

    teacher: None for plain CTC. plan: the stages laid over the training; None: alpha alone.
    label_set: of the run, for methods that train its keywords.
    embedding_space: what the outputs of the feature teacher are like; None: there is none.
    hop_ms: time from one frame of the student to the next.
    Raises: ConfigError if a method does not fit the models, or a stage weighs a group of terms
    that has none.
    """
    config = sections.distill_conf
    methods = {"ctc": sections.ctc_conf, "keyword": sections.keyword_conf, **config.methods}

    def make_layer_pairs() -> LayerPairs:
        assert teacher is not None, "methods that pair layers are not built without a teacher"
        numbers = (model.config.backbone.num_layers for model in (student, teacher))
        return LayerPairs(config.hidden.pairs_for(*numbers), student, teacher)

    context = MethodContext(
        student=student,
        teacher=teacher,
        is_distilling=teacher is not None and (plan or config).is_distilling,
        sections=tuple(methods.values()),
        make_layer_pairs=make_layer_pairs,
        label_set=label_set,
        embedding_space=embedding_space,
        hop_ms=hop_ms,
    )
    built: dict[str, Method] = {}
    for name, section in methods.items():
        method = section.build(context)
        if method is not None:
            built[name] = method
    groups = {term.group for method in built.values() for term in method.terms}
    needs_pairs = any(method.needs_layer_pairs for method in built.values())
    if needs_pairs:
        pairs = ", ".join(map(str, context.layer_pairs.pairs))
        logger.info("paired layers, student - teacher: %s", pairs)
    if context.is_distilling and plan is None:
        logger.info(
            "alpha %s weighs CTC (the labels), 1 - alpha weighs distillation; sums over frames",
            config.alpha,
        )
    return Objective(
        built,
        _weighting(config, plan, groups, is_distilling=context.is_distilling),
        layer_pairs=context.layer_pairs if needs_pairs else None,
        teacher_sees_masks=config.teacher_view == "student",
    )


def _weighting(
    config: DistillConfig, plan: StagePlan | None, groups: set[Group], *, is_distilling: bool
) -> Weighting:
    temperature = as_schedule(config.temperature)
    if plan is not None:
        plan.require_terms(groups)
        return StageWeighting(plan, temperature)
    if not is_distilling or groups == {"task"}:
        return BesideTask()
    return AlphaWeighting(as_schedule(config.alpha), config.alpha_floor, temperature)


def build_hooks(
    sections: MethodSections,
    model: KwsModel,
    *,
    plan: StagePlan | None,
    num_layers: int,
    max_epoch: int,
    lr: float,
    ema_decay: float,
) -> tuple[TrainingHook, ...]:
    """Return what the methods do in the training loop, in the order in which it is done.

    model: the student at its start. num_layers: its blocks at the end. lr: the configured rate.
    ema_decay: of the moving average of the weights; 0: none.
    """
    hooks: list[TrainingHook] = [TeacherWeights(sections.distill_conf.teachers)]
    if sections.progressive.is_used:
        growth = GrowthHook(
            sections.progressive, sections.transplant, num_layers=num_layers, max_epoch=max_epoch
        )
        hooks.append(growth)
    if plan is not None:
        hooks.append(StageHook(plan, lr))
    if sections.keyword_conf.mined_share:
        hooks.append(HardNegatives(sections.keyword_conf.mined_share))
    if ema_decay:
        hooks.append(WeightAverage(model, ema_decay))
    return tuple(hooks)


def _all_sections() -> list[MethodConfig]:
    return [CtcConfig(), KeywordConfig(), *DistillConfig().methods.values()]


TERM_GROUPS: dict[str, Group] = {
    name: group for section in _all_sections() for name, group in section.term_groups.items()
}
"""The group of every term that any method can add to the loss."""

METHOD_RULES: tuple[HealthRule, ...] = tuple(
    rule for section in _all_sections() for rule in section.health_rules
)
"""The health rules of all methods."""
