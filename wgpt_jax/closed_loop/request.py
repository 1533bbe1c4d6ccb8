"""What ``wgpt generate`` is asked for; read by the command line before anything heavy is imported."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wgpt_jax.config import Weights

Mode = Literal["hybrid", "tokens"]


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How a token is drawn."""

    temperature: float = 1.0
    """Divides the logits; 0 always takes the likeliest token."""
    top_k: int = 0
    """Draws from the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Draws from the likeliest tokens that together have this probability; 1 for all."""
    min_p: float = 0.0
    """Drops tokens less likely than this fraction of the likeliest; 0 for none."""
    repetition_penalty: float = 1.0
    """Divides the probability of coarse tokens that occurred in the repetition window; 1 for none."""
    repetition_window: int = 0
    """Frames that the repetition penalty looks back on."""


@dataclasses.dataclass(frozen=True)
class GenerateArgs:
    """Generates audio from a run: from nothing, or as the continuation of a prompt.

    A hybrid hears itself: each token's sound is decoded at once and its mel slice fed back. Sampling flags compile
    nothing anew. Writes WAV files as they are produced, and a spectrogram beside each.
    """

    run: tyro.conf.Positional[Path]
    """Run folder made by `wgpt train`."""
    prompt: Annotated[Path | None, tyro.conf.arg(metavar="AUDIO")] = None
    """Audio to continue, of any format and rate; its own samples come first in the output."""
    prompt_seconds: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Takes only the beginning of the prompt."""
    seconds: float = 10.0
    """Length of the output, the prompt included."""
    out: Path = Path("generated.wav")
    """WAV to write; with --num-samples above 1 its name gets -1, -2, ..."""
    num_samples: int = 1
    """Samples generated at once, each with its own seed."""
    seed: int = 0
    """Seed of the first sample; the others have the seeds after it. Same seed, same sample."""
    mode: Annotated[Mode | None, tyro.conf.arg(metavar="{hybrid,tokens}")] = None
    """hybrid: the closed loop (default). tokens: the null mel, the same network without the loop."""
    step: str = "latest"
    """Checkpoint: a step, `latest`, or `best` (lowest validation NLL while training)."""
    weights: Weights = "raw"
    """ema: the averaged weights of a run with --optimizer.ema."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = SamplingConfig()
    codec: Annotated[str | None, tyro.conf.arg(metavar="NAME_OR_DIR")] = None
    """Where the run's codec is, if it has moved since: it encodes the prompt."""
    json: bool = False
    """Print one JSON object and nothing else."""
