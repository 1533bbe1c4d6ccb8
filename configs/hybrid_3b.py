"""A hybrid of 3.00 B parameters. The top of the ladder.

    wgpt train configs/hybrid_3b.py --data OUT --workdir runs/hybrid_3b

512 windows of 2048 frames, 1,048,576 frames a step. On v5p:4x4x4 (64 chips): 30.73 GiB of 95.74 per chip, at most 99 %
MFU by the roofline (`tools/compile_for.py configs/hybrid_3b.py --quick`). On fewer devices change the mesh:
--mesh.fsdp 1 on a single one. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5p:4x4x4"
config = experiment("hybrid", "3b", batch=512, context=2048, mesh=MeshConfig(data=-1, fsdp=16), remat="dots")
