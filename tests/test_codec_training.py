"""What the codec trainer and the bundled codec promise."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import EncodecModel

from wgpt_jax.command import run_command
from wgpt_jax.errors import RequestError
from wgpt_jax.prepare.codec_training.batches import Batches
from wgpt_jax.prepare.codec_training.config import Recipe, codec_config
from wgpt_jax.prepare.codec_training.evaluation import codebook_counts, evaluation_clips, open_codec
from wgpt_jax.prepare.codec_training.export import export_codec, load_codec
from wgpt_jax.prepare.codec_training.files import find_audio, split_held_out
from wgpt_jax.prepare.codec_training.init import lsuv_
from wgpt_jax.prepare.codec_training.loop import train
from wgpt_jax.prepare.codec_training.losses import Mel
from wgpt_jax.prepare.codec_training.quantizer import ResidualQuantizer, kmeans, perplexity
from wgpt_jax.prepare.codec_training.scores import decode, encode, measure_clips, si_snr
from wgpt_jax.prepare.codec_training.trainer import Budget, Trainer
from wgpt_jax.prepare.corpus import make_corpus

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "wgpt_jax" / "assets" / "codec"
TRAIN_CODEC = ROOT / "tools" / "train_codec.py"
HOP = 320
TINY = Recipe(filters=2, codebooks=2, batch=2, segment_seconds=0.32, kmeans_batches=8, warmup_steps=4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    make_corpus(out, 0.008, "both", "numpy", seed=11, workers=1, progress=False)
    return out


@pytest.fixture(scope="module")
def clips(corpus):
    groups = evaluation_clips(corpus, 24_000, held_out=False, seconds=12)
    return {
        kind: [clip for name, group in groups.items() if name.startswith(kind) for clip in group]
        for kind in ("speech", "music")
    }


@pytest.fixture(scope="module")
def bundled():
    return load_codec(BUNDLED)


def tiny_trainer(corpus: Path, out: Path, steps: int = 10, recipe: Recipe = TINY) -> Trainer:
    training, held_out = split_held_out(find_audio(corpus), corpus)
    trainer = Trainer(recipe, Budget(60.0, steps), training, held_out[:1], out)
    trainer.start()
    return trainer


def advance(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    return [trainer.step(trainer.batches[trainer.progress.step]) for _ in range(steps)]


# The bundled codec


def test_the_bundled_codec_loads_completely_as_float32():
    model, report = EncodecModel.from_pretrained(BUNDLED, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert {layer.codebook.embed.dtype for layer in model.quantizer.layers} == {torch.float32}
    assert (BUNDLED / "model.safetensors").stat().st_size < 8_000_000


def test_the_bundled_codec_runs_on_the_clock(bundled):
    config = bundled.config
    assert (config.sampling_rate, config.hop_length, config.codebook_size) == (24_000, HOP, 1024)
    assert codebook_counts(bundled) == [1, 2, 4, 8]
    audio = 0.1 * torch.randn(1, 10 * HOP, generator=torch.Generator().manual_seed(0))
    codes = encode(bundled, audio)
    assert codes.shape == (1, 8, 10) and decode(bundled, codes).shape == (1, 10 * HOP)
    coarse = bundled.encode(audio[:, None], bandwidth=0.75).audio_codes[0]
    assert torch.equal(coarse, codes[:, :1])


@pytest.mark.parametrize("frame", [0, 1, 5, 40, 73])
def test_tokens_of_the_bundled_codec_see_nothing_after_their_frame(bundled, clips, frame):
    audio = torch.from_numpy(clips["music"][0][: 75 * HOP])[None]
    changed = audio.clone()
    generator = torch.Generator().manual_seed(frame)
    changed[:, (frame + 1) * HOP :] = torch.empty(74 - frame, HOP).uniform_(-0.9, 0.9, generator=generator).flatten()
    before, after = encode(bundled, audio), encode(bundled, changed)
    assert torch.equal(before[..., : frame + 1], after[..., : frame + 1])
    assert not torch.equal(before, after)


def test_saving_and_loading_keeps_every_token(bundled, clips, tmp_path):
    audio = torch.from_numpy(clips["speech"][0][: 100 * HOP])[None]
    bundled.save_pretrained(tmp_path / "saved")
    export_codec(bundled, tmp_path / "exported")
    codes = encode(bundled, audio)
    assert torch.equal(encode(load_codec(tmp_path / "saved"), audio), codes)
    assert torch.equal(encode(load_codec(tmp_path / "exported"), audio), codes)
    assert (tmp_path / "exported" / "model.safetensors").read_bytes() == (BUNDLED / "model.safetensors").read_bytes()


def test_the_bundled_codec_uses_its_codes_and_beats_what_knows_no_time(bundled, clips):
    one, two, eight = measure_clips(bundled, clips["speech"] + clips["music"], [1, 2, 8]).scores("all")
    assert one.perplexity > 200
    assert one.log_mel < 0.75 * one.silence
    assert eight.log_mel < eight.median
    assert eight.log_mel < two.log_mel < one.log_mel
    assert eight.si_snr > two.si_snr > one.si_snr


# The parts of the trainer


def test_lsuv_gives_the_encoder_unit_variance_from_a_collapsed_start(clips):
    torch.manual_seed(0)
    model = EncodecModel(codec_config(4, 2))
    audio = torch.from_numpy(np.stack([clip[: 60 * HOP] for clip in clips["music"]]))[:, None]
    assert model.encoder(audio).std() < 0.3
    lsuv_(model, audio)
    latent = model.encoder(audio)
    assert 0.9 < latent.std() < 1.1
    assert 0.04 < model.decoder(latent).std() < 0.06


def test_mel_is_that_of_librosa():
    import librosa

    audio = np.random.default_rng(0).standard_normal(8192).astype(np.float32)
    filters = librosa.filters.mel(sr=24_000, n_fft=1024, n_mels=80)
    spectrum = np.abs(librosa.stft(audio, n_fft=1024, hop_length=256, pad_mode="reflect")) / 32
    ours = Mel(24_000, 1024, 80)(torch.from_numpy(audio)[None])[0].numpy()
    np.testing.assert_allclose(ours, filters @ spectrum, atol=1e-5, rtol=1e-3)


def test_si_snr_ignores_scale_and_measures_noise():
    generator = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 1, 50_000, generator=generator)
    assert si_snr(0.3 * (target + 0.1 * noise), target) == pytest.approx(20, abs=0.1)
    assert si_snr(0.3 * target, target) > 60


def test_kmeans_finds_separate_clusters():
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(8, 4, generator=generator)
    vectors = centres.repeat_interleave(50, 0) + 0.01 * torch.randn(400, 4, generator=generator)
    found, codes = kmeans(vectors, 16, np.random.default_rng(0))
    assert (vectors - found[codes]).norm(dim=1).max() < 0.2
    assert perplexity(torch.ones(64)) == pytest.approx(64)
    assert perplexity(torch.tensor([5, 0, 0])) == pytest.approx(1)


def test_dead_codes_restart_and_more_codebooks_lie_closer():
    model = EncodecModel(codec_config(2, 4))
    recipe = replace(TINY, codebooks=4)
    quantizer, rng = ResidualQuantizer(model, recipe), np.random.default_rng(0)
    latent = torch.randn(4, 64, 300, generator=torch.Generator().manual_seed(0))
    flat = latent.transpose(1, 2).reshape(-1, 64)
    quantizer.fit(flat, 1200, rng)
    quantizer.books[0].embed[:700] += 1000.0  # codes that no vector comes near, starved for a long time
    quantizer.books[0].cluster_size[:700] = 0.0
    used = [quantizer.quantize(latent, torch.full((4,), 4), rng)[2][0] for _ in range(3)]
    assert used[-1] > 1.3 * used[0]
    errors = []
    for count in (1, 2, 4):
        quantized, commitment, _ = quantizer.quantize(latent, torch.full((4,), count), rng)
        errors.append(float(commitment))
        assert torch.isfinite(quantized).all()
    assert errors[0] > errors[1] > errors[2]


def test_batches_depend_on_seed_and_step_alone(corpus):
    files = find_audio(corpus)
    batches = Batches(files, 24_000, 2, 6400, seed=5)
    again = Batches(files, 24_000, 2, 6400, seed=5, threads=3)
    ahead = again.following(7)
    for step in (7, 8, 9, 10):
        np.testing.assert_array_equal(batches[step], next(ahead))
    assert not np.array_equal(batches[7], batches[8])
    assert not np.array_equal(batches[7], Batches(files, 24_000, 2, 6400, seed=6)[7])
    assert all(np.abs(batches[step]).max() < 1 for step in range(7, 11))


def test_whole_folders_are_held_out_and_nothing_is_in_both_parts(tmp_path):
    for folder in range(40):
        for number in range(2):
            path = tmp_path / f"voice{folder}" / f"{number}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, np.zeros(8000), 16_000)
    training, held_out = split_held_out(find_audio(tmp_path), tmp_path)
    folders = [{file.path.parent for file in part} for part in (training, held_out)]
    assert folders[0] and folders[1] and not folders[0] & folders[1]
    assert len(training) + len(held_out) == 80


def test_any_sampling_rate_and_channel_count_is_read(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    soundfile.write(tmp_path / "stereo.ogg", np.stack([tone, tone], 1), 44_100)
    batch = Batches(find_audio(tmp_path), 24_000, 2, 12_000, seed=0)[0]
    assert batch.shape == (2, 12_000) and batch.dtype == np.float32 and np.abs(batch).max() > 0.01


# The run


def test_a_few_steps_lower_the_loss(corpus, tmp_path):
    recipe = replace(TINY, filters=4, quantize_from=2.0, learning_rate=2e-3)
    trainer = tiny_trainer(corpus, tmp_path, 60, recipe)
    batch = trainer.batches[0]
    losses = [trainer.step(batch)["waveform"] for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3])


def test_a_resumed_run_equals_an_uninterrupted_one(corpus, tmp_path):
    whole = tiny_trainer(corpus, tmp_path / "a")
    measured = advance(whole, 10)
    first = tiny_trainer(corpus, tmp_path / "b")
    first.out.mkdir()
    advance(first, 4)
    first.save()
    second = tiny_trainer(corpus, tmp_path / "b")
    assert second.progress.step == 4
    assert advance(second, 6)[-1] == measured[-1]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert whole.progress.fits == second.progress.fits == 5


def test_an_interrupted_run_saves_and_the_same_call_finishes_it(corpus, tmp_path):
    trainer = tiny_trainer(corpus, tmp_path, 6)
    real_step = trainer.step

    def step(audio: np.ndarray) -> dict[str, float]:
        if trainer.progress.step == 3:
            raise KeyboardInterrupt
        return real_step(audio)

    trainer.step = step
    with pytest.raises(KeyboardInterrupt):
        train(trainer)
    calls = []
    again = tiny_trainer(corpus, tmp_path, 6)
    assert again.progress.step == 3
    train(again, on_save=lambda: calls.append(again.progress.step))
    assert calls == [6]
    assert open_codec(tmp_path / "codec").config.num_filters == 2
    with pytest.raises(RequestError, match="filters 2, not 3"):
        tiny_trainer(corpus, tmp_path, 6, replace(TINY, filters=3))


def test_scores_know_perfection_and_silence(clips):
    class Perfect:
        """Decodes to whatever it was last given, or to silence from one codebook."""

        config = codec_config(2, 2)
        device = torch.device("cpu")

        def encode(self, audio, bandwidth):
            self.audio = audio
            frames = audio.shape[-1] // HOP
            return type("Encoded", (), {"audio_codes": torch.arange(frames).expand(1, 1, 2, frames) % 1024})

        def decode(self, codes, scales):
            kept = codes.shape[2] - 1
            return type("Decoded", (), {"audio_values": self.audio * kept})

    silent, perfect = measure_clips(Perfect(), clips["speech"], [1, 2]).scores("speech")
    assert perfect.log_mel == pytest.approx(0, abs=1e-6) and perfect.si_snr > 60
    assert silent.log_mel == pytest.approx(silent.silence, abs=1e-3)
    assert (silent.kbps, perfect.kbps) == (0.75, 1.5)
    assert perfect.median < perfect.silence


def test_the_command_trains_scores_and_refuses_in_one_line(corpus, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("train_codec", TRAIN_CODEC)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def command(*flags: str) -> tuple[int, str, str]:
        code = run_command(tool.main, tool.Args, [*flags, "--threads", "1"])
        return code, *capsys.readouterr()

    run = tmp_path / "run"
    code, out, err = command(
        *("--audio", str(corpus), "--out", str(run), "--steps", "12"),
        *("--filters", "2", "--codebooks", "2", "--batch", "1"),
    )
    assert code == 0, err
    assert "12 steps" in out
    for name in ("codec/model.safetensors", "metrics.jsonl", "loss.png", "checkpoint.pt", "samples/speech.png"):
        assert (run / name).is_file(), name
    evaluate = ("--evaluate", str(run / "codec"), "--audio", str(corpus), "--held-out")
    scores = json.loads(command(*evaluate, "--json")[1])["scores"]
    assert {(score["group"], score["codebooks"]) for score in scores} == {
        (group, n) for group in ("speech", "music", "all") for n in (1, 2)
    }
    assert command(*evaluate, "--markdown")[1].startswith("| audio | seconds | log-mel 1 | log-mel 2 | silence |")
    nowhere = tmp_path / "nowhere"
    assert command("--audio", str(nowhere), "--out", str(run)) == (2, "", f"error: --audio {nowhere}: no such folder\n")
    assert command("--audio", str(corpus))[0] == 2
    assert "no config.json" in command("--audio", str(corpus), "--evaluate", str(corpus))[2]
