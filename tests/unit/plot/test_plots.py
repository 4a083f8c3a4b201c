"""Pictures are checked by what is on their axes; how they look is for eyes."""

import json

import fake_results as fake
import numpy as np
import pytest
from matplotlib.figure import Figure

from wekws.bin import plot_confidence as confidence_command
from wekws.bin import plot_curves as curves_command
from wekws.bin import plot_det as det_command
from wekws.bin import plot_durations as durations_command
from wekws.errors import DataError
from wekws.plot import style
from wekws.plot.confidence import plot_confidence
from wekws.plot.curves import plot_curves
from wekws.plot.det_curves import plot_det
from wekws.plot.durations import plot_durations
from wekws.plot.epochs import plot_epochs
from wekws.plot.variants import VariantFigures, plot_sizes
from wekws.score.paired import Estimate
from wekws.score.results import read_result

PNG = b"\x89PNG"
HI_XIAOWEN = ["嗨小问", "你好问问"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved during the test."""
    figures = []
    save = Figure.savefig

    def remember(self, *args, **kwargs):
        figures.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


@pytest.fixture
def without_cjk_font(monkeypatch):
    monkeypatch.setattr(style, "cjk_font", lambda: None)


def results(tmp_path, keywords, num_models=2, **options):
    names = [f"model {i}" for i in range(num_models)]
    return [
        read_result(name, fake.make_result(tmp_path / name, keywords, seed=i, **options))
        for i, name in enumerate(names)
    ]


def test_sizes_have_one_named_point_each(tmp_path, drawn):
    variants = [
        VariantFigures(name=name, params=params, frr=Estimate(0.05, 0.03, 0.08),
                       frr_of_runs=[0.04, 0.06], losses=[])
        for name, params in (("large", 200_000), ("unknown", None), ("small", 50_000))
    ]  # fmt: skip
    plot_sizes(variants, tmp_path / "sizes.png", title="sizes", budget="1/h")
    axis = drawn[0].axes[0]
    assert [text.get_text() for text in axis.texts] == ["small", "large"]
    assert axis.lines[0].get_xdata().tolist() == [50_000, 200_000]
    assert axis.get_xscale() == "log" and axis.get_ylim()[0] == 0.0


def test_names_are_pinyin_only_without_a_font(monkeypatch):
    monkeypatch.setattr(style, "cjk_font", lambda: None)
    assert style.readable("嗨小问") == "hāi xiǎo wèn"
    assert style.readable("SMART MIRROR") == "SMART MIRROR"
    monkeypatch.setattr(style, "cjk_font", lambda: "Some CJK")
    assert style.readable("嗨小问") == "嗨小问"


@pytest.mark.parametrize(("num_keywords", "num_models"), [(1, 1), (2, 2), (6, 4)])
def test_det_and_confidence_have_a_panel_a_keyword(
    tmp_path, drawn, without_cjk_font, num_keywords, num_models
):
    keywords = ["嗨小问", "SMART MIRROR", "C", "D", "E", "F"][:num_keywords]
    models = results(tmp_path, keywords, num_models, positives=40, negatives=200)
    plot_det(models, tmp_path / "det.png")
    plot_confidence(models, tmp_path / "confidence.png")
    assert (tmp_path / "det.png").read_bytes()[:4] == PNG
    assert (tmp_path / "confidence.png").read_bytes()[:4] == PNG
    for figure in drawn:
        titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
        assert titles == ["hāi xiǎo wèn", *keywords[1:]]
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels[:num_models] == [model.name for model in models]


def test_no_text_leaves_the_picture_and_no_character_is_missing(tmp_path, drawn, recwarn):
    names = ["a student with quite a long name, T=2, alpha=0.5", "another one of that kind"]
    models = [
        read_result(name, fake.make_result(tmp_path / str(i), HI_XIAOWEN, positives=50))
        for i, name in enumerate(names)
    ]
    plot_det(models, tmp_path / "det.png")
    plot_confidence(models, tmp_path / "confidence.png")
    for figure in drawn:
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= -0.01 and box.y0 >= -0.01
        assert box.x1 <= width + 0.01 and box.y1 <= height + 0.01
    assert not [warning for warning in recwarn if "missing from" in str(warning.message)]


def test_det_draws_zero_false_alarms_at_a_left_edge(tmp_path, drawn):
    models = results(tmp_path, ["A"], 1)
    plot_det(models, tmp_path / "det.png")
    axis = drawn[0].axes[0]
    drawn[0].canvas.draw()
    assert axis.get_xticklabels()[0].get_text() == "0"
    x, y = axis.get_lines()[-4].get_data()  # three operating points are drawn after the curve
    assert np.isclose(x[0], axis.get_xticks()[0]) and (np.diff(x) > 0).all()
    assert (np.diff(y) <= 0).all()


def unsupported(tmp_path):
    """A result whose dev, 1.62 h, is too small for 0.5/h and 1/h: both have one threshold."""
    folder = fake.make_result(tmp_path / "x", ["A"], positives=100)
    summary = json.loads((folder / "summary.json").read_text())
    points = summary["keywords"][0]["operating_points"]
    points[1] |= {key: points[0][key] for key in ("threshold", "misses", "false_alarms")}
    for point in points[:2]:
        point |= {"rule": "upper", "dev_upper_per_hour": 1.853}
    fake.write_json(folder / "summary.json", summary)
    return read_result("x", folder)


def test_a_threshold_that_dev_does_not_support_is_named_so_and_drawn_once(tmp_path, drawn):
    plot_det([unsupported(tmp_path)], tmp_path / "det.png")
    plot_confidence([unsupported(tmp_path)], tmp_path / "confidence.png")
    labels = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    assert "strictest threshold of dev (1.85/h),\nin place of 0.5/h and 1/h" in labels[0]
    assert "threshold for 1 in all" in labels[0]
    assert labels[1] == ["x", "strictest threshold of dev (1.85/h)"]
    drawn_markers = [line.get_marker() for line in drawn[0].axes[0].lines]
    assert drawn_markers[-2:] == ["o", "s"]


def test_markers_in_one_place_all_show(tmp_path, drawn):
    """A square in a circle: its half diagonal is shorter than the circle's radius."""
    plot_det(results(tmp_path, ["A"], 2), tmp_path / "det.png")
    sizes = [line.get_markersize() for line in drawn[0].axes[0].lines if line.get_marker() in "os"]
    assert len(sizes) == 4
    assert all(circle > square * 2**0.5 for circle, square in zip(*[iter(sizes)] * 2, strict=True))


def test_det_near_zero_frr_keeps_a_readable_axis(tmp_path, drawn):
    plot_det(results(tmp_path, ["A"], 1, quality=12.0), tmp_path / "det.png")
    bottom, top = drawn[0].axes[0].get_ylim()
    assert bottom < 0 < 2.0 <= top <= 3.0


def test_det_without_a_summary_has_no_band_and_no_points(tmp_path, drawn):
    folder = fake.make_result(tmp_path / "x", ["SMART MIRROR"])
    (folder / "summary.json").unlink()
    plot_det([read_result("wekws", folder)], tmp_path / "det.png")
    axis = drawn[0].axes[0]
    assert axis.get_title() == "SMART MIRROR"
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["wekws"]


def test_a_set_without_positives_says_so(tmp_path, drawn):
    models = results(tmp_path, ["A"], 1, positives=0)
    plot_det(models, tmp_path / "det.png")
    plot_confidence(models, tmp_path / "confidence.png")
    assert drawn[0].axes[0].texts[0].get_text() == "no utterance with this keyword"
    assert drawn[1].axes[0].texts[0].get_text() == "no positives in this set"


def test_all_scores_equal_is_one_step(tmp_path):
    (tmp_path / "stats.A.txt").write_text("0 10 0\n0.5 10 0\n1 0 1\n")
    model = read_result("x", tmp_path)
    plot_det([model], tmp_path / "det.png")
    plot_confidence([model], tmp_path / "confidence.png")
    assert (tmp_path / "confidence.png").exists()


def test_curves_leave_out_kd_where_no_run_has_it(tmp_path, drawn):
    fake.make_run(tmp_path / "teacher", has_kd=False)
    fake.make_run(tmp_path / "student")
    plot_curves({"t": tmp_path / "teacher"}, tmp_path / "a.png")
    plot_curves({"t": tmp_path / "teacher", "s": tmp_path / "student"}, tmp_path / "b.png")
    titles = [[axis.get_title(loc="left") for axis in figure.axes] for figure in drawn]
    assert titles[0] == ["cv loss", "Token accuracy (%)", "CTC", "Learning rate"]
    assert titles[1][:4] == [*titles[0][:3], "Distillation (KD)"]
    epochs, losses = drawn[0].axes[0].get_lines()[0].get_data()
    assert epochs[0] == -1 and losses[0] == 188.0


def test_curves_show_every_term_setting_layer_and_border(tmp_path, drawn):
    rows = [{"kind": "cv", "step": 0, "epoch": -1, "cv_loss": 90.0}]
    for epoch in range(4):
        place = {"step": 10 * epoch + 10, "epoch": epoch}
        stage = "align" if epoch < 2 else "task"
        if epoch in (0, 2):
            rows.append({"kind": "stage", **place, "name": stage})
        if epoch == 2:
            rows.append({"kind": "growth", **place, "num_layers": 3})
        rows.append({"kind": "step", **place, "alpha": 0.1 * epoch, "temperature": 4.0 - epoch})
        rows += [
            {"kind": "gradient", **place, "grad_cos_kd": cosine, "grad_share_kd": 0.5}
            for cosine in (0.2, 0.4)
        ]
        gradient = {"fsmn.0": 1.0 + epoch, "out_linear2": 2.0}
        rows.append({"kind": "layers", **place, "gradient": gradient})
        more = {
            "lr": 1e-3,
            "stage": stage,
            "seconds": 2.0,
            "gate_mean": 0.5,
            "gate_mean_blank": 0.1,
        }
        more |= {"train_ctc": 9.0, "train_kd": 5.0, "train_hidden": 3.0, "cv_hidden": 4.0}
        rows.append({"kind": "cv", **place, "cv_loss": 10.0 - epoch, **more})
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + "\n")
    plot_curves({"run": tmp_path}, tmp_path / "c.png")
    axes = {axis.get_title(loc="left"): axis for axis in drawn[0].axes}
    assert [title for title in axes if title] == [
        *("cv loss", "CTC", "Distillation (KD)", "Term hidden", "Learning rate", "alpha"),
        *("Temperature", "Gradient norm by layer", "Cosine to CTC's gradient"),
        *("Share of the gradient", "Figures of gate"),
    ]
    layers = {line.get_label(): line for line in axes["Gradient norm by layer"].lines}
    assert layers["fsmn.0"].get_ydata().tolist() == [1.0, 2.0, 3.0, 4.0]
    cosines = axes["Cosine to CTC's gradient"].lines[0]
    assert cosines.get_label() == "kd" and cosines.get_ydata() == pytest.approx([0.3] * 4)
    assert axes["alpha"].lines[0].get_ydata() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    gates = [line.get_label() for line in axes["Figures of gate"].lines]
    assert gates[:2] == ["mean", "mean_blank"]
    # Both borders lie before epoch 2; the first stage begins with the run and needs no line.
    assert [text.get_text() for text in axes["cv loss"].texts][1:] == ["task, 3 blocks"]


