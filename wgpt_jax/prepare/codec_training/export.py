"""Writes a trained codec as a folder that ``EncodecModel.from_pretrained`` reads."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import EncodecConfig, EncodecModel

# The fields of ENCODEC's own configuration, without those that any transformers model has.
FIELDS = {*EncodecConfig.__annotations__, "model_type", "transformers_version"}


def export_codec(model: EncodecModel, folder: Path) -> None:
    """Writes ``config.json`` and ``model.safetensors`` to ``folder``, each in one move.

    Weights are stored as float16, half the bytes, and ``"dtype": "float32"`` in the config lets ``from_pretrained``
    widen them again. ``embed_avg``, the running sums of training, is zeroed: nothing reads it, and zeros compress.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        value = torch.zeros_like(tensor) if name.endswith("embed_avg") else tensor
        state[name] = value.detach().cpu().to(torch.float16).contiguous() if value.is_floating_point() else value.cpu()
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
    everything = json.loads(model.config.to_json_string(use_diff=False))
    fields = {name: everything[name] for name in everything if name in FIELDS} | {
        "architectures": ["EncodecModel"],
        "dtype": "float32",
    }
    (partial / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    (partial / "model.safetensors").chmod(0o644)
    folder.mkdir(exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        (partial / name).replace(folder / name)
    partial.rmdir()


def load_codec(folder: Path, device: str = "cpu") -> EncodecModel:
    """Reads an exported codec as float32, in evaluation mode."""
    return EncodecModel.from_pretrained(folder, local_files_only=True).eval().to(device)
