"""The token-only twin of configs/hybrid_1b.py, 1.03 B parameters: what the mel branch costs, its MLPs have.

    wgpt train configs/tokens_1b.py --data OUT --workdir runs/tokens_1b

512 windows of 2048 frames, 1,048,576 frames a step. On v5e:16x16 (256 chips): 4.55 GiB of 15.75 per chip, at most 98 %
MFU by the roofline (`tools/compile_for.py configs/tokens_1b.py --quick`). On fewer devices change the mesh:
--mesh.fsdp 1 on a single one. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5e:16x16"
config = experiment("tokens", "1b", batch=512, context=2048, mesh=MeshConfig(data=-1, fsdp=16), remat="dots")
