"""What is measured of generated audio is what its definition says, and means nothing where there is no difference."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from audio_samples import sound, write_audio
from scipy.linalg import sqrtm
from scipy.spatial.distance import jensenshannon
from synthetic import markov_dataset, markov_document, markov_matrix, tiny_config, write_dataset

from wgpt_jax import generate, train
from wgpt_jax.audio.codec_file import load_codec_decoder
from wgpt_jax.closed_loop.drift import drift_from, entropies, histograms, js_divergence, window_edges
from wgpt_jax.closed_loop.floor import compare, draw_halves
from wgpt_jax.closed_loop.frechet import frechet_from, gaussian, latents, moments, moments_from, patches
from wgpt_jax.closed_loop.generator import Generator
from wgpt_jax.closed_loop.held_out import read_held_out
from wgpt_jax.closed_loop.measures import Measures
from wgpt_jax.closed_loop.quality import measure
from wgpt_jax.closed_loop.quality_command import QualityArgs, main
from wgpt_jax.closed_loop.repetition import loops, repeats
from wgpt_jax.closed_loop.samples import decoded_prompts, draw_samples
from wgpt_jax.closed_loop.sampling import make_sampling
from wgpt_jax.command import run_command
from wgpt_jax.data.index import load_index
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.main import main as prepare

HOP, RATE, VOCABULARY = 320, 24000, 64
TEST_SECONDS = (1.2, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5)


# Frechet distance


def random_covariance(rng: np.random.Generator, size: int, rank: int | None = None) -> np.ndarray:
    factor = rng.normal(size=(size, rank or 2 * size))
    return factor @ factor.T / factor.shape[1]


def test_frechet_distance_of_commuting_gaussians_is_the_closed_form():
    """With a common basis it is the sum over axes of the squared differences of means and of standard deviations."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    first, second = rng.uniform(0.1, 3, 7), rng.uniform(0.1, 3, 7)
    second[-2:] = 0  # singular
    means = rng.normal(size=(2, 7))
    distance = frechet_from(means[0], basis * first**2 @ basis.T)(means[1], basis * second**2 @ basis.T)
    assert distance == pytest.approx(np.sum((means[0] - means[1]) ** 2) + np.sum((first - second) ** 2))


@pytest.mark.parametrize("ranks", [(None, None), (None, 4), (4, 5)])
def test_frechet_distance_is_scipys(ranks):
    rng = np.random.default_rng(1)
    (a, b), means = (random_covariance(rng, 12, rank) for rank in ranks), rng.normal(size=(2, 12))
    root = sqrtm((a + 1e-12 * np.eye(12)) @ b)
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(a) + np.trace(b) - 2 * np.trace(root).real
    assert frechet_from(means[0], a)(means[1], b) == pytest.approx(expected, rel=1e-4)
    assert frechet_from(means[1], b)(means[0], a) == pytest.approx(frechet_from(means[0], a)(means[1], b))


def test_vectors_of_known_gaussians_have_their_distance_and_the_same_vectors_none():
    rng = np.random.default_rng(2)
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([0.3, -1.0, 0.0])
    ours, theirs = rng.normal(size=(200_000, 3)), rng.normal(size=(200_000, 3)) * scales + shift
    expected = np.sum(shift**2) + np.sum((scales - 1) ** 2)
    assert moments_from(moments(ours))(moments(theirs)) == pytest.approx(expected, rel=0.02)
    assert moments_from(moments(ours))(moments(ours)) == pytest.approx(0, abs=1e-9)


def test_moments_add_up_to_the_mean_and_covariance_of_all_vectors():
    rng = np.random.default_rng(3)
    sets = [rng.normal(size=(n, 4)) + 50 for n in (3, 10, 1)]
    mean, covariance = gaussian(sum(moments(vectors) for vectors in sets))
    np.testing.assert_allclose(mean, np.concatenate(sets).mean(axis=0))
    np.testing.assert_allclose(covariance, np.cov(np.concatenate(sets).T), atol=1e-9)


