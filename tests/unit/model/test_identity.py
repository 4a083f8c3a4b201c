import hashlib

from wekws.model.identity import is_of_model, model_identity
from wekws.yaml_files import write_yaml

SIZES = {
    "input_affine_dim": 5,
    "num_layers": 2,
    "linear_dim": 6,
    "proj_dim": 4,
    "left_order": 3,
    "right_order": 1,
    "output_affine_dim": 4,
}
SHA = hashlib.sha256(b"weights").hexdigest()


def configured(tmp_path, temperature):
    write_yaml(
        tmp_path / "config.yaml", {"model": {"backbone": SIZES, "score_temperature": temperature}}
    )


def test_scores_belong_to_a_file_and_a_temperature(tmp_path):
    model = tmp_path / "7.pt"
    model.write_bytes(b"weights")
    configured(tmp_path, 2.0)
    assert model_identity(model) == {"checkpoint_sha256": SHA, "score_temperature": 2.0}
    made = model_identity(model)
    assert is_of_model(made, model)
    configured(tmp_path, 3.0)
    assert not is_of_model(made, model)
    configured(tmp_path, 2.0)
    model.write_bytes(b"others")
    assert not is_of_model(made, model)


def test_older_scores_and_exported_files_have_a_temperature_of_one(tmp_path):
    model, exported = tmp_path / "7.pt", tmp_path / "7.onnx"
    model.write_bytes(b"weights")
    exported.write_bytes(b"weights")
    old = {"checkpoint_sha256": SHA}
    assert is_of_model(old, model)  # no configuration beside it
    configured(tmp_path, 2.0)
    assert not is_of_model(old, model)
    assert is_of_model(old, exported)
    assert not is_of_model({}, model)
