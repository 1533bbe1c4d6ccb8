"""The demo's hybrid: mel slices and coarse tokens, 0.6 M parameters; what `wgpt demo` trains second.

    wgpt train configs/demo_hybrid.py --data OUT --workdir runs/demo_hybrid

Minutes on two CPU cores.
"""

from wgpt_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

config = Config(
    model=ModelConfig(inputs="hybrid", width=96, depth=3, heads=3, hidden=384, mel_width=64, mel_depth=1, mel_heads=2),
    data=DataConfig(context=256),
    training=TrainingConfig(steps=700, batch=8, eval_every=100, eval_windows=64),
    optimizer=OptimizerConfig(learning_rate=4e-3, warmup=50),
    checkpoint=CheckpointConfig(every=100),
)