def test_curves_before_the_first_epoch_is_done(tmp_path):
    fake.make_run(tmp_path / "run", epochs=0)
    plot_curves({"run": tmp_path / "run"}, tmp_path / "c.png")
    assert (tmp_path / "c.png").exists()


def test_durations_switch_to_a_log_axis_for_long_recordings(tmp_path, drawn):
    plot_durations(fake.make_validation(tmp_path / "a.json"), tmp_path / "a.png")
    plot_durations(fake.make_validation(tmp_path / "b.json", True), tmp_path / "b.png")
    assert [figure.axes[0].get_xscale() for figure in drawn] == ["linear", "log"]
    assert "4,000 utterances" in drawn[0].axes[0].get_title(loc="right")


def test_durations_of_an_empty_split_and_of_nothing(tmp_path):
    empty = {"splits": {"train": {"durations": [1.0, 2.0]}, "test": {"durations": []}}}
    (tmp_path / "v.json").write_text(json.dumps(empty))
    plot_durations(tmp_path / "v.json", tmp_path / "d.png")
    (tmp_path / "v.json").write_text("{}")
    with pytest.raises(DataError, match="splits"):
        plot_durations(tmp_path / "v.json", tmp_path / "d.png")


def test_an_unknown_kind_of_picture_is_refused(tmp_path):
    with pytest.raises(DataError, match="png"):
        plot_durations(fake.make_validation(tmp_path / "v.json"), tmp_path / "d.bmp")


