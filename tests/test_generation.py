"""The closed loop draws what a naive loop over whole sequences draws, hears what is stored, and ends well."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from audio_samples import sound, write_audio
from flax import nnx
from synthetic import tiny_config

from wgpt_jax import generation
from wgpt_jax.audio.codec_file import CodecDecoder, load_codec_decoder, save_codec_decoder
from wgpt_jax.audio.mel import log_mel
from wgpt_jax.cli import main as wgpt
from wgpt_jax.closed_loop import generator as generator_module
from wgpt_jax.closed_loop.generator import CHUNK_FRAMES, Generator, Prompt
from wgpt_jax.closed_loop.loop import Given, Loop
from wgpt_jax.closed_loop.sampling import make_sampling
from wgpt_jax.config import Config, MeshConfig
from wgpt_jax.data.index import load_index
from wgpt_jax.data.records import Record, Segment, decode_record
from wgpt_jax.data.shards import open_split
from wgpt_jax.data.windows import cut_window, stack_windows
from wgpt_jax.errors import RequestError
from wgpt_jax.evaluation import load_network
from wgpt_jax.generation import generate, stuck_since
from wgpt_jax.model.decoder import Decoder
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.prepare.main import main as prepare
from wgpt_jax.runs import copy_codec, new_run, read_run, write_run
from wgpt_jax.training.checkpoint import Checkpoints
from wgpt_jax.training.optimizer import make_optimizer
from wgpt_jax.training.state import abstract_state, init_state
from wgpt_jax.training.weights import export, load_weights, parse_source

HOP, RATE, VOCABULARY = 320, 24000, 64
VARIETY = 10
"""Frames within which the naive loop takes no coarse token twice."""
SOURCES = "original,codec1,codec2"


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("audio")
    for i in range(4):
        write_audio(root / f"{i}.wav", sound(1.6 + 0.1 * i, seed=i), RATE)
    return root


@pytest.fixture(scope="module", params=["constant", "reflect"])
def either_data(request, audio, codec_folder, reflect_folder, tmp_path_factory) -> Path:
    return prepared(audio, {"constant": codec_folder, "reflect": reflect_folder}[request.param], tmp_path_factory)


def prepared(audio: Path, codec: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / codec.name
    flags = ["--codec", str(codec), "--mel-sources", SOURCES, "--validation", "0.25", "--test", "0", "--workers", "1"]
    assert prepare([str(audio), str(out), *flags]) == 0
    return out


@pytest.fixture(scope="module")
def data(audio, codec_folder, tmp_path_factory) -> Path:
    return prepared(audio, codec_folder, tmp_path_factory)


def config_of(inputs: str, codebooks: int) -> Config:
    model = {"vocabulary": VOCABULARY, "mel_bands": 64, "embedding_std": 1.0}
    model |= {"input_codebooks": codebooks, "output_codebooks": codebooks}
    mix = {f"codec{codebooks}": 1.0}
    return tiny_config(inputs, model=model, data={"context": 24, "mel_mix": mix})


def untrained(config: Config, data: Path, folder: Path, broken: str | None = None) -> Path:
    """A run as `wgpt train` leaves it, but for the training; the parameters whose name has `broken` in it are NaN."""
    index, mesh = load_index(data), make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    abstract = abstract_state(config, optimizer, mesh)
    write_run(folder, new_run(config, index, {}))
    copy_codec(data, folder)
    state = init_state(config, optimizer, mesh, abstract)
    if broken:
        spoilt = {True: jnp.nan, False: 1.0}
        state = state._replace(
            params=jax.tree.map_with_path(
                lambda path, x: x * spoilt[broken in jax.tree_util.keystr(path)], state.params
            )
        )
    with Checkpoints(folder / "checkpoints", config.checkpoint) as checkpoints:
        checkpoints.save(state, {}, {})
    return folder


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    kinds = {"hybrid": ("hybrid", 1), "hybrid2": ("hybrid", 2), "tokens": ("tokens", 1)}
    return {name: untrained(config_of(*kind), data, folder / name) for name, kind in kinds.items()}


def naive_loop(run: Path, frames: int, codebooks: int, closed: bool) -> np.ndarray:
    """Greedy tokens [n, K]: everything so far decoded by transformers, its mel by NumPy, the whole sequence anew.

    No coarse token of the last frames is taken again: networks this small would hang on one.
    """
    info = read_run(run)
    codec = load_codec(info.codec.name)
    graph, params, _ = load_network(run, info, make_mesh(MeshConfig(), jax.devices()[:1]))

    @jax.jit
    def forward(batch):
        null = None if closed else jnp.ones(batch.starts.shape, bool)
        return nnx.merge(graph, params)(batch, null_mel=null)

    tokens = np.zeros((frames, codebooks), np.int16)
    for t in range(frames):
        mel = np.zeros((frames, 64), np.float16)
        if t and closed:
            mel[:t] = log_mel(codec.decode(tokens[:t]), info.mel, info.clock).astype(np.float16)
        for k in range(codebooks):
            record = Record(tokens, mel[None], (Segment("x", "", 0, frames, 0),))
            logits = np.array(forward(stack_windows([cut_window(record, 0, frames)], 1)))[0, t, k]
            if k == 0:
                logits[tokens[max(0, t - VARIETY) : t, 0]] = -np.inf
            tokens[t, k] = logits.argmax()
    return tokens


@pytest.mark.parametrize(
    ("name", "mode"), [("hybrid", "hybrid"), ("hybrid2", "hybrid"), ("hybrid", "tokens"), ("tokens", "tokens")]
)
def test_greedy_tokens_are_those_of_a_naive_loop(runs, name, mode):
    """Transformers' decoder, NumPy's mel and the full-sequence network agree with the scan, token for token."""
    codebooks = 2 if name == "hybrid2" else 1
    variety = {"repetition_penalty": 1e12, "repetition_window": VARIETY}
    samples, tokens = generate(runs[name], seconds=20 / 75, temperature=0, mode=mode, **variety)
    expected = naive_loop(runs[name], 20, codebooks, closed=mode == "hybrid")
    np.testing.assert_array_equal(tokens[0], expected)
    decoded = load_codec(read_run(runs[name]).codec.name).decode(expected)
    np.testing.assert_allclose(samples[0], decoded, atol=1e-5 * np.abs(decoded).max())


@pytest.mark.parametrize("codebooks", [1, 2])
def test_mel_in_the_loop_is_the_stored_mel_of_the_same_tokens(either_data, codebooks):
    index = load_index(either_data)
    decoder = load_codec_decoder(either_data / "codec.safetensors")
    config = config_of("hybrid", codebooks)
    with nnx.use_eager_sharding(False):
        graph, params = nnx.split(Decoder(config.model, nnx.Rngs(0)))
    loop = Loop(graph, decoder.spec, index.mel, index.clock, codebooks, window=24, closed=True, hears_prompt=False)
    record = decode_record(open_split(either_data, index, "train")[0])
    frames = record.segments[0].length
    stored = record.mel[index.mel_sources.index(f"codec{codebooks}"), :frames]

    @jax.jit
    def one_frame(state, tokens):
        given = Given(jnp.ones(1, bool), tokens[None, :codebooks].astype(jnp.int32), jnp.zeros((1, HOP)))
        sampling = make_sampling(vocabulary=VOCABULARY)
        return loop.chunk(params, decoder.weights, state, given, sampling, jnp.zeros(1, jnp.uint32))[0]

    state, heard = loop.start(params, decoder.weights, 1), []
    for tokens in record.tokens[:frames]:
        state = one_frame(state, tokens)
        heard.append(np.asarray(state.mel[0]))
    np.testing.assert_allclose(np.stack(heard), stored.astype(np.float32), rtol=1e-3, atol=1e-3)


def test_a_sample_depends_on_its_seed_and_not_on_the_batch(runs):
    samples, tokens = generate(runs["hybrid2"], seconds=1, num_samples=3, seed=5, top_p=0.9)
    assert tokens.shape == (3, 75, 2) and samples.shape == (3, 75 * HOP)
    assert len({row.tobytes() for row in tokens}) == 3
    again = generate(runs["hybrid2"], seconds=1, num_samples=3, seed=5, top_p=0.9)
    np.testing.assert_array_equal(again[0], samples)
    alone = generate(runs["hybrid2"], seconds=1, num_samples=1, seed=6, top_p=0.9)
    np.testing.assert_array_equal(alone[1][0], tokens[1])


def test_the_averaged_weights_are_chosen_by_a_flag(runs, data, tmp_path, capsys):
    config = config_of("hybrid", 1)
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, ema=0.9))
    optimizer, mesh = make_optimizer(config.optimizer, 10), make_mesh(MeshConfig(), jax.devices()[:1])
    abstract = abstract_state(config, optimizer, mesh)
    seeds = [dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed)) for seed in (0, 1)]
    state, other = (init_state(seeded, optimizer, mesh, abstract) for seeded in seeds)
    state = state._replace(step=jnp.ones((), jnp.int32))
    run, again = untrained(config, data, tmp_path / "averaging"), untrained(config, data, tmp_path / "again")

    def save(folder: Path, state) -> None:
        with Checkpoints(folder / "checkpoints", config.checkpoint) as checkpoints:
            checkpoints.save(state, {}, {})

    save(run, state._replace(ema=other.params))
    raw, averaged = (generate(run, seconds=0.5, weights=weights) for weights in ("raw", "ema"))
    assert not np.array_equal(raw[1], averaged[1])

    export(run, tmp_path / "exported", ema=True)
    params = load_weights(parse_source(str(tmp_path / "exported")), abstract.params)
    save(again, state._replace(params=params))
    for ours, theirs in zip(averaged, generate(again, seconds=0.5), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    line = ["--seconds", "0.5", "--weights", "ema", "--out", str(tmp_path / "x.wav"), "--json"]
    assert wgpt(["generate", str(run), *line]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == "ema"
    np.testing.assert_allclose(soundfile.read(tmp_path / "x.wav")[0], averaged[0][0].clip(-1, 1), atol=2**-15)
    assert wgpt(["generate", str(runs["hybrid"]), *line]) == 2
    sentence = capsys.readouterr().err
    assert "checkpoint 0 in" in sentence and "has no averaged weights (optimizer.ema was 0)" in sentence
    assert sentence.count("\n") == 1


def test_greedy_is_the_limit_of_low_temperature(runs):
    greedy = generate(runs["hybrid"], seconds=1, temperature=0)[1]
    np.testing.assert_array_equal(generate(runs["hybrid"], seconds=1, temperature=1e-4, seed=9)[1], greedy)


@pytest.fixture
def compiled():
    """Grows by one for every program that XLA is asked for, also where the cache on disk has it."""
    events = []

    def listen(event: str, seconds: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def test_new_sampling_values_prompts_and_lengths_compile_nothing(runs, compiled):
    generator = Generator(runs["hybrid"])
    before = len(compiled)
    generator.compile(1)
    after = len(compiled)
    assert after >= before + 2, "the start and the chunk: compiling is noticed"
    prompt = Prompt(np.zeros(30 * HOP, np.float32), np.zeros((30, 1), np.int16))
    for frames, values, given in (
        (60, {}, None),
        (CHUNK_FRAMES + 1, {"temperature": 0.5, "top_k": 3}, None),
        (130, {"min_p": 0.1, "repetition_penalty": 2.0, "repetition_window": 20}, prompt),
    ):
        sampling = make_sampling(**values, vocabulary=VOCABULARY)
        chunks = generator.stream(frames, sampling=sampling, prompt=given)
        assert sum(len(chunk.tokens[0]) for chunk in chunks) == frames
    assert len(compiled) == after


def test_where_chunks_end_changes_nothing(runs, monkeypatch):
    """Two and a half chunks, more than five times what attention looks back on, behind a prompt within the first."""
    rng = np.random.default_rng(0)
    prompt = Prompt(sound(1.0)[: 30 * HOP], rng.integers(VOCABULARY, size=(30, 2)).astype(np.int16))
    frames = 5 * CHUNK_FRAMES // 2
    outputs = []
    for chunk_frames in (CHUNK_FRAMES, 7):
        monkeypatch.setattr(generator_module, "CHUNK_FRAMES", chunk_frames)
        stream = Generator(runs["hybrid2"]).stream(frames, sampling=make_sampling(vocabulary=VOCABULARY), prompt=prompt)
        chunks = list(stream)
        assert max(len(chunk.tokens[0]) for chunk in chunks) == chunk_frames
        outputs.append([np.concatenate(parts, axis=1) for parts in zip(*chunks, strict=True)])
    (tokens, samples), (other_tokens, other_samples) = outputs
    assert tokens.shape == (1, frames, 2) and len(np.unique(tokens[0, 30:])) > 10
    np.testing.assert_array_equal(other_tokens, tokens)
    np.testing.assert_allclose(other_samples, samples, atol=1e-5 * np.abs(samples).max())


def test_output_leads_with_the_prompts_own_samples_and_fades_into_the_decode(runs):
    codec = load_codec(read_run(runs["hybrid"]).codec.name)
    frames = CHUNK_FRAMES + 7  # its end lies inside the second chunk
    own = sound(2.0, seed=8)[: frames * HOP]
    samples, tokens = generate(runs["hybrid"], prompt=own, seconds=(frames + 30) / 75)
    np.testing.assert_array_equal(tokens[0, :frames], codec.encode(own, 1))
    decoded = codec.decode(tokens[0])
    fade = 480  # 20 ms
    np.testing.assert_array_equal(samples[0, : len(own) - fade], own[:-fade])
    np.testing.assert_allclose(samples[0, len(own) :], decoded[len(own) :], atol=1e-5 * np.abs(decoded).max())
    gap = decoded[: len(own)] - own
    share = (samples[0, : len(own)] - own)[-fade:] / np.where(np.abs(gap[-fade:]) > 1e-4, gap[-fade:], np.nan)
    assert np.nanmax(np.abs(np.diff(share[~np.isnan(share)]))) < 0.05, "the share of the decode rises smoothly"
    assert np.nanmin(share) < 0.01 and np.nanmax(share) > 0.99


@pytest.mark.parametrize("mix", [{"original": 1.0}, {"codec1": 1.0}])
def test_a_prompt_is_heard_as_the_run_was_trained(data, tmp_path, mix):
    """A network of the original's mel hears the prompt itself; one of the decode's hears the prompt's decode."""
    config = config_of("hybrid", 1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, mel_mix=mix))
    info = read_run(untrained(config, data, tmp_path / "run"))
    codec, own = load_codec(info.codec.name), sound(0.5, seed=3)[: 30 * HOP]
    heard = own if "original" in mix else codec.decode(codec.encode(own, 1))
    expected = log_mel(heard, info.mel, info.clock)[-1]
    generator = Generator(tmp_path / "run")
    loop = generator._loop
    given = Given(np.ones(30, bool), codec.encode(own, 1).astype(np.int32), own.reshape(30, HOP))
    state = loop.start(generator._params, generator._weights, 1)
    state, _, _ = jax.jit(loop.chunk)(
        generator._params, generator._weights, state, given, make_sampling(vocabulary=64), np.zeros(1, np.uint32)
    )
    np.testing.assert_allclose(state.mel[0], expected, rtol=1e-3, atol=1e-3)
    assert bool(generator.warnings) == ("original" in mix), "the loop's own mel was never trained on: say so"


