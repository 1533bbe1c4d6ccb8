"""What was measured of a closed loop, as text for a terminal."""

from typing import Any


def format_quality(row: dict[str, Any]) -> str:
    """A row of :func:`measure` as text for a terminal."""
    prompt = f", behind prompts of {row['prompt_seconds']:.2f} s" if row["prompts"] else ""
    lines = [
        f"{row['run']}, step {row['step']}: {row['num_samples']} samples of {row['seconds']:.2f} s{prompt}, "
        f"{row['mode']} mode, {row['codebooks']} codebook(s)",
        f"{row['split']} split: {row['documents']} documents ({row['documents_too_short']} too short); "
        f"{row['per_side']} on each compared side",
        "",
        f"{'':26}{'generated':>20}{'floor':>20}{'excess':>20}",
    ]
    drift, frechet = row["drift"], row["frechet"]
    columns = ("generated", "floor", "excess")
    lines += [
        _line("divergence (bits)", drift["overall"], columns),
        _line("  last window - first", drift["rise"], columns),
        _line("Frechet, frames", frechet["frames"], columns),
        _line(f"Frechet, {row['frechet']['patch_frames']} frames", frechet["patches"], columns),
        "",
        f"{'':26}{'generated':>20}{'held out':>20}",
    ]
    columns = ("generated", "held_out")
    for name, label in (("repeated", "token as the one before"), ("looped", "token in a loop")):
        lines.append(_line(label, row["repetition"][name], columns))
    bits, entropy = drift["divergence_bits"], drift["entropy_bits"]
    lines += ["", f"{'seconds':<14}{'divergence':>12}{'floor':>9}{'excess':>18}{'entropy':>10}{'held out':>10}"]
    for number, (first, last) in enumerate(drift["windows"]):
        excess = f"{bits['excess'][number]:.4f} +- {bits['excess_stderr'][number]:.4f}"
        lines.append(
            f"{first:5.2f} - {last:<6.2f}{bits['generated'][number]:12.4f}{bits['floor'][number]:9.4f}{excess:>18}"
            f"{entropy['generated'][number]:10.3f}{entropy['held_out'][number]:10.3f}"
        )
    return "\n".join(lines)


def _line(label: str, row: dict[str, float], columns: tuple[str, ...]) -> str:
    cells = [f"{row[name]:.4f} +- {row[name + '_stderr']:.4f}" for name in columns]
    return f"{label:26}" + "".join(f"{cell:>20}" for cell in cells)
