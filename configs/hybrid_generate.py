"""A hybrid to generate with: configs/paper_hybrid.py with all 8 codebooks out, trained to hear its own decode.

    python tools/prepare_audio.py AUDIO OUT --codec bundled --mel-sources original,codec8
    wgpt train configs/hybrid_generate.py --data OUT --workdir runs/hybrid_generate
    wgpt generate runs/hybrid_generate --prompt x.wav --seconds 10

6.5 M parameters: the 4.0 M of the paper's hybrid, and a depth transformer for codebooks 2 to 8. Half of the windows
show the mel of the 8-codebook decode, which is what generation feeds back; the other half the original's. One window in
ten shows the null mel, so that `--mode tokens` works too. docs/generation.md says why. Needs one accelerator; not yet
run by us at this size.

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 2.51 GiB of 15.75 per chip, at most 56 % MFU by
the roofline (`tools/compile_for.py configs/hybrid_generate.py --quick`).
"""

from wgpt_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

target = "v5e:2x2"
config = Config(
    model=ModelConfig(
        inputs="hybrid", width=256, depth=4, heads=4, hidden=1024, mel_width=96, mel_depth=2, mel_heads=2,
        mel_dropout_window=0.1, output_codebooks=8, depformer_width=128, depformer_depth=2, depformer_heads=2,
    ),
    data=DataConfig(context=1024, workers=2, mel_mix={"codec8": 0.5, "original": 0.5}),
    training=TrainingConfig(steps=100_000, batch=64, eval_every=2000, depformer_fraction=0.125),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup=2000),
)  # fmt: skip
