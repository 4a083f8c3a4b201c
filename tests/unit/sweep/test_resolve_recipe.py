"""Options of run_distill.sh, resolved before its first stage."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dry_runs import write_noise

from wekws.bin import plan_recipe
from wekws.dataset.manifest import SPLITS
from wekws.errors import ConfigError, DataError
from wekws.shell import UserPaths
from wekws.sweep import resolve_recipe
from wekws.sweep.given_options import check_given
from wekws.sweep.recipe_options import LAST_STAGE, RecipeOptions, read_options
from wekws.sweep.recipe_plan import RecipePlan
from wekws.sweep.resolve_recipe import resolve

ROOT = Path(__file__).parents[3]


def defaults() -> list[str]:
    """Return the option block of the script as it passes it on."""
    block = (ROOT / "run_distill.sh").read_text("utf-8").partition(". tools/parse_options.sh")[0]
    return [f"{n}={value}" for n, value in re.findall(r"^([a-z]\w*)=(\S*)", block, re.MULTILINE)]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Folder with the shipped configurations, in which the scripts run."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "conf", folder / "conf")
    monkeypatch.chdir(folder)
    return folder


def plan(*options: str, caller_dir: Path = Path()) -> RecipePlan:
    given, paths = read_options([*defaults(), *options]), UserPaths(caller_dir)
    check_given(given, paths)
    return resolve(given, paths)


ALL = range(-2, LAST_STAGE + 1)
LISTS = ("train/text", "dict/dict.txt", "train/data.list", "global_cmvn")


def touch(path: Path) -> None:
    """Make an empty file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_script_has_exactly_these_options():
    names = [assignment.partition("=")[0] for assignment in defaults()]
    assert [*names, "wrong_choices"] == [f.name for f in dataclasses.fields(RecipeOptions)]


def test_defaults(project):
    resolved = plan()
    assert resolved.lists == Path("data/synth_small")
    assert resolved.overlays == (Path("conf/overlays/speed.yaml"),)
    assert (resolved.base.epochs, resolved.teacher.epochs, resolved.student.epochs) == (80, 80, 80)
    assert resolved.student.source == "conf/fsmn_ctc_base.yaml"
    assert resolved.teacher_checkpoint == Path("exp/synth_small/teacher/avg_30.pt")
    assert resolved.student_checkpoint == Path("exp/synth_small/student/avg_30.pt")
    assert resolved.report_dir == Path("exp/synth_small/report")
    assert not resolved.base_given and not resolved.teacher_given


@pytest.mark.parametrize(
    ("options", "epochs", "source", "num_average"),
    [
        (["preset=balanced"], 50, "conf/presets/balanced.yaml", 25),
        (["preset=balanced", "student_epochs=12"], 12, "--student_epochs", 6),
        (["student_overlay=conf/overlays/stages_three.yaml"], 35, "stages_three.yaml", 10),
        (["student_overlay=conf/overlays/ctc_tail.yaml"], 80, "conf/overlays/ctc_tail.yaml", 10),
        (["student_epochs=40"], 40, "--student_epochs", 20),
        (["student_epochs=4", "num_average=4"], 4, "--student_epochs", 4),
        (["preset=quick", "num_average=2"], 3, "conf/presets/quick.yaml", 2),
    ],
)
def test_flag_then_overlay_or_preset_then_default(project, options, epochs, source, num_average):
    student = plan(*options).student
    assert (student.epochs, student.num_average) == (epochs, num_average)
    assert student.source.endswith(source)


def test_a_preset_may_take_its_epochs_from_its_base(project):
    (project / "conf/presets/mine.yaml").write_text("base: balanced.yaml\noptim_conf: {lr: 1e-4}\n")
    resolved = plan("preset=mine")
    assert (resolved.student.epochs, resolved.student.num_average) == (50, 25)
    assert resolved.student.source == "conf/presets/balanced.yaml"
    assert resolved.student_checkpoint == Path("exp/synth_small/student_mine/avg_25.pt")
    assert resolved.report_dir == Path("exp/synth_small/report_mine")


def test_a_preset_may_have_a_comment_behind_its_epochs(project):
    text = "training_config:\n  max_epoch: 7  # to see whether it works\n"
    (project / "conf/presets/short.yaml").write_text(text)
    assert plan("preset=short").student.epochs == 7


