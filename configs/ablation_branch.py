"""How the mel is best read in the fair contest: fusion, taps, blocks and width of the branch, and what it may replace.

    wgpt ablate configs/ablation_branch.py --data piano=DIR --workdir runs/ablation_branch

Exploratory and cheap: one seed, 400 steps, no sweep but the point that arm g2 of configs/ablation_codebooks.py chose.
Compare the last validation NLL of the learning curves (summary.md), not the test column: what wins here is a hypothesis
for configs/ablation_codebooks.py to confirm, with sweeps and seeds of its own, on documents that had no say in it.

The data needs `tools/prepare_audio.py ... --num-codebooks 4 --mel-sources original,codec4` (other mels may be there).
Every hybrid is arm h of the contest with one thing changed; g2 is the same without a mel. Hidden channels make up for
what a branch costs, so all arms have the same parameters. Another resolution of the mel needs other data
(`--mel.bands`) and a work folder of its own; the configuration has no other normalisation.
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
        variant(h, "h-paper", "concatenated, three slices, one block", fusion="concat", mel_kernel=3, mel_depth=1),
        variant(h, "h-block", "three slices, one block", mel_kernel=3, mel_depth=1),
        variant(h, "h-concat", "concatenated", fusion="concat"),
        variant(h, "h-frame", "the slice itself", mel_kernel=1),
        variant(h, "h-taps8", "eight slices", mel_kernel=8),
        variant(h, "h-taps32", "32 slices", mel_kernel=32),
        variant(h, "h-wide", "twice the channels", mel_width=96),
        variant(h, "h-coarse", "in place of codebooks two to four", input_codebooks=1),
        variant(h, "h-dropped", "one slice in ten dropped", mel_dropout=0.1),
        variant(h, "h-windows", "every slice of one window in ten dropped", mel_dropout_window=0.1),
        dataclasses.replace(
            variant(h, "h-mixed", "half of training with the original's mel"),
            mel_mix={h.mel: 0.5, "original": 0.5},
        ),
    ),
    sizes=(Size("1m", 1_000_000, width=64, depth=4, heads=2, mel_width=48, depformer_width=48),),
    sweep=Sweep(learning_rates=(1.2e-2,), embedding_stds=(3.333e-3,), steps=400),
    seeds=(0,),
    steps=400,
    batch=8,
    context=256,
    eval_every=200,
    base=Config(
        training=TrainingConfig(eval_windows=64),
        optimizer=OptimizerConfig(warmup=50),
        logging=LoggingConfig(tensorboard=False),
    ),
)
