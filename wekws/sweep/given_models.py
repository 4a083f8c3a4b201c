"""Part of the recipe's plan: models that the user gives are opened before the first stage."""

from collections.abc import Sequence
from pathlib import Path

from wekws.dataset.vocabulary import Tokenizer, Vocabulary
from wekws.distill.output_surgery import select_outputs
from wekws.errors import ConfigError, DataError
from wekws.model.checkpoint import load_model, model_of
from wekws.model.model import KwsModel
from wekws.model.model_conf import config_beside
from wekws.stream.onnx_network import ONNX_SUFFIX
from wekws.sweep.recipe_plan import RecipePlan
from wekws.train.build import cmvn_of
from wekws.train.compatibility import require_same_cmvn, require_same_front_end


def require_usable_models(
    plan: RecipePlan, keywords: Sequence[str], vocabulary: Vocabulary | None
) -> None:
    """Open the base and the teachers that were given and check that they fit.

    vocabulary: tokens of teacher and student; None: not known yet. Then the tokens of the keywords
    are looked up in the models' dictionaries, and the teachers' are compared with each other.
    Raises: ConfigError that names the option and what does not fit.
    """
    if plan.base_given and not plan.teacher_given:
        _require_base(plan, vocabulary)
        _require_keywords(plan, keywords, plan.base_dict, f"--base_dict {plan.base_dict}")
    given = [("--teacher_checkpoint", plan.teacher_checkpoint)] if plan.teacher_given else []
    given += [("--more_teachers", path) for path in plan.more_teachers]
    for flag, path in given:
        _require_keywords(plan, keywords, _dict_of(path), f"{flag} {path}")
    if vocabulary is None and plan.teacher_given and _dict_of(plan.teacher_checkpoint).is_file():
        vocabulary = Vocabulary.load(_dict_of(plan.teacher_checkpoint))
    models = [_teacher(flag, path, plan, vocabulary) for flag, path in given]
    for (_, path), model in zip(given[1:], models[1:], strict=True):
        require_same_cmvn(cmvn_of(model), cmvn_of(models[0]), str(path), str(given[0][1]))


def _dict_of(model_path: Path) -> Path:
    return model_path.with_name("dict.txt")


def _require_keywords(
    plan: RecipePlan, keywords: Sequence[str], dict_path: Path, given: str
) -> None:
    """Check that a given model has an output for every token of the keywords.

    given: the option with the model or its dictionary, as the user wrote it.
    """
    lexicon = plan.tokens.lexicon
    if not dict_path.is_file() or (lexicon is not None and not lexicon.is_file()):
        return
    known, tokenizer = Vocabulary.load(dict_path).ids, Tokenizer(lexicon)
    for keyword in keywords:
        missing = [token for token in tokenizer.tokenise(keyword) if token not in known]
        if missing:
            raise ConfigError(
                f"{given}: has no output for {', '.join(dict.fromkeys(missing))} of the keyword "
                f"{keyword} ({dict_path}); give the --keywords and --lexicon that it was trained "
                "with, or another model"
            )


def _require_base(plan: RecipePlan, vocabulary: Vocabulary | None) -> None:
    path = plan.base_checkpoint
    model = _loaded("--base_checkpoint", path)
    try:
        source = Vocabulary.load(plan.base_dict)
        source.check_output_dim(model.config.output_dim)
        _require_own_dict(source, _dict_of(path))
        if vocabulary is not None:
            select_outputs(model.state_dict(), source, vocabulary)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"--base_dict {plan.base_dict}: does not fit {path}: {error}") from error
    sizes = plan.teacher.config.model.with_output_dim(model.config.output_dim)
    try:
        model_of(sizes, model.state_dict(), source=str(path))
    except DataError as error:
        raise ConfigError(
            f"--base_checkpoint {path}: is not of the sizes in {plan.teacher_config}; give its "
            f"configuration with --teacher_config: {' '.join(str(error).split())}"
        ) from error


def _require_own_dict(given: Vocabulary, beside: Path) -> None:
    """Raise ConfigError if a dictionary differs from one of the same size beside the model.

    beside: may not exist.
    """
    own = Vocabulary.load(beside).tokens if beside.is_file() else ()
    if len(own) != given.size:
        return
    for number, (found, expected) in enumerate(zip(given.tokens, own, strict=True)):
        if found != expected:
            raise ConfigError(
                f"output {number} is '{found}', but '{expected}' in {beside}; leave --base_dict "
                "out, or remove that file if it belongs to another model"
            )


def _teacher(flag: str, path: Path, plan: RecipePlan, vocabulary: Vocabulary | None) -> KwsModel:
    """Return a teacher that fits the student."""
    model = _loaded(flag, path)
    try:
        if model.cmvn is None:
            raise ConfigError("carries no CMVN, so its features cannot be the student's")
        require_same_front_end(config_beside(path), plan.student.config)
        if vocabulary is not None:
            _require_tokens(_dict_of(path), model.config.output_dim, vocabulary)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{flag} {path}: {error}") from error
    return model


def _require_tokens(dict_path: Path, output_dim: int, vocabulary: Vocabulary) -> None:
    """Raise ConfigError unless a teacher has the run's tokens."""
    tokens = Vocabulary.load(dict_path).tokens if dict_path.exists() else ()
    if len(vocabulary.tokens) == output_dim and tokens in ((), vocabulary.tokens):
        return
    first = next((f", among them '{t}'" for t in tokens if t not in vocabulary.tokens), "")
    raise ConfigError(
        f"has {output_dim} tokens{first}; the run's dictionary has {vocabulary.size}; give the "
        "--keywords, --num_tokens and --lexicon that the teacher was trained with, or a teacher "
        "with the run's tokens"
    )


def _loaded(flag: str, path: Path) -> KwsModel:
    """Return the model of a checkpoint."""
    if path.suffix == ONNX_SUFFIX:
        raise ConfigError(
            f"{flag} {path}: is an ONNX file, which cannot be trained with; give the checkpoint "
            "that it was made of, such as avg_30.pt"
        )
    try:
        return load_model(path)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"{flag} {error}") from error
