"""A hybrid of 1.03 B parameters. A billion parameters: does the hybrid's gain survive size?

    wgpt train configs/hybrid_1b.py --data OUT --workdir runs/hybrid_1b

512 windows of 2048 frames, 1,048,576 frames a step. On v5e:16x16 (256 chips): 4.74 GiB of 15.75 per chip, at most 98 %
MFU by the roofline (`tools/compile_for.py configs/hybrid_1b.py --quick`). On fewer devices change the mesh:
--mesh.fsdp 1 on a single one. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5e:16x16"
config = experiment("hybrid", "1b", batch=512, context=2048, mesh=MeshConfig(data=-1, fsdp=16), remat="dots")