def test_latents_are_what_transformers_decoder_is_given(codec_folder, data):
    codec = load_codec(str(codec_folder))
    entries = load_codec_decoder(data / "codec.safetensors").weights["codebooks"]
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=(20, 2))
    with torch.no_grad():
        expected = codec.model.quantizer.decode(torch.from_numpy(tokens.T[:, None]))[0].T
    np.testing.assert_allclose(latents(entries, tokens), expected.numpy(), atol=1e-6)


def test_patches_are_means_of_whole_stretches():
    frames = np.arange(22.0).reshape(11, 2)
    np.testing.assert_array_equal(patches(frames, 4), [frames[:4].mean(axis=0), frames[4:8].mean(axis=0)])


# Drift


def test_divergence_is_scipys_between_0_of_equal_and_1_of_disjoint_histograms():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, size=(2, 50)).astype(float)
    expected = jensenshannon(first / first.sum(), second / second.sum(), base=2) ** 2
    assert js_divergence(first, second) == pytest.approx(expected)
    assert js_divergence(first, 7 * first) == pytest.approx(0, abs=1e-12)
    assert js_divergence(np.array([3.0, 0.0]), np.array([0.0, 5.0])) == pytest.approx(1)


def test_windows_are_compared_with_the_whole_reference():
    edges = window_edges(5.2, 2.5, 75.0)
    np.testing.assert_array_equal(edges, [0, 188, 375])
    tokens = np.repeat([[0, 1, 2]], [188, 187, 15], axis=1)  # what is behind the last whole window counts nowhere
    counts = histograms(tokens, edges, 4)
    np.testing.assert_array_equal(counts, [[[188, 0, 0, 0], [0, 187, 0, 0]]])
    reference = np.array([[4.0, 0, 0, 0], [4.0, 0, 0, 0]])
    first, second, whole, rise = drift_from(reference)(counts[0])
    assert (first, second, rise) == pytest.approx((0, 1, 1)) and 0 < whole < 1
    np.testing.assert_allclose(entropies(np.array([[[5.0, 5, 5, 5], [9, 0, 0, 0]]])), [[2, 0]])


# Repetition


def naive_loops(tokens: np.ndarray, reach: int, ngram: int) -> np.ndarray:
    marks = [0.0] * len(tokens)
    for now in range(len(tokens) - ngram + 1):
        for before in range(max(0, now - reach), now):
            if list(tokens[before : before + ngram]) == list(tokens[now : now + ngram]):
                marks[now : now + ngram] = [1.0] * ngram
    return np.array([math.nan, *marks[1:]])


@pytest.mark.parametrize(("entries", "reach", "ngram"), [(2, 30, 8), (2, 300, 8), (3, 5, 3), (1, 1, 8), (50, 90, 2)])
def test_loops_are_those_that_a_search_finds(entries, reach, ngram):
    tokens = np.random.default_rng(entries).integers(entries, size=300)
    found = loops(tokens, reach, ngram)
    np.testing.assert_array_equal(found, naive_loops(tokens, reach, ngram))
    assert np.nansum(found) > 0


def test_a_stuck_sample_only_repeats_and_one_of_ever_new_tokens_never():
    stuck, new = np.full(100, 7), np.arange(100)
    for mark in (repeats, lambda tokens: loops(tokens, 1)):
        assert np.nanmean(mark(stuck)) == 1 and np.nanmean(mark(new)) == 0
    turning = np.arange(100) % 10  # returns after ten frames
    assert np.nanmean(repeats(turning)) == 0
    assert np.nanmean(loops(turning, 9)) == 0 and np.nansum(loops(turning, 10)) == 90


