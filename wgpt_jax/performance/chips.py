"""What one device of each accelerator can do, from its vendor's documents: the yardstick of MFU and of the roofline."""

import dataclasses
import re

_GIB = 2**30
_GOOGLE = "https://docs.cloud.google.com/tpu/docs/"
_V2 = "Jouppi et al., CACM 63(7), 2020, https://doi.org/10.1145/3360307, table 3"
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf, appendix A"
_TENSOR_CORE = 16
"""The shortest side that Tensor Cores multiply without waste, mma.m16n8k16: PTX ISA, warp-level matrix instructions."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one JAX device can do."""

    name: str
    peak_bf16_flops: float
    """Dense bfloat16 matrix products, FLOP/s; half of the vendor's figure where that one is with sparsity."""
    hbm_bytes: int
    """Device memory; vendors' GB of it are binary."""
    hbm_bandwidth: float
    """Device memory, bytes/s."""
    matrix_tile: int
    """Side that the matrix unit pads sizes to: its systolic array on a TPU, an instruction's rows on a GPU."""
    source: str
    """The vendor's document."""

    def core(self) -> "Chip":
        """One of the two cores of this chip."""
        return dataclasses.replace(
            self,
            name=f"{self.name} core",
            peak_bf16_flops=self.peak_bf16_flops / 2,
            hbm_bytes=self.hbm_bytes // 2,
            hbm_bandwidth=self.hbm_bandwidth / 2,
        )


_V5E = Chip("TPU v5e", 197e12, 16 * _GIB, 819e9, 128, _GOOGLE + "v5e")
_V5P = Chip("TPU v5p", 459e12, 95 * _GIB, 2765e9, 128, _GOOGLE + "v5p")
_V6E = Chip("TPU v6e", 918e12, 32 * _GIB, 1638e9, 256, _GOOGLE + "v6e")
_H100, _H200 = _NVIDIA + "h100/", _NVIDIA + "h200/"

# JAX makes a device of each of the two cores of v2, v3 and TPU7x: half the chip's figures. The cores of v4 and v5p work
# as one (megacore), also where a v4 topology described ahead of time shows them apart: nothing runs on such devices.
CHIPS: dict[str, Chip] = {
    "TPU v2": Chip("TPU v2", 46e12, 16 * _GIB, 700e9, 128, _V2).core(),
    "TPU v3": Chip("TPU v3", 123e12, 32 * _GIB, 900e9, 128, _GOOGLE + "v3").core(),
    "TPU v4": Chip("TPU v4", 275e12, 32 * _GIB, 1200e9, 128, _GOOGLE + "v4"),
    "TPU v5 lite": _V5E,
    "TPU v5e": _V5E,
    "TPU v5": _V5P,
    "TPU v5p": _V5P,
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
    "TPU7x": Chip("TPU7x", 2307e12, 192 * _GIB, 7380e9, 256, _GOOGLE + "tpu7x").core(),
    "A100 40GB": Chip("A100 40 GB", 312e12, 40 * _GIB, 1555e9, _TENSOR_CORE, _NVIDIA + "a100/"),
    "A100 80GB": Chip("A100 80 GB", 312e12, 80 * _GIB, 2039e9, _TENSOR_CORE, _NVIDIA + "a100/"),
    "A100 80GB PCIe": Chip("A100 80 GB PCIe", 312e12, 80 * _GIB, 1935e9, _TENSOR_CORE, _NVIDIA + "a100/"),
    "L4": Chip("L4", 121e12, 24 * _GIB, 300e9, _TENSOR_CORE, _NVIDIA + "l4/"),
    "RTX 4090": Chip("RTX 4090", 165.2e12, 24 * _GIB, 1008e9, _TENSOR_CORE, _ADA),
    "H100 HBM3": Chip("H100 SXM", 989.5e12, 80 * _GIB, 3350e9, _TENSOR_CORE, _H100),
    "H100 PCIe": Chip("H100 PCIe", 756.5e12, 80 * _GIB, 2000e9, _TENSOR_CORE, _H100),
    "H100 NVL": Chip("H100 NVL", 835.5e12, 94 * _GIB, 3900e9, _TENSOR_CORE, _H100),
    "H200": Chip("H200 SXM", 989.5e12, 141 * _GIB, 4800e9, _TENSOR_CORE, _H200),
    "H200 NVL": Chip("H200 NVL", 835.5e12, 141 * _GIB, 4800e9, _TENSOR_CORE, _H200),
    "B200": Chip("B200", 2250e12, 180 * _GIB, 8000e9, _TENSOR_CORE, _NVIDIA + "dgx-b200/"),
}
"""By the words of ``device_kind`` that tell a chip: ``NVIDIA H100 80GB HBM3`` is ``H100 HBM3``."""

_ANOTHER = {"lite", "MIG", "Laptop", "D"}
"""Words that make another, weaker device of a name."""


def chip_of(device_kind: str) -> Chip | None:
    """The chip behind ``jax.Device.device_kind``; None for a CPU and for what the table does not hold.

    Among the keys whose words all stand in ``device_kind`` the longest is meant. Unknown is better than wrong: MIG
    slices and laptop versions of a chip are None.
    """
    words = set(re.split(r"[ -]", device_kind))
    keys = [key for key in CHIPS if (named := set(key.split())) <= words and not (words - named) & _ANOTHER]
    return CHIPS[max(keys, key=len)] if keys else None
