"""The demo's hybrid: mel slices and coarse tokens in, all 8 codebooks out; what `wgpt demo` trains second.

    python tools/prepare_audio.py AUDIO OUT --codec bundled --mel-sources original,codec8
    wgpt train configs/demo_hybrid.py --data OUT --workdir runs/demo_hybrid

Minutes on two CPU cores. 1.6 M parameters, of which 0.6 M are the decoder with its mel branch. Half of the windows show
the mel of the 8-codebook decode, which is what generation feeds back.
"""

from wgpt_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

config = Config(
    model=ModelConfig(
        inputs="hybrid", width=96, depth=3, heads=3, hidden=384, mel_width=64, mel_depth=1, mel_heads=2,
        output_codebooks=8, depformer_width=64, depformer_depth=1, depformer_heads=2,
    ),
    data=DataConfig(context=256, mel_mix={"original": 0.5, "codec8": 0.5}),
    training=TrainingConfig(steps=700, batch=8, eval_every=100, eval_windows=64, depformer_fraction=0.125),
    optimizer=OptimizerConfig(learning_rate=4e-3, warmup=50),
    checkpoint=CheckpointConfig(every=100),
)  # fmt: skip
