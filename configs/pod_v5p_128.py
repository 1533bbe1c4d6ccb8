"""v5p-128: 64 chips (the name counts cores) on 16 hosts: the 1.03 B hybrid of configs/hybrid_1b.py, laid out for it.

    wgpt train configs/pod_v5p_128.py --data OUT --workdir runs/pod_v5p_128

512 windows of 2048 frames, 1,048,576 frames a step. On v5p:4x4x4 (64 chips): 16.84 GiB of 95.74 per chip, at most 99 %
MFU by the roofline (`tools/compile_for.py configs/pod_v5p_128.py --quick`). The same line on every host:
docs/running.md. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5p:4x4x4"
config = experiment("hybrid", "1b", batch=512, context=2048, mesh=MeshConfig(data=-1, fsdp=8), remat="dots")
