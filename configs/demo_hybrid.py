"""The demo's hybrid: mel slices and coarse tokens, 0.6 M parameters; what `wgpt demo` trains second.

    python tools/prepare_audio.py AUDIO OUT --codec bundled --mel-sources original,codec1
    wgpt train configs/demo_hybrid.py --data OUT --workdir runs/demo_hybrid

Minutes on two CPU cores. Half of the windows show the mel of the decoded coarse tokens, which is what generation feeds
back; docs/generation.md has what that costs and buys.

8 windows of 256 frames, 2,048 frames a step. On v5e:2x2 (4 chips): 0.03 GiB of 15.75 per chip, at most 16 % MFU by the
roofline (`tools/compile_for.py configs/demo_hybrid.py --quick`).
"""

from wgpt_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

target = "v5e:2x2"
config = Config(
    model=ModelConfig(inputs="hybrid", width=96, depth=3, heads=3, hidden=384, mel_width=64, mel_depth=1, mel_heads=2),
    data=DataConfig(context=256, mel_mix={"original": 0.5, "codec1": 0.5}),
    training=TrainingConfig(steps=700, batch=8, eval_every=100, eval_windows=64),
    optimizer=OptimizerConfig(learning_rate=4e-3, warmup=50),
    checkpoint=CheckpointConfig(every=100),
)