# Floor and uncertainty


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("samples", "documents"), [(2, 4), (16, 64), (6, 7)])
def test_halves_are_of_equal_size_and_share_no_document(samples, documents, paired):
    rng = np.random.default_rng(0)
    for _ in range(20):
        draw = draw_halves(rng, samples, documents, paired=paired)
        assert len(draw.generated) == len(draw.floor) == min(samples, documents // 2)
        assert sorted([*draw.floor, *draw.reference]) == list(range(documents))
        assert len(set(draw.generated)) == len(draw.generated) and max(draw.generated) < samples
        assert not paired or list(draw.generated) == list(draw.floor)


def histogram_sets(rng: np.random.Generator, number: int, shift: float) -> np.ndarray:
    """Token counts of documents that differ among themselves; with a shift, late entries are more frequent."""
    weights = 2 * (1 + np.linspace(0, 1, 40) + shift * np.linspace(0, 1, 40) ** 2)
    return np.stack([rng.multinomial(150, rng.dirichlet(weights)) for _ in range(number)]).astype(float)[:, None]


def vector_sets(rng: np.random.Generator, number: int, shift: float) -> np.ndarray:
    return np.stack([moments(shift / 4 + rng.normal(size=3) + rng.normal(size=(50, 3))) for _ in range(number)])


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("distance", "make"), [(drift_from, histogram_sets), (moments_from, vector_sets)])
def test_excess_is_zero_without_a_difference_and_its_error_is_its_spread(distance, make, paired):
    """Over independent repetitions of a whole experiment: the bias cancels, and the standard error is an honest one."""
    rng = np.random.default_rng(0)
    excesses, errors, distances = [], [], []
    for _ in range(60):
        generated, held_out = make(rng, 12, 0.0), make(rng, 24, 0.0)
        draws = [draw_halves(rng, 12, 24, paired=paired) for _ in range(5)]
        compared = compare(distance, generated, held_out, draws, paired=paired)
        which = -2 if distance is drift_from else 0
        excesses.append(compared.excess.value[which])
        errors.append(compared.excess.stderr[which])
        distances.append(compared.generated.value[which])
    spread = np.std(excesses, ddof=1)
    assert abs(np.mean(excesses)) < 3 * spread / math.sqrt(60)
    assert np.mean(distances) > 5 * abs(np.mean(excesses)), "the distance alone is far from zero"
    assert 0.8 * spread < np.sqrt(np.mean(np.square(errors))) < 1.8 * spread


@pytest.mark.parametrize(("distance", "make"), [(drift_from, histogram_sets), (moments_from, vector_sets)])
def test_a_difference_is_found(distance, make):
    rng = np.random.default_rng(0)
    generated, held_out = make(rng, 16, 12.0), make(rng, 48, 0.0)
    draws = [draw_halves(rng, 16, 48, paired=False) for _ in range(10)]
    excess = compare(distance, generated, held_out, draws, paired=False).excess
    which = -2 if distance is drift_from else 0
    assert excess.value[which] > 4 * excess.stderr[which] > 0


