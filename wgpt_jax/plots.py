"""Every figure of the package: loss curves, a mel with its tokens."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from wgpt_jax.metrics import read_metrics

COLOURS = {"tokens": "#c1440e", "hybrid": "#1f5f99"}


def plot_losses(runs: Mapping[str, Path], out: Path, floors: Mapping[str, float] | None = None) -> None:
    """Training and validation NLL over steps, that of averaged weights dashed.

    Args:
        runs: label -> metrics.jsonl; one curve pair each.
        out: PNG to write.
        floors: label -> NLL, drawn as horizontal lines (n-gram baselines).
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for number, (label, path) in enumerate(runs.items()):
        rows = read_metrics(path)
        colour = COLOURS.get(label, f"C{number}")
        # With several output codebooks the loss is their mean; the coarse one's part compares with validation.
        train = [(row["step"], row.get("nll_codebook_1", row["loss"])) for row in rows if row["kind"] == "train"]
        valid = [(row["step"], row["nll"]) for row in rows if row["kind"] == "validation"]
        averaged = [(row["step"], row["ema_nll"]) for row in rows if "ema_nll" in row]
        train, valid, averaged = (np.array(points, float) for points in (train, valid, averaged))  # null is a gap
        name = f"{label}, " if label else ""
        if len(train):
            axes.plot(*train.T, color=colour, alpha=0.35, linewidth=1, label=f"{name}training")
        if len(valid):
            axes.plot(*valid.T, color=colour, marker="o", markersize=3, label=f"{name}validation")
        if len(averaged):
            axes.plot(
                *averaged.T, color=colour, linestyle="--", linewidth=1, label=f"{name}validation, averaged weights"
            )
    for (label, value), style in zip((floors or {}).items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color="0.4", linestyle=style, linewidth=1, label=label)
    axes.set(xlabel="step", ylabel="NLL (nats per coarse token)")
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
    figure, _ = _draw_mel_and_tokens(mel, tokens, frames_per_second, title)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def plot_generated(
    mel: np.ndarray, tokens: np.ndarray, frames_per_second: float, title: str, out: Path, *, prompt_frames: int = 0
) -> None:
    """A generated clip, as :func:`plot_mel_and_tokens`, with a line where the prompt ends and the model goes on.

    Args:
        mel: [n, M], normalised log-mel of prompt and continuation.
        tokens: [n, K].
        frames_per_second: of both.
        title: what it is of.
        out: PNG to write.
        prompt_frames: frames at the start that were given; 0 for none, and no line.
    """
    figure = _draw_generated(mel, tokens, frames_per_second, title, prompt_frames)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def generated_pixels(
    mel: np.ndarray,
    tokens: np.ndarray,
    frames_per_second: float,
    title: str,
    *,
    prompt_frames: int = 0,
    mel_range: tuple[float, float],
) -> np.ndarray:
    """The picture of :func:`plot_generated` as an array, in colours that several pictures can share.

    Args:
        mel, tokens, frames_per_second, title, prompt_frames: as of :func:`plot_generated`.
        mel_range: values of the mel that the darkest and the brightest colour stand for.

    Returns:
        uint8 [height, width, 3].
    """
    figure = _draw_generated(mel, tokens, frames_per_second, title, prompt_frames, mel_range)
    figure.canvas.draw()
    pixels = np.array(figure.canvas.buffer_rgba())[..., :3]
    plt.close(figure)
    return pixels


def _draw_generated(mel, tokens, frames_per_second, title, prompt_frames, mel_range=(None, None)):
    figure, (top, bottom) = _draw_mel_and_tokens(mel, tokens, frames_per_second, title, mel_range)
    if prompt_frames:
        edge = prompt_frames / frames_per_second
        for axes in (top, bottom):
            axes.axvline(edge, color="black", linewidth=4)  # sets the white line off from the tokens' colours
            axes.axvline(edge, color="white", linewidth=1.5)
        top.set_title(title, pad=20)  # leaves a line for the labels, which can be read there whatever the sound
        for text, side, gap in (("prompt", "right", -5), ("generated", "left", 5)):
            top.annotate(
                text, (edge, 1), (gap, 4), xycoords=top.get_xaxis_transform(), textcoords="offset points", ha=side
            )
    return figure


def _draw_mel_and_tokens(mel, tokens, frames_per_second, title, mel_range=(None, None)):
    """The figure and its two axes: mel [n, M], in colours over its own range if none is given, above tokens [n, K]."""
    seconds = len(mel) / frames_per_second
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained", height_ratios=[2, 1])
    low, high = mel_range
    top.imshow(
        mel.T.astype(np.float32), origin="lower", aspect="auto", extent=(0, seconds, 0, mel.shape[1]), cmap="magma",
        vmin=low, vmax=high,
    )  # fmt: skip
    top.set(ylabel="mel band", title=title)
    top.title.set_parse_math(False)  # a name can have dollars in it
    bottom.imshow(
        tokens.T, origin="lower", aspect="auto", extent=(0, seconds, 0.5, tokens.shape[1] + 0.5), cmap="nipy_spectral",
        interpolation="nearest",
    )  # fmt: skip
    bottom.set(xlabel="seconds", ylabel="codebook", yticks=range(1, tokens.shape[1] + 1))
    return figure, (top, bottom)
