"""A hybrid of 404 M parameters. Parameters and optimiser shared by eight chips each (FSDP).

    wgpt train configs/hybrid_400m.py --data OUT --workdir runs/hybrid_400m

256 windows of 2048 frames, 524,288 frames a step. On v5e:8x8 (64 chips): 5.45 GiB of 15.75 per chip, at most 98 % MFU
by the roofline (`tools/compile_for.py configs/hybrid_400m.py --quick`). On fewer devices change the mesh: --mesh.fsdp
1 on a single one. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5e:8x8"
config = experiment("hybrid", "400m", batch=256, context=2048, mesh=MeshConfig(data=-1, fsdp=8), remat="dots")
