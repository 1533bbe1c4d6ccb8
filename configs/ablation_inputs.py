"""The ladder of inputs: what a model that predicts the coarse token is best fed with.

    wgpt ablate configs/ablation_inputs.py --data piano=DIR --data reading=DIR --workdir runs/ablation_inputs

The data needs every mel: `tools/prepare_audio.py ... --num-codebooks 4 --mel-sources
original,codec1,codec4,latent,centred`. Arm c' leaks on purpose: it says what a mel that sees the future would have won.
Arm ac is a with a causal convolution over the embeddings (`model.token_kernel`), and cc and dc read a bare slice beside
it: what the taps and blocks of a mel branch win (arms c to c', as in the paper) is not to be taken for the mel's.

All arms have 0.5 M parameters at one width, so that four embedding tables (arm b) leave room for MLPs. 6 to 8 runs of
each arm's sweep (400 steps each, on the first data set, for both) and per data set 30 final ones (1000 steps, three
seeds): 172 to 188 million frames for two data sets. A final run takes 2,048,000 frames: of two hours of audio, about
430,000 in training, that is 4.7 epochs.

An accelerator takes a larger size and ten hours (2.1 million frames in training): `--sizes 4m --batch 16 --context 1024
--steps 1300 --tune-steps 520 --eval-every 130` is 10 epochs. The dry run says how many it is on the data at hand; with
many more a comparison is of overfitting.
"""

from wgpt_jax.ablation.arms import chosen
from wgpt_jax.ablation.grid import Ablation, Size, Sweep
from wgpt_jax.config import Config, LoggingConfig, OptimizerConfig, TrainingConfig

ablation = Ablation(
    arms=chosen("a", "b", "c", "d", "e", "f", "c'", "ac", "cc", "dc"),
    sizes=(Size("0.5m", 500_000, width=64, depth=4, heads=4, mel_width=48),),
    sweep=Sweep(learning_rates=(6e-3, 1.2e-2), embedding_stds=(0.01, 0.03), steps=400, extend=2),
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
