"""One host of 8 H200: the 1.03 B hybrid of configs/hybrid_1b.py, laid out for it.

    wgpt train configs/gpu_8xh200.py --data OUT --workdir runs/gpu_8xh200

128 windows of 2048 frames, 262,144 frames a step. On 8 x H200: 43.90 GiB of 105.30 per chip, at most 100 % MFU by the
roofline (`tools/compile_for.py configs/gpu_8xh200.py --quick`; with the einsum in place of cuDNN's attention, which
needs less). Not yet run by us.
"""

from wgpt_jax.config import MeshConfig
from wgpt_jax.sizes import experiment

target = "cuda:h200x8"
config = experiment("hybrid", "1b", batch=128, context=2048, mesh=MeshConfig(data=1, fsdp=-1), remat="dots")
