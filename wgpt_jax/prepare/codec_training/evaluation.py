"""Scores an exported codec on a folder of audio."""

import functools
import operator
from pathlib import Path

import numpy as np
from transformers import EncodecModel

from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.codec_training.export import load_codec
from wgpt_jax.prepare.codec_training.files import find_audio, held_out_clips, read_audio, split_held_out
from wgpt_jax.prepare.codec_training.scores import Score, measure_clips

MOST_FILES_SHOWN = 20  # a folder with more files is scored by domain


def open_codec(folder: Path, device: str = "cpu") -> EncodecModel:
    """Loads a codec, or says what is wrong with its folder.

    Raises:
        RequestError: the folder holds no ENCODEC that transformers can read.
    """
    if not (folder / "config.json").is_file():
        raise RequestError(f"--evaluate {folder}: no config.json there; it takes the folder of an exported codec")
    try:
        return load_codec(folder, device)
    except (OSError, ValueError, RuntimeError) as error:
        raise RequestError(f"--evaluate {folder}: {str(error).splitlines()[0]}") from error


def evaluation_clips(folder: Path, rate: int, held_out: bool, seconds: float) -> dict[str, list[np.ndarray]]:
    """The clips to score, by group.

    Args:
        folder: folder of audio files.
        rate: sampling rate in Hz that the clips get.
        held_out: take eight clips of six seconds of each domain, of the files that training on this folder leaves out;
            else every file, each its own group where there are few.
        seconds: how much of each file is taken, from its beginning (not for ``held_out``).
    """
    files = find_audio(folder)
    if held_out:
        return held_out_clips(split_held_out(files, folder)[1], rate)
    unique = len({file.path.stem for file in files}) == len(files)
    groups: dict[str, list[np.ndarray]] = {}
    for file in files:
        own = file.path.stem if unique else str(file.path.relative_to(folder))
        name = own if len(files) <= MOST_FILES_SHOWN else file.domain
        groups.setdefault(name, []).append(read_audio(file, rate, 0, int(seconds * file.rate)))
    return groups


def codebook_counts(model: EncodecModel) -> list[int]:
    """Numbers of codebooks that the codec's bandwidths stand for."""
    return [model.quantizer.get_num_quantizers_for_bandwidth(kbps) for kbps in model.config.target_bandwidths]


def evaluate_codec(model: EncodecModel, clips: dict[str, list[np.ndarray]]) -> list[Score]:
    """Scores of every group, and of all clips together where there are several groups."""
    counts = codebook_counts(model)
    measured = {group: measure_clips(model, members, counts) for group, members in clips.items()}
    scores = [score for group in measured for score in measured[group].scores(group)]
    if len(measured) > 1:
        scores += functools.reduce(operator.add, measured.values()).scores("all")
    return scores
