"""v5e-256: a whole pod, 256 chips on 64 hosts: the 3.00 B hybrid of configs/hybrid_3b.py, laid out for it.

    wgpt train configs/pod_v5e_256.py --data OUT --workdir runs/pod_v5e_256

512 windows of 2048 frames, 1,048,576 frames a step. On v5e:16x16 (256 chips): 10.01 GiB of 15.75 per chip, at most 98 %
MFU by the roofline (`tools/compile_for.py configs/pod_v5e_256.py --quick`). The same line on every host:
docs/running.md. Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "v5e:16x16"
config = experiment("hybrid", "3b", batch=512, context=2048, mesh=MeshConfig(data=-1, fsdp=16), remat="dots")
