"""What ``wgpt ablate`` is asked for; read by the command line before anything heavy is imported."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from wgpt_jax.ablation.grid import FIT, is_fit
from wgpt_jax.errors import RequestError

_Count = Annotated[int | None, tyro.conf.arg(metavar="INT")]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class AblateArgs:
    """Trains and scores a grid of runs: arms x sizes x data sets x seeds, each arm tuned by the same sweep.

    Every arm of a size has the same number of parameters; the table of them is printed before anything trains. One row
    per run in WORKDIR/results.jsonl, figures and tables in WORKDIR/summary.md. The same line again goes on where it
    stopped, within a run too.
    """

    config_file: tyro.conf.Positional[Path]
    """Python file that defines `ablation`, for example configs/ablation_inputs.py."""
    data: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="[NAME=]DIR")]
    """Folder made by tools/prepare_audio.py, and what to call it (its own name by default). Give several by repeating
    the flag."""
    workdir: Path
    """Folder for the runs and their results. Made if it is not there."""
    jobs: _Count = None
    """Runs at the same time: on GPUs one each, by default as many as there are; on a CPU each on its part of the cores,
    by default one run on all. A TPU takes one."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE[,...]")] = ()
    """Parts of the grid, by arm, size, data, seed or stage (tune, final): `arm=c,size=0.5m arm=a`; with the sweeps that
    they need, unless a stage is named."""
    steps: _Count = None
    """Instead of the file's: steps of the final runs."""
    tune_steps: _Count = None
    """Instead of the file's: steps of each run of a sweep."""
    batch: _Count = None
    """Instead of the file's: windows per step."""
    context: _Count = None
    """Instead of the file's: frames per window."""
    eval_every: _Count = None
    """Instead of the file's: steps between the points of the learning curves."""
    seeds: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT...")] = None
    """Instead of the file's: seeds of the final runs."""
    sizes: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME...")] = None
    """Instead of the file's: sizes, by name."""
    retry: bool = False
    """Make runs again that failed."""
    dry_run: bool = False
    """Stop after the table of parameters and the list of runs."""
    json: bool = False
    """Print one JSON object and nothing else."""


def parse_data(words: Sequence[str]) -> dict[str, Path]:
    """Data folders by name, from ``NAME=DIR`` or ``DIR``.

    Raises:
        RequestError: if none is given, or two have the same name.
    """
    if not words:
        raise RequestError("no data; give --data DIR, or --data NAME=DIR for each of several")
    found: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or Path(word).is_dir():
            name, folder = Path(word).resolve().name, word
        if not is_fit(name):
            raise RequestError(f"--data {word}: {name!r} is no name; give NAME=DIR, and {FIT}")
        if name in found:
            raise RequestError(f"--data: two folders are called {name}; give NAME=DIR with different names")
        found[name] = Path(folder)
    return found
