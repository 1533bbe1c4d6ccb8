"""v5e-16: 16 chips on 4 hosts, the smallest pod slice of several hosts: the 404 M hybrid of configs/hybrid_400m.py,
laid out for it.

    wgpt train configs/pod_v5e_16.py --data OUT --workdir runs/pod_v5e_16

128 windows of 2048 frames, 262,144 frames a step. On v5e:4x4 (16 chips): 10.88 GiB of 15.75 per chip, at most 98 % MFU
by the roofline (`tools/compile_for.py configs/pod_v5e_16.py --quick`). The same line on every host: docs/running.md.
Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5e:4x4"
config = experiment("hybrid", "400m", batch=128, context=2048, mesh=MeshConfig(data=-1, fsdp=4), remat="dots")
