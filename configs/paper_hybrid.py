"""The paper's hybrid: mel slices and coarse tokens, 4.0 M parameters (arXiv 2412.11449, table 1).

    wgpt train configs/paper_hybrid.py --data OUT --workdir runs/paper_hybrid

The paper gives the parameter count, early fusion by concatenation and light causal blocks on the mel; depths, widths,
context and optimiser are our reconstruction. Published: 1.93 nats on LibriSpeech, 2.52 on music. Needs one accelerator;
not yet run by us on LibriSpeech.

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 2.15 GiB of 15.75 per chip, at most 61 % MFU by
the roofline (`tools/compile_for.py configs/paper_hybrid.py --quick`).
"""

from wgpt_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

target = "v5e:2x2"
config = Config(
    model=ModelConfig(
        inputs="hybrid", width=256, depth=4, heads=4, hidden=1024, mel_width=96, mel_depth=2, mel_heads=2
    ),
    data=DataConfig(context=1024, workers=2),
    training=TrainingConfig(steps=100_000, batch=64, eval_every=2000),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup=2000),
)
