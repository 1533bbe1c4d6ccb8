"""A hybrid of 40 M parameters. The size of the paper's GPT-L, which its 4 M hybrid is said to match.

    wgpt train configs/hybrid_40m.py --data OUT --workdir runs/hybrid_40m

128 windows of 1024 frames, 131,072 frames a step. On v5e:2x2 (4 chips): 7.43 GiB of 15.75 per chip, at most 84 % MFU
by the roofline (`tools/compile_for.py configs/hybrid_40m.py --quick`). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:2x2"
config = experiment("hybrid", "40m", batch=128, remat="dots")
