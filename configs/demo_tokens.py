"""The demo's token-only twin of configs/demo_hybrid.py: coarse tokens alone, 0.6 M parameters.

    wgpt train configs/demo_tokens.py --data OUT --workdir runs/demo_tokens

Minutes on two CPU cores. It has the hybrid's convolution over the embeddings, so the two differ in the mel alone; what
the mel costs the hybrid in parameters, this model has in its MLPs.

8 windows of 256 frames, 2,048 frames a step. On v5e:2x2 (4 chips): 0.03 GiB of 15.75 per chip, at most 16 % MFU by the
roofline (`tools/compile_for.py configs/demo_tokens.py --quick`).
"""

from wgpt_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

target = "v5e:2x2"
config = Config(
    model=ModelConfig(
        inputs="tokens",
        width=96,
        depth=3,
        heads=3,
        hidden=352,
        token_kernel=16,
        token_width=64,
        embedding_std=0.01,
    ),
    data=DataConfig(context=256),
    training=TrainingConfig(steps=400, batch=8, eval_every=100, eval_windows=64),
    optimizer=OptimizerConfig(learning_rate=8e-3, warmup=50),
    checkpoint=CheckpointConfig(every=100),
)
