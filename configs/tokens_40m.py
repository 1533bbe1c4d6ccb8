"""The token-only twin of configs/hybrid_40m.py, 40 M parameters: what the mel branch costs, its MLPs have.

    wgpt train configs/tokens_40m.py --data OUT --workdir runs/tokens_40m

128 windows of 1024 frames, 131,072 frames a step. On v5e:2x2 (4 chips): 6.86 GiB of 15.75 per chip, at most 85 % MFU
by the roofline (`tools/compile_for.py configs/tokens_40m.py --quick`). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:2x2"
config = experiment("tokens", "40m", batch=128, remat="dots")
