"""Tokens against the hybrid at several sizes: what a hybrid is worth in parameters.

wgpt ablate configs/ablation_sizes.py --data piano=DIR --data reading=DIR --workdir runs/ablation_sizes
"""

from wgpt_jax.ablation.arms import chosen
from wgpt_jax.ablation.grid import SIZES, Ablation, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    arms=chosen("a", "c"),
    sizes=tuple(SIZES[name] for name in ("0.5m", "1m", "2m", "4m")),
    sweep=Sweep(learning_rates=(2e-3, 4e-3), embedding_stds=(0.3, 1.0), steps=500),
    steps=1000,
    batch=8,
    context=256,
    base=Config(
        training=TrainingConfig(eval_windows=64),
        optimizer=OptimizerConfig(warmup=50),
        logging=LoggingConfig(tensorboard=False),
    ),
)
