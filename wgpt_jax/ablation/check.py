"""What can be known before anything trains: whether the data fits the arms, and the rows that are there the grid."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from wgpt_jax.ablation.counts import Sized
from wgpt_jax.ablation.grid import Ablation
from wgpt_jax.ablation.results import Results, check_unchanged
from wgpt_jax.ablation.runs import Run, arms_in, configured, is_of, tuned_point
from wgpt_jax.data.index import DataIndex
from wgpt_jax.errors import RequestError
from wgpt_jax.runs import check_model_fits_data


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
                model = sized[arm.name, size].config
                check_model_fits_data(model, index, folders[name])
            codebooks = model.model.input_codebooks
            if codebooks > index.codebooks:
                raise RequestError(
                    f"arm {arm.name} reads {codebooks} codebooks, the data in {folders[name]} has {index.codebooks}; "
                    f"prepare it with --num-codebooks {codebooks}, or leave the arm out with --only"
                )
            if arm.mel is not None and arm.mel not in index.mel_sources:
                have = ",".join(index.mel_sources)
                raise RequestError(
                    f"arm {arm.name} reads the mel {arm.mel}, the data in {folders[name]} has {have}; prepare it with "
                    f"--mel-sources {have},{arm.mel}, or leave the arm out with --only"
                )


def check_rows(
    ablation: Ablation,
    runs: Sequence[Run],
    sized: Mapping[tuple[str, str], Sized],
    fingerprints: Mapping[str, str],
    results: Results,
) -> set[Run]:
    """Checks that the rows that are there are of the runs that would be made now.

    Args:
        ablation: the grid.
        runs: those that are asked for.
        sized: by the names of arm and size.
        fingerprints: of the data sets' training shards.
        results: the rows.

    Returns:
        the runs that need not be made.

    Raises:
        RequestError: naming what differs.
    """
    rows = [row for row in results.rows if row["kind"] == "run" and row["experiment"] == ablation.name]
    made = set()
    for run in runs:
        point = tuned_point(ablation, run, results.rows)
        for row in (row for row in rows if is_of(row, run)):
            point = point or (row["learning_rate"], row["embedding_std"])
            config = configured(run, sized[run.arm, run.size], point)
            check_unchanged(row, config, fingerprints[run.data], results.path, run.name)
            made.add(run)
    return made