def test_commands_print_what_they_wrote(tmp_path, capsys):
    folder = fake.make_result(tmp_path / "r", ["A"], positives=20, negatives=50)
    run = fake.make_run(tmp_path / "run")
    validation = fake.make_validation(tmp_path / "v.json")
    out = str(tmp_path / "out.png")
    assert det_command.main(["--result_dirs", f"m={folder}", "--out", out]) == 0
    assert confidence_command.main(["--result_dirs", f"m={folder}", "--out", out]) == 0
    assert curves_command.main(["--model_dirs", str(run), "--out", out]) == 0
    assert durations_command.main(["--validation", str(validation), "--out", out]) == 0
    assert capsys.readouterr().out.split() == [out] * 4


def test_ends_are_marked_in_the_panel_of_the_cv_loss_alone(tmp_path, drawn):
    runs = {name: fake.make_run(tmp_path / name, epochs=3, seed=i) for i, name in enumerate("ab")}
    plot_curves(runs, tmp_path / "plain.png")
    plot_curves(runs, tmp_path / "marked.png", mark_ends=True)
    counts = [
        [sum(line.get_linestyle() == ":" for line in axis.lines) for axis in figure.axes]
        for figure in drawn
    ]
    assert counts == [[0] * 6, [2, *[0] * 5]]  # five panels and an empty place


