"""Which process of how many this is, from flags, Slurm, Open MPI or a TPU pod."""

import dataclasses
import os
import re

from wgpt_jax.errors import RequestError


@dataclasses.dataclass(frozen=True)
class HostFlags:
    """Several processes that train together. On one host, on TPU pods, under Slurm and Open MPI nothing is needed."""

    coordinator: str | None = None
    """HOST:PORT at which process 0 listens; the same for all processes."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Which of them this is: 0 to num-processes - 1."""
    timeout: int = 600
    """Seconds that any wait for the other processes lasts at most (start, restore, save, end)."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A process among several."""

    coordinator: str
    """HOST:PORT of process 0."""
    count: int
    process: int
    local_devices: tuple[int, ...] = ()
    """The accelerators of this host that are this process's, if not all are."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port apart."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def find_place(flags: HostFlags) -> Place | None:
    """Where this process stands; None if it is alone.

    Raises:
        RequestError: if flags are missing or wrong, or the cluster does not say enough.
    """
    if flags.timeout < 1:
        raise RequestError(f"--timeout {flags.timeout} must be at least 1 second")
    given = {
        "--coordinator": flags.coordinator,
        "--num-processes": flags.num_processes,
        "--process-id": flags.process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return _cluster_place(flags.timeout)
    if missing:
        raise RequestError(f"{', '.join(given)} belong together: give {' and '.join(missing)} too")
    if flags.num_processes < 1:
        raise RequestError(f"--num-processes {flags.num_processes} must be at least 1")
    if not 0 <= flags.process_id < flags.num_processes:
        raise RequestError(
            f"--process-id {flags.process_id} must be from 0 to {flags.num_processes - 1} (--num-processes - 1)"
        )
    match = re.fullmatch(r"([^:\s]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", flags.coordinator)
    if not match or not 0 < int(match[2]) < 1 << 16:
        raise RequestError(f"--coordinator {flags.coordinator} is no HOST:PORT, such as 10.0.0.1:1234")
    return Place(flags.coordinator, flags.num_processes, flags.process_id) if flags.num_processes > 1 else None


def _cluster_place(timeout: int) -> Place | None:
    name = _cluster()
    if name is None:
        return None
    # jax.distributed.initialize() finds the same values, but tells nobody where process 0 is before it has connected,
    # and it aborts if it cannot. There is no public way to ask.
    from jax._src.clusters import ClusterEnv

    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, name, timeout)
        coordinator, count, process, devices = found
        if name == "slurm":  # JAX reads the job's count where the step's differs
            count = int(os.environ.get("SLURM_STEP_NUM_TASKS", count))
    except (LookupError, ValueError, RuntimeError, OSError) as error:
        raise RequestError(
            f"this looks like one of several processes ({name}), but where process 0 is cannot be found ({error!r}); "
            "give --coordinator, --num-processes and --process-id"
        ) from error
    if devices is None or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        devices = ()
    return Place(coordinator, count, process, tuple(devices)) if count > 1 else None


def _cluster() -> str | None:
    """JAX's name of the cluster that started this process as one of several, or may have; None if it is alone."""
    env = os.environ
    if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return "ompi"
    # Only a step's tasks have its node list; the batch script of a job with many tasks runs once.
    if "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", 1))) > 1:
        return "slurm"
    return _tpu_cluster() if env.get("JAX_PLATFORMS", "tpu").startswith("tpu") else None


def _tpu_cluster() -> str | None:
    from jax._src import cloud_tpu_init, clusters

    workers = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if not cloud_tpu_init.running_in_cloud_tpu_vm:
        return None
    if workers:
        return "gketpu" if "," in workers or int(os.environ.get("MEGASCALE_NUM_SLICES", 1)) > 1 else None
    try:
        return "gcetpu" if clusters.GceTpuCluster.is_env_present() else None
    except OSError:  # no metadata server to ask: a container with the TPUs of one host
        return None