def test_base_and_teacher_keep_to_an_overlay_of_both(project):
    (project / "short.yaml").write_text("training_config: {max_epoch: 6}\n")
    overlays = "overlay=conf/overlays/speed.yaml,short.yaml"
    resolved = plan(overlays, "teacher_epochs=9", "num_average=2")
    assert (resolved.base.epochs, resolved.base.source) == (6, "short.yaml")
    assert (resolved.teacher.epochs, resolved.teacher.source) == (9, "--teacher_epochs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["student_epochs=4", "num_average=30"],
            "--num_average 30: more than the student's 4 epochs",
        ),
        (["num_average=90"], "--num_average 90: more than the teacher's 80 epochs"),
        (["num_teachers=0"], "--num_teachers 0: expected at least 1"),
        (
            ["num_teachers=2", "teacher_checkpoint=exp/no.pt"],
            "--num_teachers 2: none is trained with --teacher_checkpoint",
        ),
        (["num_average=0"], "--num_average 0: expected at least 1"),
        (["num_average=many"], "--num_average: found 'many' .text.; expected an integer$"),
        (["bf16=yes"], "--bf16: found 'yes'; expected auto .* true .* false"),
        (["decoder=beam"], r"--decoder: found 'beam'; expected keyword \| prefix_beam"),
        (["max_duration_s=2s"], "--max_duration_s: found '2s'; expected auto, seconds, or 0"),
        (["preset=balance"], "expected one of quick, .*, quality, .* list, ask"),
        (["corpus=kaldi"], "--corpus kaldi: needs --data_dir"),
        (["data_dir=nowhere"], "--data_dir nowhere: no such file or folder"),
        (["lexicon=nowhere"], "--lexicon nowhere: no such file or folder"),
        (
            ["overlay=conf/overlays/gate.yaml,conf/overlays/../overlays/gate.yaml"],
            "--overlay conf/overlays/../overlays/gate.yaml: given twice; give it once",
        ),
        (["teacher_checkpoint=exp/no.pt"], "--teacher_checkpoint exp/no.pt: no such file"),
        (
            ["student_overlay=conf/overlays/gates.yaml"],
            "--student_overlay conf/overlays/gates.yaml",
        ),
        (["alpha=cosine_grwoth"], "^--alpha: found 'cosine_grwoth'"),
        (["alpha=cosine_grwoth", "student_config=no.yaml"], "did you mean 'cosine_growth'"),
        (["alpha=0.5", "student_overlay=conf/overlays/stages_three.yaml"], "leave out --alpha"),
        (["more_teachers=nofile.pt"], "--more_teachers nofile.pt: no such file or folder"),
        (["alpha=x", "temperature=0"], "^--alpha: found 'x'"),
        (["alpha={shape: linear"], "^--alpha {shape: linear: "),
        (["alpha=1.5"], "^--alpha: found 1.5; expected 0 to 1"),
        (["alpha=0.01"], "alpha: at most 0.01, below alpha_floor 0.05"),
        (["keywords=!"], "^--keywords: '!' has no letters"),
        (["category_hours=x"], "^--category_hours: found 'x'"),
        (["budgets=x"], "^--budgets: found 'x'"),
        (["tracker=tensorbord"], "--tracker tensorbord: .*; did you mean 'tensorboard'"),
        (["preset=balence"], "did you mean 'balanced'"),
        (["student_overlay=conf/overlays/gat.yaml"], "did you mean 'conf/overlays/gate.yaml'"),
    ],
)
def test_a_wrong_option_is_refused_before_the_first_stage(project, options, message):
    with pytest.raises(ConfigError, match=message):
        plan(*options)


def test_a_weight_below_the_usual_floor_needs_an_overlay_that_lowers_it(project):
    (project / "low.yaml").write_text("distill_conf: {alpha_floor: 0.0}\n")
    assert plan("alpha=0.01", "student_overlay=low.yaml").weighting.startswith("alpha 0.01")


WRONG_OPTIONS = [
    "budgets=abc",
    "student_config=conf/nope.yaml",
    "student_overlay=nope.yaml",
    "alpha=cosine_grwoth",
    "preset=balence",
    "decoder=foo",
]


