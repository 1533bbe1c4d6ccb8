"""How the mel is best read in the fair contest: fusion, taps, blocks and width of the branch, and what it may replace.

    wgpt ablate configs/ablation_branch.py --data piano=DIR --workdir runs/ablation_branch

Exploratory and cheap: one seed, 400 steps, no sweep but the point that arm g2 of configs/ablation_codebooks.py chose.
Compare the last validation NLL of the learning curves (summary.md), not the test column: what wins here is a hypothesis
for configs/ablation_codebooks.py to confirm, with sweeps and seeds of its own, on documents that had no say in it.

The data needs `tools/prepare_audio.py ... --num-codebooks 4 --mel-sources original,codec4` (other mels may be there).
Arms are h and hc of the contest, and what they are without a mel, with one thing changed. Hidden channels make up for
what a branch costs, so all arms have the same parameters. Another resolution of the mel needs other data
(`--mel.bands`) and a work folder of its own; the configuration has no other normalisation.
"""

import dataclasses

from wgpt_jax.ablation.arms import CONTEST, variant
from wgpt_jax.ablation.grid import Ablation, Size, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

g2, h, g2c, hc = (CONTEST[name] for name in ("g2", "h", "g2c", "hc"))
ablation = Ablation(
    arms=(
        *(g2, h, g2c, hc),
        variant(h, "h-paper", "concatenated, three slices, one block", fusion="concat", mel_kernel=3, mel_depth=1),
        variant(h, "h-block", "three slices, one block", mel_kernel=3, mel_depth=1),
        variant(h, "h-taps8", "eight slices", mel_kernel=8),
        variant(h, "h-taps16", "16 slices", mel_kernel=16),
        variant(h, "h-taps32", "32 slices", mel_kernel=32),
        variant(h, "h-taps8-wide", "eight slices, twice the channels", mel_kernel=8, mel_width=96),
        variant(
            dataclasses.replace(h, model={**h.model, "fusion": "concat", "mel_kernel": 3, "mel_depth": 1}),
            "h-paper-coarse",
            "as h-paper, in place of codebooks two to four",
            input_codebooks=1,
        ),
        variant(g2c, "g2c-8", "8 frames", token_kernel=8),
        variant(g2c, "g2c-wide", "twice the channels", token_width=96),
        variant(hc, "hc-taps16", "16 slices", mel_kernel=16),
        variant(hc, "hc-block", "three slices, one block", mel_kernel=3, mel_depth=1),
        variant(hc, "hc-dropped", "one slice in ten dropped", mel_dropout=0.1),
        dataclasses.replace(
            variant(hc, "hc-mixed", "half of training with the original's mel"),
            mel_mix={hc.mel: 0.5, "original": 0.5},
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
