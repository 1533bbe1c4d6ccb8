"""The demo's token-only twin of configs/demo_hybrid.py: coarse tokens alone, 0.6 M parameters.

    wgpt train configs/demo_tokens.py --data OUT --workdir runs/demo_tokens

Minutes on two CPU cores. What the mel branch costs the hybrid in parameters, this model has in its MLPs.

8 windows of 256 frames, 2,048 frames a step. On v5e:2x2 (4 chips): 0.03 GiB of 15.75 per chip, at most 17 % MFU by the
roofline (`tools/compile_for.py configs/demo_tokens.py --quick`).
"""

from wgpt_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

target = "v5e:2x2"
config = Config(
    model=ModelConfig(inputs="tokens", width=96, depth=3, heads=3, hidden=512),
    data=DataConfig(context=256),
    training=TrainingConfig(steps=700, batch=8, eval_every=100, eval_windows=64),
    optimizer=OptimizerConfig(learning_rate=4e-3, warmup=50),
    checkpoint=CheckpointConfig(every=100),
)
