"""``dataset.py stats``: what is in a prepared data set, as tables, as JSON and as a picture."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from wgpt_jax.data.index import SPLITS
from wgpt_jax.dataset.folder import open_prepared
from wgpt_jax.dataset.mel_sample import sample_mel
from wgpt_jax.dataset.summary import format_summary, summarise
from wgpt_jax.errors import RequestError
from wgpt_jax.plots import plot_data_set

PICTURE_NAME = "stats.png"


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class StatsArgs:
    """Says what is in a prepared data set: hours, durations, codebook usage, mel, fates of the inputs, speakers, leaks.

    Prints tables and draws stats.png: durations, how often the entries of each codebook are used, their entropy, and
    how the values of each mel band are spread. The numbers are those of the index; the spread is of up to 64 records,
    drawn at random.
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """Folder made by tools/prepare_audio.py."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for stats.png, made if it is not there; that of the data by default."""
    json: bool = False
    """Print one JSON object and nothing else."""


def stats(args: StatsArgs) -> None:
    """Prints the tables and draws the picture.

    Raises:
        RequestError: if there is no prepared data, its index is damaged, or the picture cannot be written.
        WorkError: if its records cannot be read.
    """
    prepared = open_prepared(args.data)
    summary = summarise(prepared)
    sample = sample_mel(prepared)
    picture = (args.out or prepared.folder) / PICTURE_NAME
    used = list(prepared.used().values())
    durations = {split: [row["seconds"] for row in used if row["split"] == split] for split in SPLITS}
    histogram = np.array(prepared.index.statistics["tokens"]["histogram"])
    try:
        os.makedirs(picture.parent, exist_ok=True)
        plot_data_set(durations, histogram, sample.histograms, sample.edges, picture)
    except OSError as error:
        raise RequestError(f"cannot write {picture} ({error.strerror or error}); choose another --out DIR") from error
    summary |= {"mel_sample": {"records": sample.records, "frames": sample.frames}, "picture": str(picture)}
    print(json.dumps(summary) if args.json else format_summary(summary))
