"""The report of ``benchmark_prepare`` for people."""

from collections.abc import Iterator
from typing import Any

_GB = 1e9


def table(report: dict[str, Any]) -> str:
    """The report as text; parts that were not measured are left out."""
    lines = list(_machine(report["machine"], report["load_after"]))
    for name, lines_of in (("stages", _stages), ("memory", _memory), ("reading", _reading)):
        if name in report:
            lines += ["", *lines_of(report[name], report)]
    return "\n".join(lines)


def _machine(machine: dict[str, Any], load_after: float) -> Iterator[str]:
    names = ("torch", "transformers", "soundfile", "soxr", "numpy", "jax", "grain", "array_record")
    versions = ", ".join(f"{name} {machine['packages'].get(name)}" for name in names)
    yield f"{machine['processor']}, {machine['cores']} cores, load {machine['load']} before and {load_after} after"
    yield f"Python {machine['python']}, {versions}; commit {machine['commit']}"


def _stages(stages: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{stages['audio_seconds']:.0f} s of {stages['audio']} audio, 44.1 kHz mono (opus 48 kHz), codec "
        f"{report['codec']}, {stages['codebooks']} codebooks; one process, one thread; median of {stages['rounds']} "
        "rounds, stages in turn"
    )
    yield (
        f"{'stage':24} {'x real time':>11} {'slowest to fastest':>20} {'per core':>9} {'time / tokens':>14} "
        f"{'of the whole':>13}"
    )
    for row in stages["stages"]:
        spread = f"{_number(row['slowest'])} to {_number(row['fastest'])}"
        core = "" if row["x_realtime_per_core"] is None else _number(row["x_realtime_per_core"])
        share = "" if row["share_of_whole"] is None else f"{100 * row['share_of_whole']:.1f} %"
        yield (
            f"{row['stage']:24} {_number(row['x_realtime']):>11} {spread:>20} {core:>9} "
            f"{100 * row['time_over_tokens']:12.1f} % {share:>13}"
        )
    yield f"{'rest of the whole':24} {'':11} {'':20} {'':9} {'':14} {100 * stages['rest_of_whole']:11.1f} %"


def _memory(memory: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    yield f"peak memory of a converting process, codec {report['codec']}, mel of {memory['mel_sources']}, on the CPU"
    for file in memory["files"]:
        loaded = f"of it {file['codec_loaded_bytes'] / _GB:.2f} GB before it begins"
        yield f"{file['seconds'] / 60:10.1f} minutes: {file['peak_bytes'] / _GB:.2f} GB, {loaded}"


def _reading(reading: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"reading {reading['data']} for {reading['config']}: {reading['batch']} x {reading['context']} frames a batch; "
        f"training on {reading['device']}, {reading['train_batch']} windows a step; median of {reading['rounds']} "
        "rounds, in turn"
    )
    yield f"{'':24} {'frames/s':>11} {'slowest to fastest':>26} {'per core':>11} {'/ training':>11} {'per core':>9}"
    for row in [*reading["reading"], reading["training"]]:
        name = _reader(row["workers"]) if "workers" in row else "training"
        spread = f"{row['slowest']:,.0f} to {row['fastest']:,.0f}"
        ratios = f"{row['over_training']:10,.0f}x {row['over_training_per_core']:8,.0f}x" if "workers" in row else ""
        yield f"{name:24} {row['median']:11,.0f} {spread:>26} {row['per_core']:11,.0f} {ratios}"


def _reader(workers: int) -> str:
    return f"reading, {workers} worker{'s' if workers > 1 else ''}" if workers else "reading, threads"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
