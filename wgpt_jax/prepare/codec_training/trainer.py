"""One codec in training: model, codebooks, optimiser, data, progress; a step, a checkpoint, a validation."""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import EncodecModel

from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.codec_training.batches import Batches
from wgpt_jax.prepare.codec_training.config import Recipe, codec_config
from wgpt_jax.prepare.codec_training.export import export_codec
from wgpt_jax.prepare.codec_training.files import AudioFile, held_out_clips
from wgpt_jax.prepare.codec_training.init import lsuv_
from wgpt_jax.prepare.codec_training.losses import MelLoss, relative_waveform_error
from wgpt_jax.prepare.codec_training.quantizer import ResidualQuantizer
from wgpt_jax.prepare.codec_training.scores import measure_clips


@dataclass
class Budget:
    """What a run may take: steps where they are given, else seconds of training."""

    seconds: float
    steps: int | None = None


@dataclass
class Progress:
    """Where a run stands: steps done, seconds of training, k-means fits done."""

    step: int = 0
    seconds: float = 0.0
    fits: int = 0

    def fraction(self, budget: Budget) -> float:
        """The elapsed part of the budget, 0 to 1; every schedule is a function of it."""
        done = self.step / budget.steps if budget.steps else self.seconds / budget.seconds
        return min(1.0, done)


class Trainer:
    """One codec in training: model, codebooks, optimiser, data and progress."""

    def __init__(
        self,
        recipe: Recipe,
        budget: Budget,
        training: list[AudioFile],
        held_out: list[AudioFile],
        out: Path,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.budget, self.out, self.device = recipe, budget, out, device
        self.model = EncodecModel(codec_config(recipe.filters, recipe.codebooks)).to(device)
        rate, hop = self.model.config.sampling_rate, self.model.config.hop_length
        samples = int(recipe.segment_seconds * rate) // hop * hop
        threads = 1 if device == "cpu" else os.cpu_count() or 1
        self.batches = Batches(training, rate, recipe.batch, samples, recipe.seed, threads)
        self.held_out = held_out_clips(held_out, rate)
        self.mel_loss = MelLoss(rate).to(device)
        self.quantizer = ResidualQuantizer(self.model, recipe)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.progress = Progress()
        self.bad_steps = 0

    @property
    def checkpoint_path(self) -> Path:
        """The one file that a run resumes from."""
        return self.out / "checkpoint.pt"

    def start(self) -> None:
        """Continues from the checkpoint of the run folder, or initialises the model on the first batches.

        Raises:
            RequestError: the run folder was made with another recipe.
        """
        if not self.checkpoint_path.is_file():
            audio = np.concatenate([self.batches[step] for step in range(4)])
            lsuv_(self.model, torch.from_numpy(audio)[:, None].to(self.device))
            return
        saved = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
        mine = json.loads(json.dumps(asdict(self.recipe)))
        different = [name for name in mine if mine[name] != saved["recipe"].get(name)]
        if different:
            changes = ", ".join(f"{name} {saved['recipe'].get(name)}, not {mine[name]}" for name in different)
            raise RequestError(f"{self.out} holds a run with another recipe ({changes}): take another --out")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.progress = Progress(**saved["progress"])

    def save(self) -> None:
        """Writes the checkpoint; an interrupted write leaves the previous one."""
        state = {
            "recipe": json.loads(json.dumps(asdict(self.recipe))),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        partial = self.checkpoint_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint_path)

    def step(self, audio: np.ndarray) -> dict[str, float]:
        """One update on a batch of float32 ``[B, N]``; returns its measurements.

        Raises:
            WorkError: the gradient was not finite ten times in a row.
        """
        recipe, fraction = self.recipe, self.progress.fraction(self.budget)
        rng = np.random.default_rng([recipe.seed, 1, self.progress.step])
        target = torch.from_numpy(audio).to(self.device)
        if self.progress.fits < len(recipe.milestones()) and fraction >= recipe.milestones()[self.progress.fits]:
            self._fit_codebooks(rng)
        latent = self.model.encoder(target[:, None])
        commitment, perplexities = latent.new_zeros(()), []
        if self.progress.fits:
            counts = self.quantizer.draw_counts(len(target), rng)
            latent, commitment, perplexities = self.quantizer.quantize(latent, counts, rng)
        decoded = self.model.decoder(latent)[:, 0]
        waveform = relative_waveform_error(decoded, target)
        mel = self.mel_loss(decoded, target)
        mel_weight = float(np.interp(fraction, *zip(*recipe.mel_weight, strict=True)))
        loss = waveform + mel_weight * mel + recipe.commitment * commitment
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        rate = learning_rate(recipe, self.progress.step, fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self._update(bool(torch.isfinite(norm)))
        self.progress.step += 1
        values = {"loss": loss, "waveform": waveform, "mel": mel, "commitment": commitment, "gradient_norm": norm}
        return {name: float(value.detach()) for name, value in values.items()} | {
            "fraction": fraction,
            "learning_rate": rate,
            **{f"perplexity_{i + 1}": p for i, p in enumerate(perplexities)},
        }

    def _update(self, finite: bool) -> None:
        self.bad_steps = 0 if finite else self.bad_steps + 1
        if self.bad_steps == 10:
            raise WorkError("the gradient was not finite ten steps in a row; a lower --learning-rate may help")
        if finite:
            self.optimizer.step()

    @torch.no_grad()
    def _fit_codebooks(self, rng: np.random.Generator) -> None:
        vectors: list[Tensor] = []
        for index in range(self.recipe.kmeans_batches):
            audio = torch.from_numpy(self.batches[self.progress.step + index]).to(self.device)
            vectors.append(self.model.encoder(audio[:, None]).transpose(1, 2).flatten(0, 1))
        self.quantizer.fit(torch.cat(vectors), len(vectors[0]), rng)
        self.progress.fits += 1

    def export(self) -> bool:
        """Writes the codec to ``codec`` in the run folder, or says False as long as it has no codebooks."""
        if self.progress.fits:
            export_codec(self.model, self.out / "codec")
        return self.progress.fits > 0

    def validate(self) -> dict[str, float]:
        """Scores on the held-out clips at one and at all codebooks, flat names to numbers."""
        self.model.eval()
        result = {}
        for domain, clips in self.held_out.items():
            for score in measure_clips(self.model, clips, sorted({1, self.recipe.codebooks})).scores(domain):
                name = f"{domain}_{score.codebooks}"
                result |= {f"{name}_log_mel": score.log_mel, f"{name}_si_snr": score.si_snr}
            result[f"{domain}_perplexity_1"] = score.perplexity
        self.model.train()
        return result


def learning_rate(recipe: Recipe, step: int, fraction: float) -> float:
    """Linear warm-up over the first steps, then half a cosine of the elapsed fraction, scaled once it has to settle.

    The full rate finds a good region in little time; codebooks that run after a fast encoder cannot get precise there.
    """
    settle_from, factor = recipe.settle
    cosine = 0.5 * (1 + math.cos(math.pi * fraction))
    rate = recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * cosine
    return rate * (factor if fraction >= settle_from else 1.0) * min(1.0, (step + 1) / recipe.warmup_steps)
