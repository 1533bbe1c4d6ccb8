"""A hybrid of 1.1 M parameters. The smallest rung: hyperparameter sweeps, and whatever must be done a hundred times.

    wgpt train configs/hybrid_1m.py --data OUT --workdir runs/hybrid_1m

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 1.11 GiB of 15.75 per chip, at most 39 % MFU by
the roofline (`tools/compile_for.py configs/hybrid_1m.py --quick`). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:2x2"
config = experiment("hybrid", "1m", batch=64)
