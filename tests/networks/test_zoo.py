"""Weights of the entry, of a seed and of files; whatever is wrong with a file is said."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from redline.core.errors import ArtifactError, InputError
from redline.networks.zoo import ASSETS, build


def test_random_weights_are_the_same_every_time_and_of_the_usual_classes():
    first, second = build("resnet18", "random"), build("resnet18", "random")
    assert first.fc.out_features == 1000
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_seeded_weights_have_these_bits():
    weight = build("mlp").get_parameter("fc.weight")
    torch.testing.assert_close(
        weight[0, :3], torch.tensor([-0.03481115773320198, -0.03279368579387665, 0.06640017777681351]), rtol=0, atol=0
    )


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(InputError, match="did you mean resnet18"):
        build("resnet-18")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_file_decides_the_number_of_classes(tmp_path, suffix):
    state = build("convnet").state_dict()
    state["fc.weight"], state["fc.bias"] = torch.ones(7, 128), torch.ones(7)
    path = tmp_path / f"a{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, path)
    model = build("convnet", path)
    assert model.fc.out_features == 7
    assert not model.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv1a.weight"), "missing conv1a.weight; unexpected nothing"),
        (lambda state: state.update(other=torch.ones(1)), "missing nothing; unexpected other"),
        (lambda state: state.update({"conv1a.weight": torch.ones(2)}), "size mismatch for conv1a.weight"),
    ],
)
def test_another_models_weights(tmp_path, change, message):
    state = build("convnet").state_dict()
    change(state)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match=message):
        build("convnet", tmp_path / "a.pt")


def test_a_pickled_model_is_refused_with_the_reason(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match="runs whatever code is in it; save the state dict"):
        build("mlp", tmp_path / "a.pt")


def test_no_state_dict(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match="holds a list, expected a state dict"):
        build("mlp", tmp_path / "a.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_cut_file(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    save_file({"a": torch.ones(64)}, whole) if suffix == ".safetensors" else torch.save({"a": torch.ones(64)}, whole)
    content = whole.read_bytes()
    for length in (0, 1, 4, 9, len(content) // 2, len(content) - 1):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match="cut"):
            build("mlp", cut)


def test_no_file_and_no_weights_by_its_name(tmp_path):
    with pytest.raises(ArtifactError, match="is not there"):
        build("mlp", tmp_path / "none.pt")
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="truncated or not a PyTorch file"):
        build("mlp", tmp_path / "a.onnx")


def test_trained_parts_are_refused_beside_other_seeded_ones(tmp_path):
    shipped = load_file(ASSETS / "resnet18_photos.safetensors")
    save_file(shipped, tmp_path / "a.safetensors", {"seed": "1", "seeded_sha256": "0"})
    with pytest.raises(ArtifactError, match="draws from its seed"):
        build("resnet18", tmp_path / "a.safetensors")
