"""Every figure of the package: loss curves, a mel with its tokens, what a data set is like."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator, NullFormatter

from wgpt_jax.data.statistics import entropy_bits
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


def plot_document(
    mels: Mapping[str, np.ndarray], tokens: np.ndarray, frames_per_second: float, title: str, out: Path
) -> None:
    """A stored document: the mel of each source, in the same colours, above its tokens.

    Args:
        mels: source -> [n, M], normalised log-mel.
        tokens: [n, K].
        frames_per_second: of both.
        title: what it is of.
        out: PNG to write.
    """
    mel_range = min(float(mel.min()) for mel in mels.values()), max(float(mel.max()) for mel in mels.values())
    rows = len(mels) + 1
    figure, axes = plt.subplots(rows, 1, figsize=(9, 2 + 2 * rows), sharex=True, layout="constrained", squeeze=False)
    for (source, mel), top in zip(mels.items(), axes[:-1, 0], strict=True):
        _draw_mel(top, mel, frames_per_second, mel_range)
        top.set(ylabel=f"mel band ({source})")
    _draw_tokens(axes[-1, 0], tokens, frames_per_second)
    axes[0, 0].set_title(title, parse_math=False, wrap=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def plot_data_set(
    durations: Mapping[str, Sequence[float]],
    histogram: np.ndarray,
    mels: Mapping[str, np.ndarray],
    edges: np.ndarray,
    out: Path,
) -> None:
    """What a data set is like: durations, use of the codebooks, their entropy, and the spread of each mel band.

    Args:
        durations: split -> seconds of its documents.
        histogram: [K, V], how often each entry of each codebook occurs.
        mels: source -> [M, bins], how often values of each band occur.
        edges: [bins + 1], normalised mel.
        out: PNG to write.
    """
    width = max(12.0, 4.0 * len(mels))
    figure = plt.figure(figsize=(width, 8), layout="constrained")
    above, below = figure.subfigures(2, 1)
    _draw_statistics(above.subplots(1, 3), durations, histogram)
    panels = below.subplots(1, len(mels), sharey=True, squeeze=False)[0]
    image = None
    for panel, (source, counts) in zip(panels, mels.items(), strict=True):
        share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        extent = (0.5, len(counts) + 0.5, edges[0], edges[-1])
        image = panel.imshow(
            100 * share.T, origin="lower", aspect="auto", extent=extent, cmap="magma", norm=PowerNorm(0.5, 0, 10)
        )
        panel.plot(np.arange(1, len(counts) + 1), share @ (edges[:-1] + edges[1:]) / 2, color="white", linewidth=1)
        panel.set(xlabel=f"band of the {source} mel", title=f"{source} mel (line: mean)")
    panels[0].set(ylabel="normalised log-mel")
    below.colorbar(image, ax=panels, label="% of the band's frames", extend="max")
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _draw_statistics(axes, durations, histogram):
    """Durations, use of the entries, and entropy, on three axes."""
    left, middle, right = axes
    filled = {split: np.array(seconds) for split, seconds in durations.items() if len(seconds)}
    everything = np.concatenate(list(filled.values()))
    bins = np.geomspace(max(1e-3, everything.min() * 0.95), everything.max() * 1.05, 31)
    left.hist(list(filled.values()), bins, stacked=True, label=[f"{k} ({len(v):,})" for k, v in filled.items()])
    left.set(xscale="log", xlabel="seconds", ylabel="documents", title="durations")
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter(NullFormatter())
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend()
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(histogram)))
    for number, (counts, colour) in enumerate(zip(histogram, colours, strict=True), 1):
        share = np.sort(counts)[::-1] / max(1, counts.sum())
        middle.plot(np.arange(1, len(share) + 1), np.where(share > 0, share, np.nan), color=colour, label=f"{number}")
    middle.axhline(1 / histogram.shape[1], color="0.5", linestyle=":", linewidth=1)
    middle.set(xlabel="entry, the most frequent first", ylabel="share", yscale="log", title="use (dotted: even)")
    middle.legend(frameon=False, title="codebook", ncols=2)
    bits = [entropy_bits(counts) for counts in histogram]
    right.bar(range(1, len(bits) + 1), bits, color=colours)
    right.axhline(np.log2(histogram.shape[1]), color="0.5", linestyle=":", linewidth=1)
    right.set(xlabel="codebook", ylabel="bits", xticks=range(1, len(bits) + 1), title="entropy (dotted: even use)")


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
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained", height_ratios=[2, 1])
    _draw_mel(top, mel, frames_per_second, mel_range)
    top.set(ylabel="mel band", title=title)
    top.title.set_parse_math(False)  # a name can have dollars in it
    _draw_tokens(bottom, tokens, frames_per_second)
    return figure, (top, bottom)


def _draw_mel(axes, mel, frames_per_second, mel_range=(None, None)):
    extent, (low, high) = (0, len(mel) / frames_per_second, 0, mel.shape[1]), mel_range
    picture = mel.T.astype(np.float32)
    axes.imshow(picture, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=high)


def _draw_tokens(axes, tokens, frames_per_second):
    extent = (0, len(tokens) / frames_per_second, 0.5, tokens.shape[1] + 0.5)
    options = {"cmap": "nipy_spectral", "interpolation": "nearest"}
    axes.imshow(tokens.T, origin="lower", aspect="auto", extent=extent, **options)
    axes.set(xlabel="seconds", ylabel="codebook", yticks=range(1, tokens.shape[1] + 1))
