"""The token-only twin of configs/hybrid_150m.py, 147 M parameters: what the mel branch costs, its MLPs have.

    wgpt train configs/tokens_150m.py --data OUT --workdir runs/tokens_150m

128 windows of 2048 frames, 262,144 frames a step. On v5e:4x4 (16 chips): 7.61 GiB of 15.75 per chip, at most 95 % MFU
by the roofline (`tools/compile_for.py configs/tokens_150m.py --quick`). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:4x4"
config = experiment("tokens", "150m", batch=128, context=2048, remat="dots")
