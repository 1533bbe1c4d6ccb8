"""v6e-256: a whole pod, 256 chips on 64 hosts: the 3.00 B hybrid of configs/hybrid_3b.py, laid out for it.

    wgpt train configs/pod_v6e_256.py --data OUT --workdir runs/pod_v6e_256

1024 windows of 2048 frames, 2,097,152 frames a step. On v6e:16x16 (256 chips): 17.10 GiB of 31.25 per chip, at most 93
% MFU by the roofline (`tools/compile_for.py configs/pod_v6e_256.py --quick`). The same line on every host:
docs/running.md. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v6e:16x16"
config = experiment("hybrid", "3b", batch=1024, context=2048, mesh=MeshConfig(data=-1, fsdp=16), remat="dots")
