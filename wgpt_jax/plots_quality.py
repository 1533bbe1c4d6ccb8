"""The picture of a closed loop that was measured: what was heard, held out and generated, above the drift."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wgpt_jax.plots import COLOURS, plt


def plot_closed_loop(
    mels: Mapping[str, np.ndarray], row: Mapping[str, Any], frames_per_second: float, out: Path
) -> None:
    """Spectrograms in the same colours, and below them the divergence of the tokens with its floor.

    Args:
        mels: label -> [n, M], normalised log-mel, the prompt's frames first.
        row: from :func:`wgpt_jax.closed_loop.quality.measure`.
        frames_per_second: of the mels.
        out: PNG to write.
    """
    low, high = (float(pick([pick(mel) for mel in mels.values()])) for pick in (np.min, np.max))
    rows = len(mels) + 1
    figure, axes = plt.subplots(rows, 1, figsize=(9, 1.7 * rows + 1), sharex=True, layout="constrained")
    begin = -row["prompt_seconds"]
    for panel, (label, mel) in zip(axes, mels.items(), strict=False):
        extent = (begin, begin + len(mel) / frames_per_second, 0, mel.shape[1])
        panel.imshow(mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=high)
        panel.set(ylabel="mel band")
        panel.set_title(label, fontsize=9, parse_math=False)
        if row["prompts"]:
            panel.axvline(0, color="white", linewidth=1.5)
    _draw_drift(axes[-1], row)
    prompt = f", behind prompts of {row['prompt_seconds']:g} s" if row["prompts"] else ""
    title = f"{Path(row['run']).name}, step {row['step']}: {row['mode']} mode, {row['num_samples']} samples{prompt}"
    figure.suptitle(title, fontsize=10, parse_math=False)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _draw_drift(axes, row):
    drift = row["drift"]
    bits, middles = drift["divergence_bits"], np.mean(drift["windows"], axis=1)
    styles = (("floor", "0.4", "held out (the floor)"), ("generated", COLOURS[row["inputs"]], "generated"))
    for name, colour, label in styles:
        value, stderr = np.array(bits[name]), np.array(bits[f"{name}_stderr"])
        axes.plot(middles, value, color=colour, marker="o", markersize=3, label=label)
        axes.fill_between(middles, value - stderr, value + stderr, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="seconds", ylabel="bits", ylim=(0, None))
    axes.set_title("divergence of the coarse tokens from held-out ones, +- standard error", fontsize=9)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
