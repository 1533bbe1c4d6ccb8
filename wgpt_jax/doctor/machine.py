"""The machine: what is installed, and which devices JAX sees. Nothing here needs JAX to be installed."""

import contextlib
import glob
import importlib.metadata
import logging
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

import wgpt_jax
from wgpt_jax.doctor.section import Section, in_bytes

if TYPE_CHECKING:
    import jax

_US = "wgpt_jax"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "array_record", "numpy")
_ROOT = Path(wgpt_jax.__file__).parents[1]
_IDLE = {"cuda": ("GPU", "/dev/nvidia[0-9]*"), "tpu": ("TPU", "/dev/accel[0-9]*")}
"""Extras, the devices they are for, and the files by which such devices show themselves."""


def versions() -> Section:
    """Python, the packages that training is made of, and which optional extras are complete."""
    section = Section("versions")
    section.say("python", platform.python_version(), python=platform.python_version())
    names = sorted({name for each in importlib.metadata.distributions() if (name := each.name).startswith("jax-cuda")})
    installed = {name: found for name in (*_PACKAGES, "libtpu", *names) if (found := _version(name)) is not None}
    section.say("packages", ", ".join(f"{name} {found}" for name, found in installed.items()), packages=installed)
    ours, commit = _version(_US), checkout()
    section.say(_US, f"{ours or 'not installed'}{f', commit {commit}' if commit else ''}", wgpt_jax=ours, commit=commit)
    if ours is None:
        section.stop(f"{_US} is not installed, only found on the path; {_pip()}")
        return section
    required = _requirements(_US)
    if lacking := _lacking(required, ""):
        section.stop(f"{', '.join(lacking)} missing or of another version; {_pip()}")
    extras = {}
    for extra in importlib.metadata.metadata(_US).get_all("Provides-Extra", []):
        lacking = _lacking([each for each in required if not _wanted(each, "")], extra)
        extras[extra] = {"missing": lacking, "install": _pip(extra)}
        section.say(f"extra {extra}", f"missing {', '.join(lacking)}; {_pip(extra)}" if lacking else "complete")
    section.facts["extras"] = extras
    return section


def devices() -> Section:
    """Platform, number, kind, memory and peak of the devices that JAX sees."""
    import jax

    from wgpt_jax.performance.chips import chip_of

    section = Section("devices")
    asked = os.environ.get("JAX_PLATFORMS", "")
    with _complaints() as complaints:
        try:
            found = jax.devices()
        except (RuntimeError, AssertionError) as error:
            found, reason = [], next(iter(str(error).splitlines()), "no backend starts")
    if not found:
        reason = "; ".join([reason, *complaints])
        section.stop(
            f"JAX finds no devices: {reason}; check the driver, JAX_PLATFORMS ({asked or 'not set'}) and whether "
            "another process holds them"
        )
        return section
    for complaint in complaints:
        section.warn(f"a plug-in of JAX does not start: {complaint}; check its driver and libraries, or uninstall it")
    kind, count, process, processes = found[0].device_kind, len(found), jax.process_index(), jax.process_count()
    text = f"{count} x {kind}" + (f"; this is process {process} of {processes}" if processes > 1 else "")
    section.say(found[0].platform, text, platform=found[0].platform, count=count, device_kind=kind)
    section.facts.update(process=process, processes=processes)
    size, source = memory(jax.local_devices()[0])
    section.say("memory", f"{in_bytes(size)} ({source})", memory_bytes=size, memory_source=source)
    chip = chip_of(kind)
    section.facts["peak_bf16_flops"] = chip.peak_bf16_flops if chip else None
    section.facts["peak_source"] = chip.source if chip else None
    if chip:
        section.say("peak", f"{chip.peak_bf16_flops / 1e12:g} TFLOP/s each in bfloat16 ({chip.source})")
    else:
        section.say("peak", f"not known for {kind}: MFU is not reported")
    if found[0].platform == "cpu" and not asked:
        for extra, (name, files) in _IDLE.items():
            if glob.glob(files):
                section.warn(f"this machine has a {name}, but JAX runs on the CPU; {_pip(extra)}")
    return section


def memory(device: "jax.Device") -> tuple[int, str]:
    """Bytes of a device's memory, and who says so."""
    from wgpt_jax.performance.chips import chip_of

    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    if limit:
        return limit, "each, as much of it as JAX takes"
    if chip := chip_of(device.device_kind):
        return chip.hbm_bytes, f"each, {chip.source}"
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "of this host, shared by all"


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collects the first line of every exception that JAX logs and lives with while it starts."""
    logger, heard = logging.getLogger("jax._src.xla_bridge"), []

    def hear(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            heard.extend(str(record.exc_info[1]).splitlines()[:1])
        return False

    logger.addFilter(hear)
    try:
        yield heard
    finally:
        logger.removeFilter(hear)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def checkout() -> str | None:
    """The checkout's commit, ``-dirty`` where files differ from it; None outside a checkout."""
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _requirements(name: str) -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires(name) or []]


def _wanted(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement is one of this Python's, with an extra or (if that is empty) without any."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _lacking(required: list[Requirement], extra: str) -> list[str]:
    """Which requirements are not met, those included that the extras of requirements bring (``jax[tpu]``: libtpu)."""
    lacking = []
    for each in required:
        if not _wanted(each, extra):
            continue
        found = _version(each.name)
        if found is None or not each.specifier.contains(found, prereleases=True):
            lacking.append(f"{each.name}{each.specifier}")
            continue
        for inner in each.extras:
            brought = [other for other in _requirements(each.name) if not _wanted(other, "")]
            lacking += _lacking(brought, inner)
    return lacking


def _pip(extra: str = "") -> str:
    """The line that installs this package, with an extra."""
    suffix = f"[{extra}]" if extra else ""
    return f'pip install -e ".{suffix}"' if (_ROOT / "setup.cfg").exists() else f'pip install "{_US}{suffix}"'