def test_a_minute_takes_no_more_memory_than_ten_seconds(runs):
    """Peak memory of one process, after ten seconds and after sixty more."""
    program = (
        "import resource, sys\n"
        "from wgpt_jax.closed_loop.generator import Generator\n"
        "from wgpt_jax.closed_loop.sampling import make_sampling\n"
        "generator = Generator(sys.argv[1])\n"
        "for seconds in (10, 60):\n"
        "    for chunk in generator.stream(75 * seconds, sampling=make_sampling(vocabulary=64)):\n"
        "        pass\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(runs["hybrid"])], capture_output=True, text=True, check=True
    )
    ten, sixty = map(int, done.stdout.split())
    assert sixty - ten < 4096, "KiB; the samples of 50 s alone would be 4,687 KiB"


def test_generating_needs_no_torch(runs, tmp_path):
    program = (
        "import sys; from wgpt_jax.cli import main\n"
        "code = main(['generate', *sys.argv[1:]])\n"
        "bad = {'torch', 'transformers', 'librosa', 'soundfile', 'tensorflow'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", program, str(runs["hybrid"]), "--seconds", "0.2", "--out", str(tmp_path / "x.wav")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_writes_wav_and_png_and_says_how_fast(runs, tmp_path, capsys):
    write_audio(tmp_path / "prompt.ogg", sound(1.0, 44100), 44100, format="OGG", subtype="VORBIS")
    flags = ["--prompt", str(tmp_path / "prompt.ogg"), "--prompt-seconds", "0.5", "--seconds", "1.2"]
    flags += ["--out", str(tmp_path / "sub" / "y.wav"), "--num-samples", "2", "--top-k", "5", "--json"]
    begin = time.perf_counter()
    assert wgpt(["generate", str(runs["hybrid2"]), *flags]) == 0
    wall = time.perf_counter() - begin
    summary = json.loads(capsys.readouterr().out)
    assert summary["files"] == [str(tmp_path / "sub" / f"y-{number}.wav") for number in (1, 2)]
    assert summary["seeds"] == [0, 1] and summary["mel_source"] == "codec2" and summary["codebooks"] == 2
    assert summary["prompt_seconds"] == pytest.approx(37 / 75) and summary["seconds"] == pytest.approx(1.2)
    assert summary["compile_seconds"] > 0 and summary["generate_seconds"] > 0
    assert summary["compile_seconds"] + summary["generate_seconds"] < wall, "each second is counted once"
    assert summary["real_time_factor"] > 1.2 / (wall - summary["compile_seconds"])
    assert summary["frames_per_second"] == pytest.approx(75 * summary["real_time_factor"]), "of each sample"
    for file in summary["files"]:
        info = soundfile.info(file)
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (RATE, 1, "PCM_16", 90 * HOP)
        assert Path(file).with_suffix(".png").stat().st_size > 5000
    assert wgpt(["generate", str(runs["tokens"]), "--seconds", "0.3", "--out", str(tmp_path / "z.wav")]) == 0
    assert "real-time factor" in capsys.readouterr().out


def test_a_sample_that_ends_in_one_token_is_told(runs, tmp_path, capsys, monkeypatch):
    varied = np.arange(200) % 7  # ends in 3
    assert stuck_since(varied) is None and stuck_since(np.append(varied, np.full(149, 5))) is None
    assert stuck_since(np.append(varied, np.full(150, 5))) == 200 and stuck_since(np.full(150, 5)) == 0

    def write_stuck(*args, **kwargs):
        tokens, *rest = write(*args, **kwargs)
        tokens = tokens.copy()
        tokens[1, 75:] = 5  # the second sample's last three seconds
        return tokens, *rest

    write = generation._write
    monkeypatch.setattr(generation, "_write", write_stuck)
    flags = ["generate", str(runs["tokens"]), "--seconds", "4", "--num-samples", "2", "--json"]
    flags += ["--out", str(tmp_path / "y.wav")]
    for more, hint in ((["--top-p", "0.9"], "draw from the whole distribution"), ([], None)):
        assert wgpt([*flags, *more]) == 0
        said = capsys.readouterr()
        [warning] = json.loads(said.out)["warnings"]
        assert "y-2.wav is one and the same coarse token from 1.00 s to its end" in warning
        assert (
            f"warning: {warning}" in said.err
            and (hint or "its end") in warning
            and (hint is not None) == (";" in warning)
        )


def test_ctrl_c_leaves_a_file_that_plays_and_says_how_long_it_is(runs, tmp_path):
    out = tmp_path / "long.wav"
    line = [sys.executable, "-m", "wgpt_jax.cli", "generate", str(runs["hybrid"]), "--seconds", "3000"]
    process = subprocess.Popen([*line, "--out", str(out)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out.exists() and out.stat().st_size > 200_000) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in error
    seconds = soundfile.info(out).duration
    assert seconds >= 4 and f"kept the first {seconds:.2f} s" in error


@pytest.fixture
def broken(runs, tmp_path) -> dict[str, Path]:
    """Prompts and runs of every kind that cannot be used."""
    write_audio(tmp_path / "good.wav", sound(1.0), RATE)
    write_audio(tmp_path / "short.wav", sound(0.01), RATE)
    nan = sound(1.0)
    nan[100] = np.nan
    write_audio(tmp_path / "nan.wav", nan, RATE, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio at all")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    folders = {name: tmp_path / name for name in ("unsaved", "other", "without", "fewer", "moved")}
    for folder in folders.values():
        folder.mkdir()
        for name in ("run.json", "codec.safetensors"):
            shutil.copyfile(runs["hybrid2"] / name, folder / name)
    decoder = load_codec_decoder(folders["other"] / "codec.safetensors")
    stranger = dataclasses.replace(decoder, spec=dataclasses.replace(decoder.spec, fingerprint="0" * 16))
    save_codec_decoder(stranger, folders["other"] / "codec.safetensors")
    first = {"codebooks": decoder.weights["codebooks"][:1], "silence": decoder.weights["silence"][:, :1]}
    fewer = CodecDecoder(dataclasses.replace(decoder.spec, codebooks=1), decoder.weights | first)
    save_codec_decoder(fewer, folders["fewer"] / "codec.safetensors")
    (folders["without"] / "codec.safetensors").unlink()
    rename_codec(folders["moved"], tmp_path / "gone")
    return {"folder": tmp_path, **folders}


def rename_codec(run: Path, name: Path) -> None:
    fields = json.loads((run / "run.json").read_text())
    fields["codec"]["name"] = str(name)
    (run / "run.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("run", "flags", "message"),
    [
        ("hybrid", ["--prompt", "missing.wav"], "there is no file"),
        ("hybrid", ["--prompt", "text.wav"], "cannot be used"),
        ("hybrid", ["--prompt", "empty.wav"], "empty"),
        ("hybrid", ["--prompt", "nan.wav"], "non-finite"),
        ("hybrid", ["--prompt", "short.wav"], "shorter than one frame"),
        ("hybrid", ["--prompt", "good.wav", "--seconds", "1"], "ask for more, or shorten the prompt"),
        ("hybrid", ["--prompt", "good.wav", "--prompt-seconds", "0"], "--prompt-seconds 0"),
        ("hybrid", ["--prompt", "good.wav", "--prompt-seconds", "inf"], "--prompt-seconds inf: ask for a positive"),
        ("hybrid", ["--prompt", "good.wav", "--out", "good.wav"], "good.wav is the prompt itself"),
        ("hybrid", ["--prompt", "good.wav", "--codec", "nowhere/at/all"], "no codec folder nowhere/at/all"),
        ("hybrid", ["--prompt", "good.wav", "--codec", "bundled"], "is not the one the run was trained with"),
        ("hybrid", ["--prompt-seconds", "1"], "give --prompt as well"),
        ("hybrid", ["--seconds", "0"], "--seconds 0: ask for a positive number"),
        ("hybrid", ["--seconds", "nan"], "--seconds nan"),
        ("hybrid", ["--top-k", "65"], "the codebook has 64 entries"),
        ("hybrid", ["--temperature", "-1"], "--temperature -1"),
        ("hybrid", ["--num-samples", "0"], "--num-samples 0"),
        ("hybrid", ["--seed", "-1"], "--seed -1"),
        ("hybrid", ["--out", "y.mp3"], "ends in .wav"),
        ("hybrid", ["--out", "folder.wav"], "folder.wav is a folder"),
        ("hybrid", ["--step", "7"], "no checkpoint of step 7"),
        ("hybrid", ["--step", "newest"], "--step 'newest' is no step"),
        ("tokens", ["--mode", "hybrid"], "token-only model"),
        ("nowhere", [], "is no run folder"),
        ("unsaved", [], "no checkpoint"),
        ("other", [], "but the run was trained with"),
        ("without", [], "there is no codec decoder"),
        ("fewer", [], "has 1 codebooks, but the run emits 2"),
        ("moved", ["--prompt", "good.wav"], "no codec folder"),
    ],
)
def test_mistakes_end_in_one_sentence_and_2(runs, broken, run, flags, message, capsys):
    flags = [str(broken["folder"] / flag) if flag.endswith((".wav", ".mp3")) else flag for flag in flags]
    folder = runs.get(run) or broken.get(run) or broken["folder"] / run
    out = [] if "--out" in flags else ["--out", str(broken["folder"] / "out.wav")]
    assert wgpt(["generate", str(folder), *flags, *out]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not (broken["folder"] / "out.wav").exists()


def test_a_codec_that_has_moved_is_named_by_a_flag(runs, tmp_path, capsys):
    write_audio(tmp_path / "prompt.wav", sound(0.5), RATE)
    shutil.copytree(read_run(runs["hybrid"]).codec.name, tmp_path / "codec")
    shutil.copytree(runs["hybrid"], tmp_path / "run")
    rename_codec(tmp_path / "run", tmp_path / "gone")
    flags = ["--prompt", str(tmp_path / "prompt.wav"), "--seconds", "0.6", "--temperature", "0"]
    line = ["generate", str(tmp_path / "run"), *flags, "--out", str(tmp_path / "out.wav")]
    assert wgpt(line) == 2
    assert f"no codec folder {tmp_path / 'gone'}" in capsys.readouterr().err
    assert wgpt([*line, "--codec", str(tmp_path / "codec")]) == 0
    expected = generate(runs["hybrid"], tmp_path / "prompt.wav", seconds=0.6, temperature=0)[0]
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav")[0], expected[0].clip(-1, 1), atol=2**-15)


@pytest.mark.parametrize(("codebooks", "broken"), [(1, "['head']"), (2, "['depformer']")])
def test_a_broken_network_is_noticed(data, tmp_path, capsys, codebooks, broken):
    run = untrained(config_of("hybrid", codebooks), data, tmp_path / "run", broken)
    assert wgpt(["generate", str(run), "--seconds", "0.5", "--out", str(tmp_path / "out.wav"), "--json"]) == 1
    out, error = capsys.readouterr()
    assert "checkpoint 0 gives logits or samples that are not finite" in error and "Traceback" not in error
    assert not out and len(error.strip().splitlines()) == 1


def test_the_api_takes_arrays_and_refuses_what_is_no_signal(runs):
    for prompt in (np.zeros((2, 9600), np.float32), np.full(9600, np.nan, np.float32), np.zeros(9600, np.int16)):
        with pytest.raises(RequestError, match=r"float samples|not finite"):
            generate(runs["hybrid"], prompt=prompt, seconds=2)


@pytest.mark.parametrize(
    ("frames", "codebooks", "samples", "message"),
    [
        (6, 1, 6 * HOP, "6 frames of 1 codebooks .* the run needs 2 codebooks"),
        (6, 2, 5 * HOP, f"{5 * HOP} samples; the run needs .* {HOP} samples per frame"),
        (7, 2, 7 * HOP, "7 frames, 7 were asked for"),
    ],
)
def test_prompts_that_do_not_fit_are_refused_by_the_api(runs, frames, codebooks, samples, message):
    prompt = Prompt(np.zeros(samples, np.float32), np.zeros((frames, codebooks), np.int16))
    with pytest.raises(RequestError, match=message):
        next(Generator(runs["hybrid2"]).stream(7, sampling=make_sampling(vocabulary=64), prompt=prompt))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            {"output_codebooks": 2, "input_codebooks": 2, "pattern": "delay"},
            "generate from a run with model.pattern depth",
        ),
        ({"input_codebooks": 2}, "reads 2 codebooks and predicts 1: .* --model.output-codebooks 2"),
    ],
)
def test_a_run_that_cannot_go_on_from_its_own_tokens_says_so(data, tmp_path, model, says):
    config = tiny_config("tokens", model={"vocabulary": VOCABULARY, "mel_bands": 64} | model)
    with pytest.raises(RequestError, match=says):
        Generator(untrained(config, data, tmp_path / "run"))
