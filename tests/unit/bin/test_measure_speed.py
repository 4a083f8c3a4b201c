import json

import pytest
import torch

from wekws.bin.measure_speed import main
from wekws.config import to_mapping
from wekws.errors import ConfigError
from wekws.model.checkpoint import save_weights
from wekws.model.model import KwsModel
from wekws.model.model_conf import FSMNConfig, ModelConfig
from wekws.model.speed import forward_ms
from wekws.yaml_files import write_yaml


def model(width):
    backbone = FSMNConfig(
        input_affine_dim=width,
        num_layers=2,
        linear_dim=width,
        proj_dim=width,
        left_order=3,
        right_order=1,
        output_affine_dim=width,
    )
    config = ModelConfig(input_dim=40, output_dim=5, backbone=backbone)
    return KwsModel(config, (torch.zeros(40), torch.ones(40))).eval()


def test_a_far_larger_model_takes_longer():
    small, large = forward_ms([model(8), model(400)], num_frames=100, repeats=3)
    assert 0 < 2 * small < large


def test_the_figures_lie_beside_the_student(tmp_path, capsys):
    for name, width in (("teacher", 200), ("student", 8)):
        made = model(width)
        save_weights(made.state_dict(), tmp_path / name / "avg_3.pt")
        write_yaml(tmp_path / name / "config.yaml", {"model": to_mapping(made.config)})
    flags = ["--teacher_checkpoint", f"{tmp_path}/teacher/avg_3.pt"]
    flags += ["--checkpoint", f"{tmp_path}/student/avg_3.pt"]
    assert main(flags) == 0
    record = json.loads((tmp_path / "student" / "speed.json").read_text())
    times = [record[name]["forward_ms"] for name in ("teacher", "student")]
    assert record["speed_up"] == pytest.approx(times[0] / times[1], rel=0.01) and times[1] > 0
    assert (record["num_threads"], record["batch_size"], record["duration_s"]) == (1, 1, 3.0)
    assert record["student"]["checkpoint"].endswith("student/avg_3.pt")
    assert "times as fast" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="duration_s"):
        main([*flags, "--duration_s", "0"])
