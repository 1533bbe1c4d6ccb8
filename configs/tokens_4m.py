"""The token-only twin of configs/paper_hybrid.py, 4.0 M parameters: what the mel branch costs, its MLPs have.

    wgpt train configs/tokens_4m.py --data OUT --workdir runs/tokens_4m

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 1.92 GiB of 15.75 per chip, at most 69 % MFU by
the roofline (`tools/compile_for.py configs/tokens_4m.py --quick`). Its network was trained briefly as arm a of
configs/ablation_sizes.py, with another initialisation; this file was not yet run by us.
"""

from wgpt_jax.sizes import experiment

target = "v5e:2x2"
config = experiment("tokens", "4m", batch=64)