def test_wrong_options_are_all_named_without_importing_torch():
    """Importing torch takes seconds, and a typo should be answered in the first."""
    given = ["--", *defaults(), *WRONG_OPTIONS]
    program = f"""
import sys
from wekws.bin import plan_recipe
from wekws.errors import ConfigError
try:
    plan_recipe.main({given!r})
except ConfigError as error:
    print(error)
print("torch" in sys.modules)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    *errors, has_torch = done.stdout.splitlines()
    assert all(any(option.split("=")[1] in e for e in errors) for option in WRONG_OPTIONS)
    assert has_torch == "False"


def test_recordings_have_lengths_and_losses_of_their_own(project, tmp_path):
    (tmp_path / "mine/train").mkdir(parents=True)
    resolved = plan(f"data_dir={tmp_path / 'mine'}", "keywords=JARVIS", "units=letters")
    assert resolved.overlays == (Path("conf/overlays/own_word.yaml"),)
    assert (resolved.base.epochs, resolved.teacher.epochs, resolved.student.epochs) == (10, 25, 25)
    assert resolved.base.flags == ["--override", "training_config.max_epoch=10"]
    # The keyword term is for teacher and student; the base learns the tokens.
    assert resolved.teacher.config.keyword_conf.weight == 1.0
    assert resolved.base_overrides == ("keyword_conf.weight=0", "keyword_conf.mined_share=0")
    other = plan(f"data_dir={tmp_path / 'mine'}", "overlay=conf/overlays/small_corpus.yaml")
    assert (other.base.epochs, other.base_overrides) == (80, ())
    assert plan(f"data_dir={tmp_path / 'mine'}", "base_epochs=3").base.epochs == 3
    (tmp_path / "tv").mkdir()
    more = plan(f"data_dir={tmp_path / 'mine'}", f"negatives={tmp_path / 'tv'}")
    names = ("own_word_negatives", "background")
    assert more.overlays == tuple(Path(f"conf/overlays/{name}.yaml") for name in names)
    assert (more.teacher.epochs, more.student.epochs) == (12, 12)
    assert more.teacher.config.keyword_conf.weight == 1.0


@pytest.mark.parametrize("is_faster", [True, False])
def test_bfloat16_where_it_is_faster_unless_a_model_began_otherwise(
    project, monkeypatch, is_faster
):
    monkeypatch.setattr(resolve_recipe, "has_bf16_instructions", lambda: is_faster)
    resolved = plan("device=cpu")
    assert resolved.uses_bf16(Path("exp/new")) == is_faster
    for began in (True, False):
        Path("exp/old").mkdir(parents=True, exist_ok=True)
        Path("exp/old/run.json").write_text(json.dumps({"bf16": began}))
        assert resolved.uses_bf16(Path("exp/old")) == began
        assert plan("bf16=true").uses_bf16(Path("exp/old"))
        assert not plan("bf16=false").uses_bf16(Path("exp/old"))


@pytest.mark.parametrize(
    ("options", "processes"),
    [(["device=cpu"], 4), (["device=cpu", "num_threads=3"], 2), (["num_processes=3"], 3)],
)
def test_a_training_on_the_cpu_has_a_process_per_core(
    project, monkeypatch, caplog, options, processes
):
    monkeypatch.setattr(resolve_recipe, "usable_cores", lambda: 8)
    assert plan(*options).num_processes == processes
    assert not caplog.messages
    assert plan("device=cpu", "num_processes=9").num_processes == 9
    assert caplog.messages == [
        "--num_processes 9: 8 cores run 8 at a time; more slow each other down"
    ]
    monkeypatch.setattr(resolve_recipe, "choose_device", lambda *_: torch.device("cuda"))
    assert plan().num_processes == 1


@pytest.mark.parametrize("option", ["overlay", "student_overlay"])
def test_a_folder_without_recordings_is_refused_before_the_first_stage(project, option):
    augmentation = "{reverb_prob: 0.5, rir_dir: data/rirs}"
    Path("rooms.yaml").write_text(f"dataset_conf: {{augment_conf: {augmentation}}}")
    with pytest.raises(DataError, match="^data/rirs: no .wav, .flac, .ogg, .opus, .mp3 file"):
        plan(f"{option}=rooms.yaml")


def test_stages_replace_the_alpha_of_a_preset_and_the_plan_says_so(project):
    resolved = plan("preset=3", "student_overlay=conf/overlays/stages_three.yaml")
    assert (resolved.student.epochs, resolved.student.num_average) == (35, 10)
    assert resolved.student_overlays[0] == Path("conf/presets/balanced.yaml")
    assert resolved.student_overrides == ("distill_conf.alpha=0.5", "distill_conf.alpha_floor=0.05")
    assert resolved.weighting == (
        "by stage (conf/overlays/stages_three.yaml); they replace alpha of "
        "conf/presets/balanced.yaml"
    )
    assert plan("preset=balanced").weighting.startswith("alpha 0.25 for the labels")
    assert "(--alpha)" in plan("alpha=0.8").weighting


def test_the_quick_preset_is_quick_from_nothing(project):
    quick = plan("preset=quick", "name=mine")
    assert (quick.base.epochs, quick.teacher.epochs, quick.student.epochs) == (2, 4, 3)
    assert quick.teacher.num_average == 2 and quick.base.source == "--preset quick"
    assert quick.base.flags == ["--override", "training_config.max_epoch=2"]
    # Its short teacher is not where a longer run would go on from it.
    assert quick.teacher_checkpoint == Path("exp/mine_quick/teacher/avg_2.pt")
    for name in ("A.pt", "config.yaml"):
        (project / name).touch()
    given = plan("preset=quick", "name=mine", "teacher_checkpoint=A.pt")
    assert given.exp == Path("exp/mine") and given.student.flags == []


def test_a_wake_word_from_its_text(project):
    resolved = plan("from_text=true", "keywords=hey orchard,Alexa", "size=standard")
    assert resolved.lists == Path("data/hey_orchard-alexa")
    assert resolved.overlays == (Path("conf/overlays/from_text.yaml"),)
    assert (resolved.base.epochs, resolved.student.epochs) == (20, 20)
    assert resolved.student.num_average == 10
    speech = resolved.synthesis
    assert speech.out_dir == Path("data/hey_orchard-alexa/corpus")
    assert "--eval_keywords_only" not in speech.flags
    assert speech.flags[-2:] == ("--size", "standard")
    assert "synthesised (--negatives gives others)" in resolved.summary(ALL)
    (project / "noise").mkdir()
    quick = plan("from_text=true", "keywords=hey orchard", "negatives=noise")
    assert quick.lists == Path("data/hey_orchard_quick")
    assert quick.overlays == (Path("conf/overlays/from_text_quick.yaml"),)
    assert "--eval_keywords_only" in quick.synthesis.flags
    expected = "noise (dev and test; the phonemes of transcribed ones are learnt)"
    assert expected in quick.summary(ALL)
    assert quick.learns_transcripts and quick.base_sets == (Path("data/hey_orchard_quick/train"),)
    for changes in (["units=letters"], ["negatives_text=filler"]):
        without = plan("from_text=true", "keywords=hey orchard", "negatives=noise", *changes)
        assert not without.learns_transcripts
        assert "noise (dev and test alone, none in training)\n" in without.summary(ALL)
    assert plan("from_text=true", "keywords=嗨小问").lists == Path("data/嗨小问_quick")


def test_units_of_words(project, monkeypatch):
    made = plan("from_text=true", "keywords=hey orchard")
    lexicon = Path("data/hey_orchard_quick/dict/lexicon.txt")
    assert made.tokens.lexicon == lexicon and made.tokens.is_made
    assert f"phonemes of espeak-ng -> {lexicon}" in made.summary(ALL)
    touch(project / "A.pt")
    touch(project / "config.yaml")
    (project / "words.txt").write_text("HEY a b\nORCHARD c\n", encoding="utf-8")
    text = ["from_text=true", "keywords=hey orchard"]
    assert plan(*text, "teacher_checkpoint=A.pt").tokens.lexicon is None
    touch(project / "taught/A.pt")
    touch(project / "taught/config.yaml")
    touch(project / "taught/lexicon.txt")
    given = plan(*text, "teacher_checkpoint=taught/A.pt").tokens
    assert given.lexicon == Path("taught/lexicon.txt") and not given.is_made
    assert plan(*text, "units=letters").tokens.lexicon is None
    assert plan("from_text=true", "keywords=嗨小问").tokens.lexicon is None
    given = plan(*text, "lexicon=words.txt")
    assert given.tokens.lexicon == Path("words.txt") and not given.tokens.is_made
    found = object()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    (project / "mine").mkdir()
    recordings = ["data_dir=mine", "keywords=JARVIS"]
    assert plan(*recordings).tokens.is_made
    assert plan(*recordings, "units=phonemes").tokens.is_made
    assert plan(*recordings, "units=letters").tokens.lexicon is None
    assert plan("data_dir=mine", "keywords=嗨小问").tokens.lexicon is None
    made = plan("data_dir=mine", "keywords=嗨小问", "units=phonemes")
    assert made.tokens.is_made and made.synthesis is not None
    assert "initials and finals -> data/mine/dict/lexicon.txt" in made.summary(ALL)
    for options, message in (
        (
            ["data_dir=mine", "keywords=ПРИВЕТ", "units=phonemes"],
            "cannot pronounce ПРИВЕТ in language en; give --units letters",
        ),
        ([*text, "units=phonemes", "lexicon=words.txt"], "--units phonemes: --lexicon gives the"),
        (
            ["keywords=hey there,orchard", "lexicon=words.txt"],
            "--lexicon words.txt: no entry for THERE of the keywords; add a line such as `THERE u",
        ),
        ([*recordings, "units=phonemes", "stage=1"], "data/mine/train/text"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan(*options)
    for name in ("train/text", "synth/train/text", "dict/dict.txt"):
        touch(project / "data/mine" / name)
    with pytest.raises(ConfigError, match="data/mine/dict/lexicon.txt: no such file; stage 0"):
        plan(*recordings, "units=phonemes", "stage=1")
    # Lists that were made with letters keep them.
    touch(project / "data/hey_orchard_quick/dict/dict.txt")
    assert plan(*text).tokens.lexicon is None
    touch(project / "data/hey_orchard_quick/dict/lexicon.txt")
    assert plan(*text).tokens.is_made
    found = None
    with pytest.raises(ConfigError, match="--units phonemes: espeak-ng is not installed"):
        plan(*recordings, "units=phonemes")


def test_which_epochs_are_averaged(project):
    text = ["from_text=true", "keywords=hey orchard"]
    assert plan().average_best and not plan("average_best=false").average_best
    assert not plan(*text).average_best and plan(*text, "average_best=true").average_best
    with pytest.raises(ConfigError, match="--average_best: found 'yes'; expected auto"):
        plan("average_best=yes")


def test_the_base_learns_phonemes_from_synthesised_speech_alone(project, monkeypatch):
    (project / "mine").mkdir()
    found = object()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    recordings = ["data_dir=mine", "keywords=JARVIS,SMART MIRROR"]
    usual = plan(*recordings)
    assert usual.synthesis.out_dir == Path("data/mine/synth")
    assert usual.synthesis.flags[-2:] == ("--positives", "618")
    assert usual.synthesis.num_train == 4202
    assert usual.base_sets == (Path("data/mine/synth/train"),)
    assert "dataset_conf.join_prob=0" in usual.base_overrides
    assert (usual.base.epochs, usual.teacher.epochs) == (30, 25)
    assert not usual.synthesis.joins_recordings
    both = plan(*recordings, "synth_for=all", "synth_positives=300")
    assert both.synthesis.joins_recordings
    assert both.synthesis.flags[-2:] == ("--positives", "300")
    assert "4202 utterances for the base, 618 of each keyword" in usual.summary(ALL)
    assert "2040 utterances for the base, teacher and student" in both.summary(ALL)
    touch(project / "other/train/text")
    touch(project / "other/train/data.list")
    assert plan(*recordings, "extra_lists=other").base_sets[1] == Path("other/train")
    (project / "tv").mkdir()
    recordings.append("negatives=tv")
    assert not plan(*recordings).learns_transcripts
    noisy = plan(*recordings)
    assert noisy.overlays[-1] == Path("conf/overlays/background.yaml")
    base, teacher = (of.config.dataset_conf.augment_conf for of in (noisy.base, noisy.teacher))
    assert teacher.noise_weights["background"] == 4
    # The base hears synthesised speech: the noise that it has without that overlay.
    negatives, background = (path.resolve() for path in noisy.overlays)
    without = plan(*recordings, f"overlay={negatives}")
    for other in (without, plan(*recordings, f"overlay={negatives},{background}")):
        assert base == other.base.config.dataset_conf.augment_conf
    assert noisy.base.epochs == 30

    touch(project / "data/mine/train/text")
    with pytest.raises(ConfigError, match="data/mine/synth/train/text: no such file; stage -1"):
        plan(*recordings, "stage=0")

    for options in (["units=letters"], ["synth_positives=0"]):
        without = plan(*recordings, *options)
        assert without.synthesis is None
        assert without.base_sets == (Path("data/mine/train"),)
        assert (without.base.epochs, len(without.base_overrides)) == (10, 2)
    assert plan("data_dir=mine", "keywords=嗨小问").synthesis is None
    assert plan("corpus=mobvoi").synthesis is None
    found = None
    assert plan(*recordings).tokens.lexicon is None
    with pytest.raises(ConfigError, match="espeak-ng is not installed"):
        plan(*recordings, "synth_positives=10")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["from_text=true", "data_dir=."], "--from_text: means .* leave out --data_dir"),
        (["from_text=true", "corpus=mobvoi"], "leave out --corpus mobvoi"),
        (["from_text=true", "size=small"], r"--size small: expected tiny \| quick \| standard"),
        (["size=quick"], r"--size quick: expected tiny \| small \| full \| large \| long_test$"),
        (["from_text=true", "keywords=ПРИВЕТ"], "cannot pronounce ПРИВЕТ in language en"),
        (["from_text=true", "synth_positives=9"], "--synth_positives: only recordings take it"),
        (["from_text=true", "synth_for=all"], "--synth_for: only recordings take it"),
        (["data_dir=.", "keywords=ПРИВЕТ", "synth_positives=9"], "cannot pronounce ПРИВЕТ"),
        (["data_dir=.", "synth_positives=0", "engines=piper"], "--engines: nothing is synthesised"),
        (["data_dir=.", "synth_positives=0", "synth_for=all"], "--synth_for: nothing is synth"),
        (["synth_for=all"], "--synth_for: only"),
        (["voices=."], "--voices: only --from_text and recordings"),
        (["from_text=true", "voices=nowhere"], "--voices nowhere: no such file or folder"),
        (["synth_positives=-1"], "--synth_positives -1: expected at least 0"),
    ],
)
def test_synthesis_that_does_not_fit_is_refused(project, options, message):
    with pytest.raises(ConfigError, match=message):
        plan(*options)


def readme_commands() -> list[str]:
    """Return the arguments of every run_distill.sh in the README and the example's README."""
    texts = [(ROOT / p).read_text("utf-8") for p in ("README.md", "examples/hi_xiaowen/README.md")]
    text = "\n".join(texts).replace("\\\n", " ")
    found = re.findall(r"bash run_distill\.sh((?: +(?:\"[^\"]*\"|[^\s`;|\"]+))*)", text)
    return sorted(set(found))


