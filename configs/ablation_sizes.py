"""Tokens against the hybrid at several sizes: what a hybrid is worth in parameters.

    wgpt ablate configs/ablation_sizes.py --data piano=DIR --data reading=DIR --workdir runs/ablation_sizes

Two pairs: a and c, as in the paper, and ac and cc, which both have a convolution over the embeddings and differ in a
bare mel slice. The data needs the original's mel alone. The sweep is done at 0.5 M parameters; the other sizes take
its learning rate, less by the square root of their widths, and its embedding scale, all arms alike (of arm a, a sweep
at 5 M chose 0.003 and 0.03, where the rule says 0.0037 and 0.0033). 6 to 8 runs of each arm's sweep (400 steps each,
on the first data set, for both) and per data set 60 final ones (1000 steps, three seeds): 265 to 272 million frames
for two data sets. A final run takes 2,048,000 frames: of two hours of audio, about 430,000 in training, that is 4.7
epochs. More than half of the computing is that of 10 M: a CPU wants `--sizes 0.5m 1m 2m 4m`.

The paper's claim is of a token-only model of ten times the parameters: `--sizes 0.5m 5m --only size=0.5m arm=a,size=5m`
puts one beside the hybrids of 0.5 M, with a sweep of its own.

An accelerator goes on to 40 M with ten hours (2.1 million frames in training): `--sizes 0.5m 1m 2m 4m 10m 40m --batch
16 --context 1024 --steps 1300 --tune-steps 520 --eval-every 130` is 10 epochs (40m has a sweep of its own).
"""

import dataclasses

from wgpt_jax.ablation.arms import chosen
from wgpt_jax.ablation.grid import SIZES, Ablation, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    arms=chosen("a", "c", "ac", "cc"),
    sizes=(SIZES["0.5m"], *(dataclasses.replace(SIZES[name], tuned_at="0.5m") for name in ("1m", "2m", "4m", "10m"))),
    sweep=Sweep(learning_rates=(6e-3, 1.2e-2), embedding_stds=(0.01, 0.03), steps=400, extend=2),
    sweep_per_data=False,
    steps=1000,
    batch=8,
    context=256,
    base=Config(
        training=TrainingConfig(eval_windows=64),
        optimizer=OptimizerConfig(warmup=50),
        logging=LoggingConfig(tensorboard=False),
    ),
)