def test_a_model_that_drifts_and_gets_stuck_is_told_from_one_that_does_not():
    rng, matrix = np.random.default_rng(0), markov_matrix(sharpness=1.0)
    books = rng.normal(size=(2, 16, 5)).astype(np.float32)
    real = np.stack([markov_document("x", 750, matrix, rng).tokens for _ in range(36)])
    good, bad = real[:12], real[:12].copy()
    for sample in bad:
        sample[500:] = 3
    measures = Measures(window_edges(10, 2.5, 75), 75.0, books, paired=False, seed=0, splits=5)
    good, bad = (measures(sample, real[12:]) for sample in (good, bad))

    def significance(figure: dict) -> float:
        return figure["excess"] / figure["excess_stderr"]

    for rows in ("overall", "rise"):
        assert abs(significance(good["drift"][rows])) < 3 < significance(bad["drift"][rows])
    for size in ("frames", "patches"):
        assert abs(significance(good["frechet"][size])) < 3 < significance(bad["frechet"][size])
    entropy = bad["drift"]["entropy_bits"]
    assert entropy["generated"][-1] == 0 < entropy["generated"][0] and min(entropy["held_out"]) > 3
    for name in ("repeated", "looped"):
        rate = bad["repetition"][name]["by_window"]
        assert rate["generated"][-1] == 1 > rate["generated"][0] and max(rate["held_out"]) < 0.5
    assert bad["frechet"]["patches"]["vectors"] == 12 * (750 // 37) and bad["frechet"]["frames"]["vectors"] == 12 * 750


# Held-out documents


def test_held_out_documents_are_the_beginnings_of_those_that_are_long_enough(tmp_path):
    rng, lengths = np.random.default_rng(0), (50, 90, 91, 200, 300, 89)
    documents = [markov_document(f"d{i}", frames, markov_matrix(), rng) for i, frames in enumerate(lengths)]
    write_dataset(tmp_path, {"train": documents[:1], "test": documents}, max_frames=64)  # most lie in several records
    index = load_index(tmp_path)
    held_out = read_held_out(tmp_path, index, "test", 90, limit=10, seed=0)
    assert sorted(held_out.names) == ["d1", "d2", "d3", "d4"] and held_out.too_short == 2
    for name, tokens in zip(held_out.names, held_out.tokens, strict=True):
        np.testing.assert_array_equal(tokens, documents[int(name[1:])].tokens[:90])
    fewer = read_held_out(tmp_path, index, "test", 50, limit=2, seed=0)
    assert fewer.tokens.shape == (2, 50, 2)
    assert read_held_out(tmp_path, index, "test", 50, limit=2, seed=0).names == fewer.names
    assert any(read_held_out(tmp_path, index, "test", 50, limit=2, seed=seed).names != fewer.names for seed in range(9))


def test_a_split_with_too_few_documents_is_refused_with_the_length_that_would_do(tmp_path):
    index = markov_dataset(tmp_path, train=1, validation=6, frames=(80, 81))
    with pytest.raises(RequestError, match=r"0 document\(s\) of at least 2.00 s.*4 documents have 1.07 s or more"):
        read_held_out(tmp_path, index, "validation", 150, limit=10, seed=0)
    with pytest.raises(RequestError, match=r"1 document\(s\).*larger --train fraction"):
        read_held_out(tmp_path, index, "train", 50, limit=10, seed=0)


def test_a_damaged_shard_is_named(tmp_path):
    index = markov_dataset(tmp_path, train=1, validation=6, frames=(80, 81))
    shard = tmp_path / "validation-00000.array_record"
    content = bytearray(shard.read_bytes())
    content[200:-200] = bytes(len(content) - 400)
    shard.write_bytes(content)
    with pytest.raises(WorkError, match=r"validation-00000.array_record is damaged"):
        read_held_out(tmp_path, index, "validation", 80, limit=10, seed=0)


# Runs


@pytest.fixture(scope="module")
def data(codec_folder, tmp_path_factory) -> Path:
    """Three mels beside the tokens; a test split with one short document."""
    root, out = tmp_path_factory.mktemp("audio"), tmp_path_factory.mktemp("data") / "out"
    lengths = {"train": (3.0, 2.0), "validation": (2.0,), "test": TEST_SECONDS}
    rows = []
    for split, seconds in lengths.items():
        for number, length in enumerate(seconds):
            name = f"{split}{number}.wav"
            write_audio(root / name, sound(length, seed=len(rows)), RATE)
            rows.append({"path": name, "split": split})
    (root / "all.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    flags = ["--codec", str(codec_folder), "--mel-sources", "original,codec1,codec2", "--workers", "1"]
    assert prepare([str(root / "all.jsonl"), str(out), *flags]) == 0
    return out


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> Callable[[str], Path]:
    """Trained for ten steps when first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name: str) -> Path:
        if name not in made:
            inputs, codebooks = {"tokens": ("tokens", 1), "hybrid": ("hybrid", 1), "hybrid2": ("hybrid", 2)}[name]
            model = {"vocabulary": VOCABULARY, "mel_bands": 64, "output_codebooks": codebooks}
            mix = {} if inputs == "tokens" else {"mel_mix": {f"codec{codebooks}": 1.0}}
            train(tiny_config(inputs, model=model, data={"context": 24, **mix}), data, folder / name)
            made[name] = folder / name
        return made[name]

    return run


def numbers_of(value) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in numbers_of(part)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize("name", ["tokens", "hybrid", "hybrid2"])
def test_a_run_is_measured_on_the_samples_that_generate_draws(runs, data, tmp_path, name):
    settings = {"seconds": 2.0, "window_seconds": 0.5, "num_samples": 3, "seed": 5, "splits": 4, "progress": False}
    picture = tmp_path / "picture.png"
    row = measure(runs(name), data, picture=picture, **settings)
    assert json.loads(json.dumps(row)) == row and np.isfinite(numbers_of(row)).all()
    kept = (
        "kind",
        "run",
        "split",
        "step",
        "seeds",
        "frames",
        "documents",
        "documents_too_short",
        "per_side",
        "prompts",
    )
    assert [row[key] for key in kept] == ["closed_loop", str(runs(name)), "test", 10, [5, 6, 7], 150, 6, 1, 3, []]
    assert row["codebooks"] == (2 if name == "hybrid2" else 1) and row["inputs"] == name.rstrip("2")
    assert len(row["drift"]["windows"]) == len(row["drift"]["divergence_bits"]["excess"]) == 4
    assert matplotlib.image.imread(picture).shape[0] > 500

    tokens = generate(runs(name), seconds=2.0, num_samples=3, seed=5)[1]
    coarse = tokens[..., 0]
    repeated = (coarse[:, 1:] == coarse[:, :-1]).mean(axis=1)
    assert row["repetition"]["repeated"]["generated"] == pytest.approx(repeated.mean())
    assert row["repetition"]["repeated"]["generated_stderr"] == pytest.approx(repeated.std(ddof=1) / math.sqrt(3))

    # The whole of the samples and every half of the documents, by other means.
    index, entries = load_index(data), load_codec_decoder(data / "codec.safetensors").weights["codebooks"]
    held_out = read_held_out(data, index, "test", 150, limit=64, seed=5).tokens[..., : tokens.shape[-1]]
    books = np.arange(tokens.shape[-1])
    rng, distances = np.random.default_rng(5), []
    for _ in range(4):
        reference = held_out[draw_halves(rng, 3, 6, paired=False).reference]
        ours, theirs = (entries[books, x].sum(axis=-2).reshape(150 * 3, -1) for x in (tokens, reference))
        (m1, m2), (c1, c2) = ([f(x) for x in (ours, theirs)] for f in (lambda x: x.mean(axis=0), lambda x: np.cov(x.T)))
        root = sqrtm(c1.astype(float) @ c2).real
        distances.append(np.sum((m1 - m2) ** 2) + np.trace(c1) + np.trace(c2) - 2 * np.trace(root))
    assert row["frechet"]["frames"]["generated"] == pytest.approx(np.mean(distances), rel=1e-3)
    again = measure(runs(name), data, **settings)
    assert again | {"generate_seconds": 0} == row | {"generate_seconds": 0}


def test_a_prompted_sample_continues_its_own_document(runs, data, codec_folder):
    decoder, index = load_codec_decoder(data / "codec.safetensors"), load_index(data)
    held_out = read_held_out(data, index, "test", 100, limit=64, seed=0)
    prompts = decoded_prompts(decoder, held_out.tokens[:3, :40])
    for prompt, tokens in zip(prompts, held_out.tokens, strict=False):
        expected = load_codec(str(codec_folder)).decode(tokens[:40])
        np.testing.assert_allclose(prompt.samples, expected, atol=1e-5 * np.abs(expected).max())
    generator, sampling = Generator(runs("hybrid2")), make_sampling(vocabulary=VOCABULARY)
    options = {"sampling": sampling, "seeds": [3, 4, 5], "prompts": prompts, "progress": False}
    samples = draw_samples(generator, 100, **options)
    assert samples.tokens.shape == (3, 100, 2) and samples.sounds.shape == (2, 100 * HOP)
    np.testing.assert_array_equal(samples.tokens[:, :40], held_out.tokens[:3, :40, :2])
    row = measure(runs("hybrid2"), data, seconds=1.0, window_seconds=0.5, prompt_seconds=0.5, num_samples=3, splits=2)
    assert row["prompts"] == list(read_held_out(data, index, "test", 113, limit=64, seed=0).names[:3])
    assert row["frames"] == 75 and row["prompt_seconds"] == pytest.approx(38 / 75)
    assert row["frechet"]["frames"]["vectors"] == 3 * 75, "the prompt is not measured"


def tool(argv: list[str]) -> int:
    return run_command(main, QualityArgs, argv)


def test_the_command_writes_the_row_that_it_prints(runs, data, tmp_path, capsys):
    short = ["--data", str(data), "--seconds", "1.5", "--window-seconds", "0.5", "--num-samples", "2"]
    line = [str(runs("tokens")), *short, "--temperature", "0.5", "--out", str(tmp_path / "new" / "folder")]
    capsys.readouterr()  # what training said
    assert tool([*line, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row == json.loads((tmp_path / "new" / "folder" / "closed_loop.json").read_text())
    assert row["sampling"]["temperature"] == 0.5 and (tmp_path / "new" / "folder" / "closed_loop.png").is_file()
    assert tool(line) == 0
    table = capsys.readouterr().out
    assert f"{row['frechet']['frames']['excess']:.4f} +- {row['frechet']['frames']['excess_stderr']:.4f}" in table


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seconds", "30"], "the test split of {data} has 0 document(s) of at least 30.00 s"),
        (["--seconds", "30"], "4 documents have 3.20 s or more"),
        (["--split", "validation"], "with a larger --validation fraction, or take another --split"),
        (["--split", "practice"], "unknown split 'practice'"),
        (["--num-samples", "9", "--prompt-seconds", "0.5"], "there are 5 that are long enough"),
        (["--seconds", "0.9", "--window-seconds", "0.5"], "--seconds 0.9: ask for 1 s or more"),
        (["--seconds", "2"], "--seconds 2: too short for one window of 2.5 s"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--window-seconds", "0.01"], "a window has 8 frames"),
        (["--num-samples", "1"], "--num-samples 1: the spread of samples needs at least 2"),
        (["--prompt-seconds", "-1"], "--prompt-seconds -1"),
        (["--seed", "-1"], "--seed -1: seeds are from 0"),
        (["--step", "newest"], "--step 'newest' is no step"),
        (["--step", "7"], "no checkpoint of step 7"),
        (["--top-k", "65"], "the codebook has 64 entries"),
        (["--out", "{data}/index.json/x"], "cannot make --out"),
    ],
)
def test_mistakes_end_in_one_sentence_and_2(runs, data, capsys, flags, message):
    flags = [flag.format(data=data) for flag in flags]
    seconds = [] if "--seconds" in flags else ["--seconds", "2.5"]
    line = [str(runs("tokens")), "--data", str(data), *seconds, *flags]
    capsys.readouterr()  # what training said
    assert tool(line) == 2
    error = capsys.readouterr().err
    assert message.format(data=data) in error and len(error.strip().splitlines()) == 1


def test_a_run_that_cannot_generate_is_refused(runs, data, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text((runs("tokens") / "run.json").read_text())
    capsys.readouterr()  # what training said
    assert tool([str(run), "--data", str(data), "--seconds", "2.5"]) == 2
    error = capsys.readouterr().err
    assert "there is no codec decoder" in error and len(error.strip().splitlines()) == 1
