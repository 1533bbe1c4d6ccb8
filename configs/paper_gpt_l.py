"""The paper's large token-only GPT, 39 M parameters: what the hybrid is said to match (arXiv 2412.11449, table 1).

    wgpt train configs/paper_gpt_l.py --data OUT --workdir runs/paper_gpt_l

Width 512 and 12 blocks reconstruct the published 40 M. Published: 1.94 nats on LibriSpeech, 2.77 on music. Needs one
accelerator; not yet run by us on LibriSpeech.

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 9.89 GiB of 15.75 per chip, at most 83 % MFU by
the roofline (`tools/compile_for.py configs/paper_gpt_l.py --quick`).
"""

from wgpt_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

target = "v5e:2x2"
config = Config(
    model=ModelConfig(inputs="tokens", width=512, depth=12, heads=8, hidden=2048),
    data=DataConfig(context=1024, workers=2),
    training=TrainingConfig(steps=100_000, batch=64, eval_every=2000),
    optimizer=OptimizerConfig(learning_rate=6e-4, warmup=2000),
)
