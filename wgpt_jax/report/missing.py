"""What the grids' files have and the rows do not."""

from collections.abc import Sequence

from wgpt_jax.report.groups import Group, data_names, length
from wgpt_jax.report.numbers import listed
from wgpt_jax.report.rows import Row, of_kind


def missing(rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    """A line for each group that lacks something of its file's grid, and for each experiment that lacks a data set."""
    lines = [
        f"- {group.experiment}, {group.name}{_length(group)}: {said}" for group in groups if (said := group.missing())
    ]
    names = dict.fromkeys([*(row["data"] for row in of_kind(rows, "data")), *data_names(groups)])
    for experiment in dict.fromkeys(group.experiment for group in groups):
        have = data_names([group for group in groups if group.experiment == experiment])
        if lacking := [name for name in names if name not in have]:
            lines.append(f"- {experiment}: nothing on {listed(lacking)}")
    if not lines:
        return []
    said = (
        "Not there, of what the grids' files have (of the rows' own grid where there is no file). A file names no data "
        "sets; those of this document are taken:"
    )
    return [said, "", *lines, ""]


def _length(group: Group) -> str:
    told = group.length_of_file()
    return f" ({length(group.steps, group.batch, group.context)}; in the file {told})" if told else ""
