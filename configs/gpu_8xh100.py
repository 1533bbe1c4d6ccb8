"""One host of 8 H100: the 404 M hybrid of configs/hybrid_400m.py, laid out for it.

    wgpt train configs/gpu_8xh100.py --data OUT --workdir runs/gpu_8xh100

128 windows of 2048 frames, 262,144 frames a step. On 8 x H100: 37.97 GiB of 59.74 per chip, at most 96 % MFU by the
roofline (`tools/compile_for.py configs/gpu_8xh100.py --quick`; with the einsum in place of cuDNN's attention, which
needs less). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "cuda:h100x8"
config = experiment("hybrid", "400m", batch=128, context=2048, remat="dots")
