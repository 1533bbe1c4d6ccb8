"""Every figure of the package: loss curves, a mel with its tokens."""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {"tokens": "#c1440e", "hybrid": "#1f5f99"}


def plot_losses(runs: Mapping[str, Path], out: Path, floors: Mapping[str, float] | None = None) -> None:
    """Training and validation NLL over steps.

    Args:
        runs: label -> metrics.jsonl; one curve pair each.
        out: PNG to write.
        floors: label -> NLL, drawn as horizontal lines (n-gram baselines).
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for number, (label, path) in enumerate(runs.items()):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        colour = COLOURS.get(label, f"C{number}")
        train = np.array([(row["step"], row["loss"]) for row in rows if row["kind"] == "train"])
        valid = np.array([(row["step"], row["nll"]) for row in rows if row["kind"] == "validation"])
        name = f"{label}, " if label else ""
        if len(train):
            axes.plot(*train.T, color=colour, alpha=0.35, linewidth=1, label=f"{name}training")
        if len(valid):
            axes.plot(*valid.T, color=colour, marker="o", markersize=3, label=f"{name}validation")
    for (label, value), style in zip((floors or {}).items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color="0.4", linestyle=style, linewidth=1, label=label)
    axes.set(xlabel="step", ylabel="NLL (nats per token)")
    axes.grid(alpha=0.25)
    if axes.has_data():
        axes.legend(frameon=False)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def plot_mel_and_tokens(mel: np.ndarray, tokens: np.ndarray, frames_per_second: float, title: str, out: Path) -> None:
    """A mel spectrogram above the tokens of the same frames, on one time axis.

    Args:
        mel: [n, M], normalised log-mel.
        tokens: [n, K].
        frames_per_second: of both.
        title: what it is of.
        out: PNG to write.
    """
    seconds = len(mel) / frames_per_second
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained", height_ratios=[2, 1])
    top.imshow(
        mel.T.astype(np.float32), origin="lower", aspect="auto", extent=(0, seconds, 0, mel.shape[1]), cmap="magma"
    )
    top.set(ylabel="mel band", title=title)
    bottom.imshow(
        tokens.T, origin="lower", aspect="auto", extent=(0, seconds, 0.5, tokens.shape[1] + 0.5), cmap="nipy_spectral",
        interpolation="nearest",
    )  # fmt: skip
    bottom.set(xlabel="seconds", ylabel="codebook", yticks=range(1, tokens.shape[1] + 1))
    figure.savefig(out, dpi=120)
    plt.close(figure)