def wide_run(folder):
    """KD over eight decades, and eight adapters with long names."""
    folder.mkdir()
    rows = []
    for epoch in range(9):
        place = {"epoch": epoch, "step": epoch}
        kd = {"cv_kd": 10.0 ** (5 - epoch), "train_kd": 10.0 ** (5 - epoch)}
        rows.append({"kind": "cv", **place, "cv_loss": 9.0, **kd})
        norms = {f"hidden.adapters.fsmn.{i}.linear": 1.0 + i for i in range(8)}
        layers = {f"out_linear{i}": 10.0**-i for i in range(4)}
        rows.append({"kind": "layers", **place, "gradient": layers, "adapter_gradient": norms})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_tick_labels_do_not_lie_on_each_other(tmp_path, drawn):
    plot_curves({"run": wide_run(tmp_path / "run")}, tmp_path / "c.png")
    for axis in drawn[0].axes:
        labels = [label for label in axis.get_yticklabels(which="both") if label.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        boxes.sort(key=lambda box: box.y0)
        assert all(a.y1 <= b.y0 for a, b in zip(boxes, boxes[1:], strict=False))
        assert not any("mathdefault" in label.get_text() for label in labels)
        assert axis.get_yscale() != "log" or len(boxes) >= 3


def test_a_legend_stays_in_its_panel_and_covers_no_line(tmp_path, drawn):
    plot_curves({"run": wide_run(tmp_path / "run")}, tmp_path / "c.png")
    axes = [axis for axis in drawn[0].axes if axis.get_legend()]
    assert len(axes) == 2
    for axis in axes:
        legend, panel = axis.get_legend().get_window_extent(), axis.get_window_extent()
        assert panel.x0 <= legend.x0 and legend.x1 <= panel.x1
        highest = max(max(line.get_ydata()) for line in axis.lines)
        assert axis.transData.transform((0, highest))[1] < legend.y0


def test_markers_of_the_highest_frr_are_not_cut(tmp_path, drawn):
    plot_epochs([0, 1, 2], [("dev", [0.40, 0.41, 0.41])], [1, 2], tmp_path / "e.png", "1/h")
    plot_epochs([0, 1], [("dev", [0.0, 0.0])], [0], tmp_path / "f.png", "1/h")
    tops = [figure.axes[0].get_ylim()[1] for figure in drawn]
    assert tops == [pytest.approx(1.08 * 41.0), 1.0]