@pytest.mark.parametrize("command", readme_commands())
def test_every_command_of_the_readme_can_be_planned(project, command, monkeypatch):
    # Its models and services may not be installed here.
    monkeypatch.setattr("wekws.sweep.resolve_recipe.load_feature_teacher", lambda name: None)
    monkeypatch.setattr("wekws.sweep.recipe_options.trackers_from_text", lambda text: None)
    files = ("base/final.pt", "base/dict.txt")
    own_bases = [f"exp/{name}/{file}" for name in ("real", "real781") for file in files]
    for name in ("A.pt", "B.pt", "base/base.pt", "base/tokens.txt", *own_bases):
        touch(project / name)
        touch((project / name).with_name("config.yaml"))
    for name in ("DIR", "DIR2", "DIR3"):
        (project / name).mkdir()
    for lists in ("synth_en", "synth_small", "real"):
        for name in (*LISTS, "dev/data.list", "test/data.list"):
            touch(project / "data" / lists / name)
        touch(project / "exp" / lists / "teacher/avg_30.pt")
    words = shlex.split(command.replace("$KEYWORDS", "JARVIS,ALEXA"))
    if words == ["--help"]:
        return
    options = []
    while words:
        name = words.pop(0).removeprefix("--")
        is_bare = not words or words[0].startswith("--")
        options.append(f"{name}={'true' if is_bare else words.pop(0)}")
    assert plan(*options).summary(ALL)


