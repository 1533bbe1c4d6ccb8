"""The configuration of an experiment: frozen dataclasses, loaded from ``configs/NAME.py``, overridden by flags."""

import dataclasses
import difflib
import json
import math
import re
import runpy
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wgpt_jax.errors import RequestError
from wgpt_jax.mel_sources import ORIGINAL, is_source


def _parse_mix(words: list[str]) -> dict[str, float]:
    if not words or len(words) % 2:
        raise ValueError("give pairs of a source and its weight, as in: codec8 0.5 original 0.5")
    names, weights = words[::2], [float(word) for word in words[1::2]]
    if len(set(names)) < len(names):
        raise ValueError("a source is named twice")
    return dict(zip(names, weights, strict=True))


# tyro would make a flag of each key of the default, so that no other key could be given.
_MIX_FLAG = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="SOURCE WEIGHT [SOURCE WEIGHT ...]",
    instance_from_str=_parse_mix,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda mix: [word for name, weight in mix.items() for word in (name, str(weight))],
)

Weights = Literal["raw", "ema"]
"""Which weights of a checkpoint: those that training goes on with, or their average (``optimizer.ema``)."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network. One decoder; ``inputs`` says whether it also reads the mel slice."""

    inputs: Literal["tokens", "hybrid"] = "hybrid"
    """tokens: tokens alone. hybrid: tokens and the mel slice of the same frame."""
    input_codebooks: int = 1
    """Codebooks read per frame, their embeddings summed: 1, the coarse token alone, as in the paper."""
    width: int = 256
    """Channels of the decoder's residual stream, D."""
    depth: int = 4
    """Blocks of the decoder, L."""
    heads: int = 4
    """Attention heads of the decoder, H; width / heads must be even."""
    hidden: int = 1024
    """Hidden channels of the decoder's MLP, F."""
    mlp: Literal["gelu", "swiglu"] = "gelu"
    """Activation of the MLP; swiglu has three matrices instead of two."""
    token_kernel: int = 1
    """Frames whose embeddings a causal convolution adds up and puts beside the newest one, it included; 1 for none."""
    token_width: int = 96
    """Channels of that convolution."""
    mel_width: int = 96
    """Channels of the mel branch."""
    mel_depth: int = 2
    """Blocks of the mel branch; 0 leaves the convolution alone."""
    mel_heads: int = 2
    """Attention heads of the mel branch."""
    mel_kernel: int = 3
    """Slices that the mel branch's causal convolution sees, the newest one included."""
    fusion: Literal["concat", "add"] = "concat"
    """How the two normalised streams meet: concatenated and projected (the paper), or projected and added."""
    embedding_std: float = 0.01
    """Standard deviation of the token embedding at initialisation; tune it for every arm alike. Sweeps chose 0.03 or
    less for all but one (docs/LOG.md)."""
    mel_dropout: float = 0.0
    """Probability that the null mel replaces a slice during training."""
    mel_dropout_window: float = 0.0
    """Probability that the null mel replaces every slice of a window during training."""
    dropout: float = 0.0
    """Dropout of each block's two residual branches during training."""
    rope_base: float = 10_000.0
    """Base of the rotary position embedding."""
    vocabulary: int = 1024
    """Entries of the coarse codebook, V; must be the codec's."""
    mel_bands: int = 64
    """Mel bands M; must be the data's."""
    output_codebooks: int = 1
    """Codebooks predicted per frame, K: 1 as in the paper."""
    pattern: Literal["depth", "delay", "flat"] = "depth"
    """Order in which several are predicted. depth: a depth transformer goes through those of a frame. delay: one step
    per frame, codebook k lags k frames (MusicGen). flat: K steps per frame, one after the other."""
    depformer_width: int = 128
    """Channels of the depth transformer."""
    depformer_depth: int = 2
    """Blocks of the depth transformer."""
    depformer_heads: int = 2
    """Attention heads of the depth transformer."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type; auto is bfloat16 on TPU and GPU, float32 on CPU. Parameters are always float32."""
    attention: Literal["auto", "einsum", "splash", "cudnn"] = "auto"
    """Kernel over whole windows; auto is splash on TPU, cuDNN's flash on GPU in bfloat16, einsum elsewhere."""
    remat: Literal["none", "dots", "full"] = "none"
    """What a block recomputes in the backward pass: nothing, all but matrix products and attention, everything."""

    @property
    def has_depformer(self) -> bool:
        """Whether a depth transformer predicts the codebooks above the first."""
        return self.output_codebooks > 1 and self.pattern == "depth"

    @property
    def tables(self) -> int:
        """Token embeddings: one per codebook that is read."""
        return self.output_codebooks if self.pattern == "flat" else self.input_codebooks


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """How prepared records become batches."""

    context: int = 512
    """Frames to predict per window, T."""
    workers: int = 0
    """Processes that read and decode; 0 uses threads of the training process."""
    shuffle_seed: int = 0
    """Seed of the order of records and of the random windows."""
    mel_mix: Annotated[dict[str, float], _MIX_FLAG] = dataclasses.field(default_factory=lambda: {ORIGINAL: 1.0})
    """Mel sources of the data (original, codec1, ...), weighted by how often a hybrid's training window shows each."""

    @property
    def main_mel(self) -> str:
        """The heaviest mel source, which a hybrid is validated under; of equals a codec's, as generation feeds back."""
        return max(sorted(self.mel_mix), key=self.mel_mix.get)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long and how much."""

    steps: int = 10_000
    """Optimiser steps."""
    batch: int = 32
    """Windows per step over all devices and hosts, B."""
    microbatches: int = 1
    """Parts that a step's batch is computed in, one after the other: less memory; the same step but for dropout."""
    seed: int = 0
    """Seed of the initialisation and of everything random in a step."""
    eval_every: int = 500
    """Steps between evaluations on the validation split; 0 for none."""
    eval_windows: int = 256
    """Windows per such evaluation (``wgpt evaluate`` uses all); 0 for all."""
    depformer_fraction: float = 1.0
    """Fraction of each window's frames, drawn anew every step, that the depth transformer is trained on."""
    max_skipped: int = 10
    """Updates skipped in a row, their loss or gradient not being finite, after which the run stops."""
    spike_sigma: float = 0.0
    """Also skips an update whose loss or gradient norm is so many deviations above its last 128 steps; 0: never."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Muon, with a schedule of the learning rate, clipped gradients and averaged weights."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalised momentum for the matrices of blocks, at AdamW's scale; AdamW for everything else."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """After the warm-up: cosine decay to the last step; wsd: constant, then a decay over the last steps alone."""
    decay_fraction: float = 0.2
    """Fraction of all steps over which wsd decays."""
    final_fraction: float = 0.1
    """Learning rate at the last step as a fraction of the peak."""
    warmup: int = 200
    """Steps from zero to the peak."""
    beta1: float = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: float = 0.95
    """Decay of AdamW's mean of squared gradients."""
    epsilon: float = 1e-8
    """AdamW's guard against division by zero."""
    momentum: float = 0.95
    """Decay of Muon's mean of gradients."""
    weight_decay: float = 0.1
    """Decoupled decay of matrix kernels; embeddings, norms and biases are not decayed."""
    clip: float = 1.0
    """Largest global norm of the gradient."""
    ema: float = 0.0
    """Decay per step of an average of the weights, kept and evaluated beside them; 0 for none."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When state is saved and what is kept."""

    every: int = 500
    """Steps between checkpoints; evaluated steps, the last one and an interrupted one are always saved."""
    keep: int = 2
    """Latest checkpoints kept, besides the best by validation NLL."""
    keep_every: int = 0
    """Keeps every n-th step for good; 0 for none."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 takes what is left."""

    data: int = -1
    """Copies of the model, each with its part of the batch."""
    fsdp: int = 1
    """Devices that share parameters and optimiser state, and split the batch further."""
    tensor: int = 1
    """Devices that split heads, hidden channels and vocabulary."""


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """What is written while training."""

    every: int = 20
    """Steps between lines of metrics.jsonl."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""
    audio_seconds: float = 0.0
    """Seconds of audio that TensorBoard gets at each evaluation, generated by that step's weights; 0 for none."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that defines an experiment, except where its data and its run folder are."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    mesh: MeshConfig = MeshConfig()
    logging: LoggingConfig = LoggingConfig()

    def validate(self) -> "Config":
        """Checks what types cannot say; returns itself.

        Raises:
            RequestError: naming the first key whose value cannot work.
        """
        m, values = self.model, flatten(self)
        attention = (("", True), ("mel_", m.mel_depth > 0), ("depformer_", m.has_depformer))
        rules = []
        for part in (part for part, used in attention if used):
            heads, width = values[f"model.{part}heads"], values[f"model.{part}width"]
            fits = heads > 0 and width % heads == 0 and (width // heads) % 2 == 0
            why = f"{heads} heads must divide model.{part}width {width} into parts of even size"
            rules.append((f"model.{part}heads", fits, why))
        rules += [(key, values[key] >= low, f"is {values[key]}, must be at least {low}") for key, low in _AT_LEAST]
        rules += [(key, values[key] > 0, f"is {values[key]}, must be positive") for key in _POSITIVE]
        rules += [(key, 0 <= values[key] <= 1, f"is {values[key]}, must be in [0, 1]") for key in _FRACTIONS]
        rules += [(key, values[key] < 1, f"is {values[key]}, must be below 1") for key in _BELOW_1]
        rules += [(f"model.{key}", holds, why) for key, holds, why in _pattern_rules(m)]
        wrong = _wrong_with_mix(self.data.mel_mix)
        rules.append(("data.mel_mix", wrong is None, wrong))
        for key, holds, why in rules:
            if not holds:
                raise RequestError(f"{key}: {why}")
        return self


def _pattern_rules(m: ModelConfig) -> list[tuple[str, bool, str]]:
    """(key, whether it holds, why not) of what a pattern asks of the other keys."""
    if m.pattern == "depth":
        return []
    read = {"delay": m.output_codebooks, "flat": 1}[m.pattern]
    return [
        ("pattern", m.output_codebooks > 1, f"{m.pattern} orders several codebooks; model.output_codebooks is 1"),
        (
            "inputs",
            m.inputs == "tokens",
            f"no mel with {m.pattern}: a frame is complete too late to hear it",
        ),
        ("input_codebooks", m.input_codebooks == read, f"is {m.input_codebooks}, must be {read} with {m.pattern}"),
    ]


_AT_LEAST = (
    *((f"model.{name}", 1) for name in ("width", "depth", "heads", "hidden", "mel_width", "mel_kernel")),
    *((f"model.{name}", 1) for name in ("token_kernel", "token_width")),
    *((f"model.{name}", 1) for name in ("vocabulary", "mel_bands", "mel_heads", "input_codebooks")),
    ("model.output_codebooks", 1),
    *((f"model.depformer_{name}", 1) for name in ("width", "depth", "heads")),
    ("model.mel_depth", 0),
    ("data.context", 1),
    ("data.workers", 0),
    ("data.shuffle_seed", 0),
    *((f"training.{name}", low) for name, low in (("steps", 1), ("batch", 1), ("microbatches", 1), ("seed", 0))),
    *((f"training.{name}", 0) for name in ("eval_every", "eval_windows", "spike_sigma")),
    ("training.max_skipped", 1),
    ("optimizer.warmup", 0),
    ("optimizer.weight_decay", 0),
    *((f"checkpoint.{name}", low) for name, low in (("every", 1), ("keep", 1), ("keep_every", 0))),
    ("logging.every", 1),
    ("logging.audio_seconds", 0),
)
_POSITIVE = (
    *("model.embedding_std", "model.rope_base", "training.depformer_fraction"),
    *("optimizer.learning_rate", "optimizer.epsilon", "optimizer.clip", "optimizer.decay_fraction"),
)
_FRACTIONS = (
    *("model.mel_dropout", "model.mel_dropout_window", "model.dropout"),
    *("optimizer.beta1", "optimizer.beta2", "optimizer.final_fraction", "training.depformer_fraction"),
    *("optimizer.momentum", "optimizer.ema", "optimizer.decay_fraction"),
)
_BELOW_1 = (
    *("model.mel_dropout", "model.dropout"),
    *("optimizer.beta1", "optimizer.beta2", "optimizer.momentum", "optimizer.ema"),
)


def _wrong_with_mix(mix: Mapping[str, float]) -> str | None:
    """What is wrong with a mel mix, if anything."""
    if not mix:
        return "is empty; name at least one mel source and its weight, as in: original 1"
    for name, weight in mix.items():
        if not is_source(name):
            return f"{name!r} is no mel source; they are original, latent, centred, codec1, codec2, ..."
        if not (math.isfinite(weight) and weight >= 0):
            return f"the weight of {name} is {weight}, must be at least 0"
    return None if any(mix.values()) else "every weight is 0; give at least one source a weight"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Loads ``config`` from a Python file and applies ``--group.key value`` overrides.

    Raises:
        RequestError: if the file is missing, fails, or defines no valid ``config``; SystemExit(2), with the nearest
            key named, if an override is unknown or ill-typed.
    """
    config = read_config_file(path)
    if overrides:
        config = tyro.cli(Config, default=config, args=list(overrides), prog=str(path))
    return config.validate()


def read_config_file(path: str | Path) -> Config:
    """Runs a configuration file and returns its ``config``, unchecked."""
    config = run_file(path).get("config")
    if not isinstance(config, Config):
        raise RequestError(f"{path} must define `config`, a wgpt_jax.config.Config")
    return config_from_dict(dataclasses.asdict(config))  # checks the types


def read_target(path: str | Path) -> str | None:
    """The topology that a configuration file says it is made for (``target = "v5e:16x16"``), if it does.

    Raises:
        RequestError: if the file is missing or fails, or its target is no text.
    """
    target = run_file(path).get("target")
    if not isinstance(target, str | None):
        raise RequestError(f"{path}: target is {target!r}, must be a topology, as in 'v5e:16x16'")
    return target


def run_file(path: str | Path) -> dict[str, Any]:
    """What a configuration file defines, by name.

    Raises:
        RequestError: if it is missing or fails.
    """
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise RequestError(f"no configuration file {path}{hint}")
    try:
        return runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise RequestError(f"{path} failed: {type(error).__name__}: {error}{_meant(error)}") from error


def _meant(error: Exception) -> str:
    """The nearest key, where the error is about an unknown one."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not found or "Did you mean" in str(error):
        return ""
    near = difflib.get_close_matches(found[1], {key.split(".")[1] for key in flatten(Config())}, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def config_to_json(config: Config) -> str:
    """The resolved configuration as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def config_from_dict(fields: Mapping[str, Any], cls: type = Config, where: str = "") -> Any:
    """Builds a configuration from nested mappings, as read back from JSON.

    Raises:
        RequestError: naming an unknown or ill-typed key, with the nearest known name.
    """
    if not isinstance(fields, Mapping):
        raise RequestError(f"{where.rstrip('.') or 'the configuration'} is {fields!r}, not a group of keys")
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in fields.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            raise RequestError(f"unknown key {where}{key}" + (f"; did you mean {where}{near[0]}?" if near else ""))
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            values[key] = config_from_dict(value, hint, f"{where}{key}.")
        elif not _is_of_type(value, hint):
            raise RequestError(f"{where}{key}: {value!r} is not {_type_name(hint)}")
        else:
            values[key] = value
    return cls(**values)


def _is_of_type(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_of_type(value, part) for part in typing.get_args(hint))
    if origin is dict:
        of_key, of_value = typing.get_args(hint)
        return isinstance(value, dict) and all(
            _is_of_type(key, of_key) and _is_of_type(part, of_value) for key, part in value.items()
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return f"of type {hint if typing.get_origin(hint) else getattr(hint, '__name__', hint)}"


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ: ``{"model.depth": (4, 6)}``."""
    before, after = flatten(old), flatten(new)
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def flatten(config: Any, where: str = "") -> dict[str, Any]:
    """A configuration as ``{"group.key": value}``."""
    out = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            out.update(flatten(value, f"{where}{field.name}."))
        else:
            out[f"{where}{field.name}"] = value
    return out
