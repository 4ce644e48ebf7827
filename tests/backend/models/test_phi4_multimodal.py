"""The names in which Phi-4-multimodal was published, and what text alone does not need, are understood."""

import json

import torch
from safetensors.torch import load_file, save_file

from tests.backend.models.families import TEXT_PARTS
from tests.backend.models.paged import Paged
from tests.backend.models.parity import reference, sequences
from tests.backend.tiny_models import save_tiny

MATRICES = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
ROW = sequences((40,))


def as_published(folder):
    """Base matrices beside the adapters of images and speech, under the model type and class of the first release."""
    path = folder / "model.safetensors"
    published = {}
    for name, tensor in load_file(path).items():
        stem, _, leaf = name.rpartition(".")
        if stem.startswith("model.layers.") and stem.endswith(MATRICES):
            published[f"{stem}.base_layer.{leaf}"] = tensor
            published.update({f"{stem}.lora_{side}.speech.weight": torch.ones(2, 2) for side in "AB"})
        else:
            published[name] = tensor
    save_file(published, path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["Phi4MMForCausalLM"], "model_type": "phi4mm"}
    (folder / "config.json").write_text(json.dumps(config))


def test_the_published_checkpoint_is_read(tmp_path):
    folder = save_tiny("phi4-multimodal", TEXT_PARTS["phi4-multimodal"].make, tmp_path)
    expected = reference(folder, ROW)[0]
    as_published(tmp_path)
    assert float((Paged(folder).step({0: ROW[0]})[0] - expected).abs().max()) < 1e-4