def test_a_given_teacher_is_given_even_where_the_recipe_puts_its_own(project):
    path = Path("exp/synth_small/teacher/avg_8.pt")
    touch(path)
    touch(path.with_name("config.yaml"))
    resolved = plan(f"teacher_checkpoint={path}", "teacher_epochs=4", "num_average=8")
    assert resolved.teacher_given and resolved.teacher_checkpoint == path
    assert "teacher   given, not trained" in resolved.summary(ALL)


@pytest.mark.parametrize(
    ("stage", "trained"), [(1, []), (2, ["base", "teacher"]), (3, ["student"])]
)
def test_a_model_that_no_stage_trains_has_no_epochs_in_the_plan(project, stage, trained):
    lines = plan().summary(range(stage, stage + 1)).splitlines()
    models = {line.split()[0]: line for line in lines if "->" in line}
    assert [name for name, line in models.items() if "80 epochs" in line] == trained
    others = [line for name, line in models.items() if name not in trained]
    assert all("not trained in these stages -> exp/synth_small/" in line for line in others)


@pytest.mark.parametrize(
    ("stages", "named"),
    [
        (range(-2, 3), set()),
        (range(3, 5), {"weights"}),
        (range(5, 6), {"report"}),
        (range(3, 7), {"weights", "report"}),
    ],
)
def test_the_plan_names_the_weights_and_the_report_of_stages_that_use_them(project, stages, named):
    rows = {line.split()[0] for line in plan().summary(stages).splitlines()}
    assert rows & {"weights", "report"} == named


