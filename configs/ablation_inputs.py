"""The ladder of inputs: what a model that predicts the coarse token is best fed with.

    wgpt ablate configs/ablation_inputs.py --data piano=DIR --data reading=DIR --workdir runs/ablation_inputs

The data needs every mel: `tools/prepare_audio.py ... --num-codebooks 4 --mel-sources
original,codec1,codec4,latent,centred`. Arm c' leaks on purpose: it says what a mel that sees the future would have won.

All arms have 0.5 M parameters at one width, so that four embedding tables (arm b) leave room for MLPs. 28 runs of a
sweep (400 steps each, on the first data set, for both) and per data set 21 final ones (1000 steps, three seeds): 109
million frames for two data sets. An accelerator takes more of everything: `--sizes 4m --batch 64 --context 1024
--steps 10000 --tune-steps 3000 --eval-every 1000`.
"""

from wgpt_jax.ablation.arms import chosen
from wgpt_jax.ablation.grid import Ablation, Size, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    arms=chosen("a", "b", "c", "d", "e", "f", "c'"),
    sizes=(Size("0.5m", 500_000, width=64, depth=4, heads=4, mel_width=48),),
    sweep=Sweep(learning_rates=(1.2e-2, 2.4e-2), embedding_stds=(0.03, 0.1), steps=400),
    sweep_per_data=False,
    steps=1000,
    batch=8,
    context=256,
    base=Config(
        training=TrainingConfig(eval_windows=64),
        optimizer=OptimizerConfig(warmup=50),
        logging=LoggingConfig(tensorboard=False),
    ),
)
