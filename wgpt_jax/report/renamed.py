"""What stands behind the names that rows have in place of folders."""

import re
from collections.abc import Sequence

from wgpt_jax.report.loop_runs import behind
from wgpt_jax.report.numbers import listed
from wgpt_jax.report.rows import Row, of_kind


def renamed(rows: Sequence[Row]) -> list[str]:
    """A list of the names, and what each stands for where rows know it; empty if there are none."""
    names = sorted({name for row in rows for name in row.get("renamed", ())})
    if not names:
        return []
    count = sum(bool(row.get("renamed")) for row in rows)
    said = f"Names that stand for folders of the machine that made the rows ({count} of {len(rows)} rows):"
    return ["", said, "", *(f"- {name}: {_meaning(name, rows)}" for name in names)]


def _meaning(name: str, rows: Sequence[Row]) -> str:
    if any(row["data"] == name for row in of_kind(rows, "data")):
        return "prepared data"
    loops = [row for row in of_kind(rows, "closed_loop") if row["run"].startswith(f"{name}/")]
    experiments = {run["experiment"] for row in loops for run in behind(row, rows)}
    work = re.compile(rf"--workdir {re.escape(name)}(?![\w.-])")
    experiments |= {row["experiment"] for row in of_kind(rows, "run") if work.search(row.get("command") or "")}
    if experiments:
        return f"runs of {listed(sorted(experiments))}"
    out = re.compile(rf"--out {re.escape(name)}(?![\w.-])")
    measured = any(out.search(row["command"]) for row in of_kind(rows, "closed_loop"))
    return "closed loops, as they were measured" if measured else "not recorded"
