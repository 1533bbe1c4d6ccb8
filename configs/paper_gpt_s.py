"""The paper's small token-only GPT, 3.7 M parameters: the hybrid's twin (arXiv 2412.11449, table 1).

    wgpt train configs/paper_gpt_s.py --data OUT --workdir runs/paper_gpt_s

The decoder of configs/paper_hybrid.py without the mel branch. Published: 2.02 nats on LibriSpeech, 2.78 on music. Needs
one accelerator; not yet run by us on LibriSpeech.

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 1.80 GiB of 15.75 per chip, at most 67 % MFU by
the roofline (`tools/compile_for.py configs/paper_gpt_s.py --quick`).
"""

from wgpt_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

target = "v5e:2x2"
config = Config(
    model=ModelConfig(inputs="tokens", width=256, depth=4, heads=4, hidden=1024),
    data=DataConfig(context=1024, workers=2),
    training=TrainingConfig(steps=100_000, batch=64, eval_every=2000),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup=2000),
)
