"""A hybrid of 15.7 M parameters. One GPU or one TPU host, a day.

    wgpt train configs/hybrid_15m.py --data OUT --workdir runs/hybrid_15m

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 5.55 GiB of 15.75 per chip, at most 77 % MFU by
the roofline (`tools/compile_for.py configs/hybrid_15m.py --quick`). Not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:2x2"
config = experiment("hybrid", "15m", batch=64)
