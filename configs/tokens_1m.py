"""The token-only twin of configs/hybrid_1m.py, 1.1 M parameters: what the mel branch costs, its MLPs have.

    wgpt train configs/tokens_1m.py --data OUT --workdir runs/tokens_1m

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 0.97 GiB of 15.75 per chip, at most 43 % MFU by
the roofline (`tools/compile_for.py configs/tokens_1m.py --quick`). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:2x2"
config = experiment("tokens", "1m", batch=64)
