"""The token-only twin of configs/hybrid_400m.py, 402 M parameters: what the mel branch costs, its MLPs have.

    wgpt train configs/tokens_400m.py --data OUT --workdir runs/tokens_400m

256 windows of 2048 frames, 524,288 frames a step. On v5e:8x8 (64 chips): 5.10 GiB of 15.75 per chip, at most 99 % MFU
by the roofline (`tools/compile_for.py configs/tokens_400m.py --quick`). On fewer devices change the mesh: --mesh.fsdp
1 on a single one. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5e:8x8"
config = experiment("tokens", "400m", batch=256, context=2048, mesh=MeshConfig(data=-1, fsdp=8), remat="dots")
