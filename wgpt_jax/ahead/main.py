"""``tools/compile_for.py``: will it fit, and how fast could it be, on hardware that is not here."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from jax.sharding import Mesh

from wgpt_jax.ahead.compile import CompiledStep, compile_step
from wgpt_jax.ahead.search import search
from wgpt_jax.ahead.topology import EXAMPLES, describe, topology_devices
from wgpt_jax.command import guarded
from wgpt_jax.config import Config, read_config_file, read_target
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.parallel.mesh import check_mesh_fits, make_mesh
from wgpt_jax.performance.chips import chip_of

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class CompileForArgs:
    """Compiles a configuration's real training step for TPUs or GPUs that are not here.

    Says whether it fits, what it computes and moves, and the most that these widths can make of the chip. The numbers
    are the compiler's own: nothing is run.
    """

    config_file: tyro.conf.Positional[Path]
    """Python file that defines `config`, for example configs/hybrid_1b.py."""
    topology: str | None = None
    """TPU generation and chips along each axis, as in v5e:16x16, or GPUs, as in cuda:h100x8; the file's `target` by
    default."""
    num_slices: int = 1
    """Slices of that topology, side by side along mesh.data."""
    search: bool = False
    """Find the largest batch that fits under each remat policy, and the cheapest policy for this batch."""
    quick: bool = False
    """Optimise less: several times faster to compile, memory some per cent off."""
    json: bool = False
    """Print one JSON object and nothing else."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()  # noqa: RUF009 (frozen)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns the exit code: 1 if the step does not fit."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def work() -> None:
        named = [Path(word) for word in argv if word.endswith(".py")]
        default = CompileForArgs(named[0], config=read_config_file(named[0])) if named else None
        _compile(tyro.cli(CompileForArgs, args=argv, default=default, prog="compile_for.py"))

    return guarded(work)


def _compile(args: CompileForArgs) -> None:
    topology = args.topology or read_target(args.config_file)
    if topology is None:
        raise RequestError(f"{args.config_file} names no `target`; give --topology, the like of {EXAMPLES}")
    if args.num_slices < 1:
        raise RequestError(f"--num-slices {args.num_slices}: there is at least one")
    if args.quick:
        jax.config.update("jax_optimization_level", "O1")
    config = args.config.validate()
    devices = topology_devices(topology, args.num_slices)
    mesh = make_mesh(config.mesh, devices)
    check_mesh_fits(config, mesh)
    facts = {"config": str(args.config_file), "topology": topology, "num_slices": args.num_slices}
    (_search if args.search else _report)(args, config, mesh, facts)


def _report(args: CompileForArgs, config: Config, mesh: Mesh, facts: dict) -> None:
    if not args.json:
        print(f"compiling for {describe(mesh.devices.flat)} ...", file=sys.stderr, flush=True)
    step = compile_step(config, mesh)
    if args.json:
        print(json.dumps(facts | dataclasses.asdict(step)), flush=True)
    else:
        print("\n".join(_lines(step, facts)), flush=True)
    if not step.fits:
        raise WorkError(does_not_fit(step, facts["topology"]))


def _search(args: CompileForArgs, config: Config, mesh: Mesh, facts: dict) -> None:
    def tell(step: CompiledStep) -> None:
        if not args.json:
            print(_row(step), flush=True)

    if not args.json:
        print(f"{describe(mesh.devices.flat)}\n{'remat':6} {'batch':>7} {'a chip':>7} {'peak GiB':>9}")
    found = list(search(config, mesh, tell))
    asked = config.training.batch
    enough = [step for step in found if step.batch >= asked]
    cheapest = enough[0].remat if enough else None
    if args.json:
        rows = [dataclasses.asdict(step) for step in found]
        print(json.dumps(facts | {"batch": asked, "cheapest_remat": cheapest, "largest": rows}), flush=True)
    elif found:
        print("largest that fit: " + "; ".join(f"remat {step.remat}: batch {step.batch}" for step in found))
        if cheapest:
            print(f"batch {asked}: remat {cheapest} is enough")
    if cheapest is None:
        largest = max((step.batch for step in found), default=0)
        raise WorkError(
            f"batch {asked} does not fit {facts['topology']} under any remat policy; the largest is {largest}. "
            "Take more chips, more mesh.fsdp, a shorter data.context or more training.microbatches"
        )


def does_not_fit(step: CompiledStep, topology: str) -> str:
    """The sentence for a step that is too large."""
    return (
        f"does not fit {topology}: a step of {step.batch} windows needs {step.hbm_peak_bytes / _GIB:.2f} GiB per chip, "
        f"{step.hbm_available_bytes / _GIB:.2f} GiB are available. Take more chips, more mesh.fsdp, a smaller "
        "training.batch, more training.microbatches or another model.remat; --search tries batches and remat policies"
    )


def _row(step: CompiledStep) -> str:
    rows = step.mesh["data"] * step.mesh["fsdp"]
    return (
        f"{step.remat:6} {step.batch:7} {step.batch / rows:7g} {step.hbm_peak_bytes / _GIB:9.2f} of "
        f"{step.hbm_available_bytes / _GIB:.2f}{'' if step.fits else '  does not fit'}"
    )


def _lines(step: CompiledStep, facts: dict) -> list[str]:
    slices = f", {facts['num_slices']} slices" if facts["num_slices"] > 1 else ""
    mesh = ", ".join(f"{axis} {size}" for axis, size in step.mesh.items())
    lines = [
        f"{facts['config']} on {step.devices} x {step.device_kind} ({facts['topology']}{slices}), mesh {mesh}",
        f"parameters        {step.parameters:,}",
        f"a step            {step.batch:,} windows, {step.frames_per_step:,} frames; remat {step.remat}, attention "
        f"{step.attention}",
        f"memory per chip   {step.hbm_peak_bytes / _GIB:.2f} GiB at most of {step.hbm_available_bytes / _GIB:.2f} "
        f"(state and batch {step.hbm_argument_bytes / _GIB:.2f}, temporaries {step.hbm_temporary_bytes / _GIB:.2f})",
        f"model FLOPs       {step.model_flops_per_step:.3e} a step, {step.model_flops_per_step / step.devices:.3e} a "
        "chip: 3 x the forward pass's matrix products, attention counted causally",
    ]
    if step.mfu_ceiling is not None:
        chip = chip_of(step.device_kind)
        seconds = step.model_flops_per_step / (step.devices * chip.peak_bf16_flops * step.mfu_ceiling)
        lines.append(
            f"MFU ceiling       {100 * step.mfu_ceiling:.1f} % of {chip.peak_bf16_flops / 1e12:g} TFLOP/s, "
            f"{step.frames_per_step / seconds:,.0f} frames/s: model FLOPs / (peak x time), time the sum over products "
            "of max(padded FLOPs / peak, bytes / bandwidth), and the optimiser's bytes / bandwidth"
        )
    if step.collectives is not None:
        kinds = ", ".join(f"{count} {kind}" for kind, count in step.collectives.items() if count)
        lines.append(f"collectives       {kinds or 'none'} (loop bodies counted once)")
    lines.append(f"compiled in       {step.compile_seconds:.1f} s")
    return lines
