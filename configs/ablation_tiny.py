"""The ablation in small: tokens against the hybrid at two sizes, for a notebook and for tests of the machinery.

    wgpt ablate configs/ablation_tiny.py --data OUT --workdir runs/ablation_tiny

12 runs of seconds each, minutes in all on two CPU cores, most of them spent on starting and compiling. What comes out
says that the machinery works, and nothing about the hybrid: the models have seen a minute of audio.
"""

from wgpt_jax.ablation.arms import chosen
from wgpt_jax.ablation.grid import Ablation, Size, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    arms=chosen("a", "c"),
    sizes=(
        Size("0.1m", 100_000, width=32, depth=2, heads=2, mel_width=16),
        Size("0.2m", 200_000, width=48, depth=2, heads=2, mel_width=24, tuned_at="0.1m"),
    ),
    sweep=Sweep(learning_rates=(4e-3, 8e-3), embedding_stds=(0.01,), steps=60),
    steps=60,
    batch=8,
    context=128,
    seeds=(0, 1),
    eval_every=20,
    base=Config(
        training=TrainingConfig(eval_windows=16),
        optimizer=OptimizerConfig(warmup=10),
        logging=LoggingConfig(every=5, tensorboard=False),
    ),
)
