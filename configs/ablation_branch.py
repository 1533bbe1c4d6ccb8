"""How the mel is best read: fusion, and depth, width and reach of the branch, in the fair contest.

    wgpt ablate configs/ablation_branch.py --data piano=DIR --data reading=DIR --workdir runs/ablation_branch

Exploratory: it says what to try next, and what wins here is to be confirmed by a contest of its own, since the best of
ten arms is partly luck.

The data needs `tools/prepare_audio.py ... --num-codebooks 4 --mel-sources original,codec4` (other mels may be there).
Every arm is arm h of configs/ablation_codebooks.py, four codebooks out with the mel of their own decode, with one thing
changed; g2 is the same without a mel. Hidden channels make up for what a branch costs, so all arms have the same
parameters. Another resolution of the mel needs other data (`--mel.bands`) and a work folder of its own; the
configuration has no other normalisation.

6 to 8 runs of each arm's sweep (400 steps each, on the first data set, for both) and per data set 30 final ones (1000
steps, three seeds): 172 to 188 million frames for two data sets. A final run takes 2,048,000 frames: of two hours of
audio, about 430,000 in training, that is 4.8 epochs.
"""

import dataclasses

from wgpt_jax.ablation.arms import CONTEST, variant
from wgpt_jax.ablation.grid import Ablation, Size, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

h = CONTEST["h"]
ablation = Ablation(
    arms=(
        CONTEST["g2"],
        h,
        variant(h, "h-add", "added instead of concatenated", fusion="add"),
        variant(h, "h-frame", "no branch: the slice itself", mel_depth=0, mel_kernel=1),
        variant(h, "h-taps", "no blocks: three slices", mel_depth=0),
        variant(h, "h-deep", "two blocks", mel_depth=2),
        variant(h, "h-wide", "twice the channels", mel_width=96),
        variant(h, "h-dropped", "one slice in ten dropped", mel_dropout=0.1),
        variant(h, "h-windows", "every slice of one window in ten dropped", mel_dropout_window=0.1),
        dataclasses.replace(
            variant(h, "h-mixed", "half of training with the original's mel"),
            mel_mix={h.mel: 0.5, "original": 0.5},
        ),
    ),
    sizes=(Size("1m", 1_000_000, width=64, depth=4, heads=2, mel_width=48, depformer_width=48),),
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
