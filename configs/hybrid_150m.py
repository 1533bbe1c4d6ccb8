"""A hybrid of 146 M parameters. The first rung that wants more than one host of small TPUs; still one copy of the
model per chip.

    wgpt train configs/hybrid_150m.py --data OUT --workdir runs/hybrid_150m

128 windows of 2048 frames, 262,144 frames a step. On v5e:4x4 (16 chips): 7.93 GiB of 15.75 per chip, at most 93 % MFU
by the roofline (`tools/compile_for.py configs/hybrid_150m.py --quick`). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:4x4"
config = experiment("hybrid", "150m", batch=128, context=2048, remat="dots")
