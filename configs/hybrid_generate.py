"""A hybrid to generate with: 8 codebooks in and out, a convolution over their embeddings, the mel of their decode.

    python tools/prepare_audio.py AUDIO OUT --codec bundled --mel-sources original,codec8
    wgpt train configs/hybrid_generate.py --data OUT --workdir runs/hybrid_generate
    wgpt generate runs/hybrid_generate --prompt x.wav --seconds 10

Arm hc of configs/ablation_codebooks.py, the best of that contest on piano (docs/RESULTS.md, models of 1 M and 4
codebooks), with 8 codebooks: 8.4 M parameters. Every window shows the mel of the 8-codebook decode, which is what
generation feeds back, so the total NLL is a likelihood; one window in ten shows the null mel, so that `--mode tokens`
works too. Draw from the whole distribution (`--temperature 1`, the default): with `--top-p` below 1 silence, once it is
likelier than that, is all that can be drawn (docs/LOG.md). Needs one accelerator; not yet run by us at this size.

64 windows of 1024 frames, 65,536 frames a step. On v5e:2x2 (4 chips): 2.34 GiB of 15.75 per chip, at most 56 % MFU by
the roofline (`tools/compile_for.py configs/hybrid_generate.py --quick`).
"""

from wgpt_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

target = "v5e:2x2"
config = Config(
    model=ModelConfig(
        inputs="hybrid", width=256, depth=4, heads=4, hidden=1024, input_codebooks=8,
        token_kernel=16, token_width=96, mel_width=96, mel_depth=0, mel_kernel=1, fusion="add", mel_dropout_window=0.1,
        output_codebooks=8, depformer_width=128, depformer_depth=2, depformer_heads=2,
    ),
    data=DataConfig(context=1024, workers=2, mel_mix={"codec8": 1.0}),
    training=TrainingConfig(steps=100_000, batch=64, eval_every=2000, depformer_fraction=0.125),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup=2000),
)  # fmt: skip
