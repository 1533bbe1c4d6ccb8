"""The token-only twin of configs/hybrid_3b.py, 2.99 B parameters: what the mel branch costs, its MLPs have.

    wgpt train configs/tokens_3b.py --data OUT --workdir runs/tokens_3b

512 windows of 2048 frames, 1,048,576 frames a step. On v5p:4x4x4 (64 chips): 29.56 GiB of 95.74 per chip, at most 100
% MFU by the roofline (`tools/compile_for.py configs/tokens_3b.py --quick`). On fewer devices change the mesh:
--mesh.fsdp 1 on a single one. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5p:4x4x4"
config = experiment("tokens", "3b", batch=512, context=2048, mesh=MeshConfig(data=-1, fsdp=16), remat="dots")
