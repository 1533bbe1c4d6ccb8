"""What can be known before anything trains: whether the data fits the arms, and the rows that are there the grid."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from wgpt_jax.ablation.counts import Sized
from wgpt_jax.ablation.grid import Ablation, Arm
from wgpt_jax.ablation.results import Results, check_unchanged
from wgpt_jax.ablation.runs import Run, arms_in, configured, is_diverged, is_of, tuned_point
from wgpt_jax.config import Config
from wgpt_jax.data.index import DataIndex
from wgpt_jax.errors import RequestError
from wgpt_jax.runs import check_model_fits_data


def fitted(ablation: Ablation, folders: Mapping[str, Path], indices: Mapping[str, DataIndex]) -> Ablation:
    """The grid with the vocabulary and the mel bands of the data, which one model per arm must fit.

    Args:
        ablation: the grid.
        folders: prepared data by name.
        indices: what it is, by the same names.

    Raises:
        RequestError: if data sets differ in one of them.
    """
    found = {name: (index.codec.codebook_size, index.mel.bands) for name, index in indices.items()}
    first, *others = found
    for name in others:
        if found[name] != found[first]:
            told = " and ".join(
                f"{folders[each]} has {found[each][0]} entries per codebook and {found[each][1]} mel bands"
                for each in (first, name)
            )
            raise RequestError(f"{told}: prepare both with the same --codec and --mel.bands, or ablate one at a time")
    vocabulary, bands = found[first]
    model = dataclasses.replace(ablation.base.model, vocabulary=vocabulary, mel_bands=bands)
    return dataclasses.replace(ablation, base=dataclasses.replace(ablation.base, model=model))


def check_data(
    ablation: Ablation,
    runs: Sequence[Run],
    sized: Mapping[tuple[str, str], Sized],
    folders: Mapping[str, Path],
    indices: Mapping[str, DataIndex],
) -> None:
    """Checks that every data set has what the arms read and the stages score.

    Args:
        ablation: the grid.
        runs: those that are asked for.
        sized: by the names of arm and size.
        folders: prepared data by name.
        indices: what it is, by the same names.

    Raises:
        RequestError: naming what is missing, and the remedy.
    """
    for name in dict.fromkeys(run.data for run in runs):
        index, ours = indices[name], [run for run in runs if run.data == name]
        for split in dict.fromkeys(["validation", *("test" for run in ours if run.stage == "final")]):
            index.split(split)
        for arm in arms_in(ours, ablation):
            for size in dict.fromkeys(run.size for run in ours if run.arm == arm.name):
                _check_fit(arm, sized[arm.name, size].config, index, folders[name])
            if missing := [source for source in arm.mix if source not in index.mel_sources]:
                have = ",".join(index.mel_sources)
                raise RequestError(
                    f"arm {arm.name} reads the mel {missing[0]}, the data in {folders[name]} has {have}; prepare it "
                    f"with --mel-sources {have},{missing[0]}, or leave the arm out with --only"
                )


def _check_fit(arm: Arm, config: Config, index: DataIndex, folder: Path) -> None:
    try:
        check_model_fits_data(config, index, folder)
    except RequestError as error:
        needed = max(config.model.output_codebooks, config.model.input_codebooks)
        prepare = f"prepare it with --num-codebooks {needed}, or " if needed > index.codebooks else ""
        wrong = str(error).partition("; ")[0]  # what follows are flags of wgpt train
        raise RequestError(f"arm {arm.name}: {wrong}; {prepare}leave the arm out with --only") from error


def check_rows(
    ablation: Ablation,
    runs: Sequence[Run],
    sized: Mapping[tuple[str, str], Sized],
    fingerprints: Mapping[str, Mapping[str, str]],
    results: Results,
) -> set[Run]:
    """Checks that the rows that are there are of the runs that would be made now.

    Args:
        ablation: the grid.
        runs: those that are asked for.
        sized: by the names of arm and size.
        fingerprints: of the data sets' splits.
        results: the rows.

    Returns:
        the runs that need not be made: those that are scored, and points of a sweep that diverged.

    Raises:
        RequestError: naming what differs.
    """
    for row in results.rows:
        if row["kind"] in ("run", "failed") and row["experiment"] != ablation.name:
            raise RequestError(
                f"{results.path} has rows of the experiment {row['experiment']}, this one is {ablation.name}; take "
                "another --workdir"
            )
    rows = [row for row in results.rows if row["kind"] == "run" or (is_diverged(row) and row["stage"] == "tune")]
    made = set()
    for run in runs:
        point = tuned_point(ablation, run, results.rows)
        for row in (row for row in rows if is_of(row, run)):
            point = point or (row["learning_rate"], row["embedding_std"])
            config = configured(run, sized[run.arm, run.size], point)
            check_unchanged(row, config, fingerprints[run.data], results.path, run.name)
            made.add(run)
    return made