def test_paths_count_from_the_callers_folder_then_from_the_projects(project, tmp_path):
    caller = tmp_path / "elsewhere"
    caller.mkdir()
    (caller / "mine.yaml").write_text("training_config: {max_epoch: 5}\n")
    (project / "mine.yaml").write_text("training_config: {max_epoch: 6}\n")
    overlays = "student_overlay=mine.yaml,conf/overlays/hidden.yaml"
    resolved = plan(overlays, "download_dir=new", caller_dir=caller)
    assert resolved.student_overlays == (caller / "mine.yaml", Path("conf/overlays/hidden.yaml"))
    assert (resolved.student.epochs, resolved.download_dir) == (5, caller / "new")
    assert plan(overlays, caller_dir=project).student.epochs == 6


def test_a_feature_teacher_brings_its_overlay_below_the_users(project, feature_teacher, tmp_path):
    resolved = plan(f"feature_teacher={feature_teacher}", "overlay=conf/overlays/speed.yaml")
    names = [path.stem for path in resolved.overlays]
    assert names == ["embedding", "speed"] and resolved.feature_teacher == feature_teacher
    assert f"features  towards {feature_teacher}" in resolved.summary(ALL)
    name = Path(feature_teacher).name
    relative = plan(f"feature_teacher={name}", caller_dir=Path(feature_teacher).parent)
    assert Path(relative.feature_teacher).samefile(feature_teacher)
    assert plan().feature_teacher == "" and "features" not in plan().summary(ALL)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.yaml", "--feature_teacher none.yaml: no such file"),
        ("HUBERT_BASIS", "HUBERT_BASIS: expected a YAML description, or a bundle"),
        ("broken.yaml", "stages: missing"),
    ],
)
def test_a_wrong_feature_teacher_is_refused_before_the_first_stage(project, name, message):
    (project / "broken.yaml").write_text("{window_ms: 25, hop_ms: 10, num_values: 3}\n")
    with pytest.raises(ConfigError, match=message):
        plan(f"feature_teacher={name}")


