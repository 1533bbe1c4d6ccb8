"""The token-only twin of configs/hybrid_15m.py, 15.6 M parameters: what the mel branch costs, its MLPs have.

    wgpt train configs/tokens_15m.py --data OUT --workdir runs/tokens_15m

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 5.17 GiB of 15.75 per chip, at most 80 % MFU by
the roofline (`tools/compile_for.py configs/tokens_15m.py --quick`). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:2x2"
config = experiment("tokens", "15m", batch=64)
