"""``metrics.jsonl``: one JSON object per logged step and one per evaluation, in the order of their steps."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def metrics_line(kind: str, step: int, values: dict[str, Any]) -> str:
    """One line. What is not finite becomes null, since JSON knows neither nan nor infinity."""
    finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
    return json.dumps({"kind": kind, "step": step, **finite}) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none if it is not there. Damaged ones, as a kill leaves the last, are left out."""
    rows = []
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
                row["kind"], row["step"] = str(row["kind"]), int(row["step"])
            except (ValueError, TypeError, KeyError, OverflowError):
                continue
            rows.append(row)
    return rows


def drop_after(path: Path, step: int) -> None:
    """Leaves only the lines up to ``step``, in one atomic step: a killed run wrote past its last checkpoint."""
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def evaluated(rows: Iterable[dict[str, Any]]) -> dict[int, float]:
    """Validation NLL over all output codebooks, in nats per frame, of every step evaluated in some lines.

    Of the averaged weights where a run keeps them.
    """
    rows = [row for row in rows if row["kind"] == "validation"]
    scores = {row["step"]: row.get("ema_total_nll", row.get("total_nll")) for row in rows}
    return {step: nll for step, nll in scores.items() if nll is not None}