def test_front_end_changes_with_the_overlay_alone(project):
    (project / "noisy.yaml").write_text("dataset_conf: {frame_skip: 2}\n")
    (project / "other.yaml").write_text("optim_conf: {lr: 0.1}\n")
    fronts = [plan(f"overlay={o}").front_end for o in ("none", "other.yaml")]
    assert fronts[0] == fronts[1] != plan("overlay=conf/overlays/small_corpus.yaml").front_end


def test_the_script_gets_what_was_resolved_whatever_the_names_hold(project, tmp_path, capsys):
    folder = tmp_path / "my $(touch hacked) 'tones'; *"
    for split in SPLITS:
        touch(folder / split / "wav.scp")
        (folder / split / "wav.scp").write_text("u u.wav\n")
        (folder / split / "text").write_text("u 嗨小问 你好问问\n", encoding="utf-8")
    write_noise(folder / "u.wav", 0.5)
    options = [*defaults(), f"data_dir={folder}", "overlay=none", "student_epochs=40", "bf16=false"]
    assert plan_recipe.main(["--", *options]) == 0
    script = capsys.readouterr().out + 'printf "%s|" "$lists" ${#overlay_flags[@]}'
    script += ' "${student_flags[@]}" "$lexicon" "$teacher_given"'
    done = subprocess.run(["bash", "-euc", script], capture_output=True, encoding="utf-8")
    assert done.stdout == (f"data/{folder.name}|0|--override|training_config.max_epoch=40||false|")
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("budgets=abc", "budgets: found 'abc'"),
        ("budgets=", "budgets: found ''"),
        ("num_tokens=abc", "--num_tokens abc: expected `all` or a number from 3"),
        ("num_tokens=2", "--num_tokens 2: expected"),
        ("seed=-1", "--seed -1: expected at least 0"),
        (f"seed={1 << 64}", "expected below"),
        ("corpus_seed=-1", "--corpus_seed -1: expected at least 0"),
        ("device=cuda", "--device cuda: needs 99 GPUs (--num_processes 99), and torch f"),
        ("name=../../x", "--name ../../x: expected the name of a folder"),
        ("name=/tmp/x", "--name /tmp/x: expected the name of a folder"),
        ("student_name=..", "--student_name ..: expected the name of a folder"),
        ("name=a/b", "--name a/b: expected the name of a folder"),
        ("student_name=teacher_2", "--student_name teacher_2: is a folder of another part"),
        ("base_dict=conf/overlays/plain.yaml", "give --base_checkpoint too, or leave it out"),
        ("student_name=teacher", "--student_name teacher: is a folder of another part"),
        ("stage=7", "no stage is left"),
        ("stop_stage=-3", "no stage is left"),
        ("temperature=1e-30", "temperature: found 1e-30"),
        ("temperature=.inf", "temperature: found inf"),
        ("extra_lists=conf", "--extra_lists conf: has no train/text"),
        ("teacher_checkpoint=conf", "--teacher_checkpoint conf: expected a checkpoint file"),
        ("more_teachers=conf/overlays/plain.yaml", "config.yaml: no such file"),
    ],
)
def test_values_that_would_fail_hours_later_are_refused_at_once(project, option, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan("num_processes=99", "device=cpu", option)


def test_the_last_stage_is_that_of_the_script(project):
    stages = re.findall(r"^if begin_stage (-?\d+)", (ROOT / "run_distill.sh").read_text(), re.M)
    assert max(map(int, stages)) == LAST_STAGE


def test_no_stage_is_left_between_them(project):
    with pytest.raises(ConfigError, match="--stage 3 --stop_stage 1: no stage is left"):
        plan("stage=3", "stop_stage=1")


@pytest.mark.parametrize(
    ("stage", "there", "missing"),
    [
        (0, [], "data/synth_small/train/text: no such file; stage -1 writes it"),
        (1, LISTS[:1], "dict/dict.txt: no such file; stage 0 writes it"),
        (2, LISTS[:2], "train/data.list: no such file; stage 1 writes it"),
        (3, [*LISTS, "dev/data.list", "test/data.list"], "avg_30.pt: no such file; stage 2 wri"),
    ],
)
def test_a_stage_says_which_one_must_run_before_it(project, stage, there, missing):
    for name in there:
        touch(project / "data/synth_small" / name)
    with pytest.raises(ConfigError, match=re.escape(missing)):
        plan(f"stage={stage}")


def test_all_wrong_options_are_named_at_once(project):
    options = ("budgets=abc", "stage=9", "student_config=conf/nope.yaml", "more_teachers=no.pt")
    with pytest.raises(ConfigError) as caught:
        plan(*options, "overlay=no.yaml,none", "decoder=foo", "device=gpu")
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        "--decoder:", "--device:", "--stage", "--budgets:", "--student_config", "--overlay",
        "--more_teachers",
    ]  # fmt: skip
