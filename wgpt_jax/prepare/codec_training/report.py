"""What one looks at and listens to: score tables, loss curves, spectrograms, decoded samples."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import soundfile
import torch
from transformers import EncodecModel

from wgpt_jax.prepare.codec_training.scores import Score, decode, encode


def format_scores(scores: Sequence[Score], style: str) -> str:
    """The scores as one ``json`` object, or as a table (aligned ``text``, ``markdown``) with a row for every group."""
    if style == "json":
        return json.dumps({"scores": [asdict(score) for score in scores]})
    counts = sorted({score.codebooks for score in scores})
    rows = [["audio", "seconds", *(f"log-mel {n}" for n in counts), "silence", "median"]]
    rows[0] += [*(f"SI-SNR {n}" for n in counts), "perplexity", "codes used"]
    for group in dict.fromkeys(score.group for score in scores):
        own = {score.codebooks: score for score in scores if score.group == group}
        common = next(iter(own.values()))
        row = [group, f"{common.seconds:.0f}", *(f"{own[n].log_mel:.3f}" for n in counts)]
        row += [f"{common.silence:.3f}", f"{common.median:.3f}", *(f"{own[n].si_snr:.1f}" for n in counts)]
        rows.append([*row, f"{common.perplexity:.0f}", str(common.codes_used)])
    if style == "markdown":
        rows.insert(1, ["---"] + ["---:"] * (len(rows[0]) - 1))
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    bitrates = ", ".join(f"{n} at {score.kbps:g} kbps" for n, score in {s.codebooks: s for s in scores}.items())
    legend = f"log-mel distance in nats and SI-SNR in dB by number of codebooks ({bitrates})"
    return "\n".join([legend, *("  ".join([row[0].strip().ljust(widths[0]), *row[1:]]) for row in lines)])


def write_samples(model: EncodecModel, clips: dict[str, list[np.ndarray]], folder: Path) -> None:
    """For the first clip of every group: WAV files of the original and of its decodes, and their spectrograms."""
    folder.mkdir(parents=True, exist_ok=True)
    rate = model.config.sampling_rate
    for group, members in clips.items():
        versions = decodes(model, members[0])
        for label, audio in versions.items():
            soundfile.write(folder / f"{group}_{label.replace(' ', '_')}.wav", audio, rate)
        figure, axes = plt.subplots(len(versions), 1, figsize=(10, 2.4 * len(versions)), sharex=True)
        draw_spectrograms(axes, versions, rate, group)
        figure.tight_layout()
        figure.savefig(folder / f"{group}.png", dpi=90)
        plt.close(figure)


@torch.no_grad()
def decodes(model: EncodecModel, clip: np.ndarray) -> dict[str, np.ndarray]:
    """A clip of float32 ``[n]`` and its decodes from one and from all codebooks, cut to whole frames, by label."""
    training = model.training
    model.eval()
    clip = clip[: len(clip) // model.config.hop_length * model.config.hop_length]
    codes = encode(model, torch.from_numpy(clip)[None].to(model.device))
    counts = sorted({1, codes.shape[1]})
    decoded = {f"{n} codebook{'s' * (n > 1)}": decode(model, codes[:, :n])[0].cpu().numpy() for n in counts}
    model.train(training)
    return {"original": clip} | decoded


def draw_spectrograms(axes: Sequence[plt.Axes], versions: dict[str, np.ndarray], rate: int, title: str) -> None:
    """One spectrogram an axis, all on one scale of 80 dB below the first one's peak."""
    top = None
    for axis, (label, audio) in zip(axes, versions.items(), strict=True):
        spectrum, _, _, image = axis.specgram(audio + 1e-9, NFFT=1024, noverlap=768, Fs=rate)
        top = top or 10 * np.log10(spectrum.max())
        image.set_clim(top - 80, top)
        axis.set(title=f"{title}: {label}", ylabel="Hz")


def read_metrics(run: Path) -> tuple[list[dict], list[dict]]:
    """The training lines and the validation lines of a run's ``metrics.jsonl``."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line], [line for line in lines if "loss" not in line]


def draw_curves(axes: Sequence[plt.Axes], run: Path) -> None:
    """Three axes over training steps: losses, held-out log-mel and held-out SI-SNR."""
    training, validation = read_metrics(run)
    steps = np.array([line["step"] for line in training])
    for name in ("waveform", "mel") if training else ():
        values = np.array([line[name] for line in training])
        width = max(1, min(20, len(values) // 4))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes[0].plot(steps[width - 1 :], smooth, label=f"{name} (mean of {10 * width} steps)")
    axes[0].set(title="training loss", xlabel="step", yscale="log")
    for axis, measure, title in zip(axes[1:], ("log_mel", "si_snr"), ("log-mel (nats)", "SI-SNR (dB)"), strict=True):
        for name in [key for key in (validation[-1] if validation else {}) if key.endswith(measure)]:
            label = name.removesuffix("_" + measure).replace("_", ", ") + " codebook(s)"
            points = [(line["step"], line[name]) for line in validation if name in line]
            axis.plot(*zip(*points, strict=True), marker=".", label=label)
        axis.set(title=f"held-out {title}", xlabel="step")
    for axis in axes[:3]:
        if axis.lines:
            axis.legend(fontsize=8)


def write_curves(run: Path) -> None:
    """Draws a run's curves to ``loss.png`` in its folder."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4))
    draw_curves(axes, run)
    figure.tight_layout()
    figure.savefig(run / "loss.png", dpi=90)
    plt.close(figure)


def write_figure(model: EncodecModel, clip: np.ndarray, title: str, run: Path, path: Path) -> None:
    """One picture of a run: its curves above, the spectrograms of a clip and of its decodes below."""
    figure, axes = plt.subplots(2, 3, figsize=(15, 7.5))
    draw_curves(axes[0], run)
    draw_spectrograms(axes[1], decodes(model, clip), model.config.sampling_rate, title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
