"""TensorBoard gets the sound and the pictures that it should, and training does not notice."""

import dataclasses
import errno
import io
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from audio_samples import sound, write_audio
from matplotlib.image import imread
from tensorboardX.proto.event_pb2 import Event
from test_generation import HOP, RATE, VOCABULARY, config_of, prepared, untrained

from wgpt_jax.audio.codec_file import load_codec_decoder, save_codec_decoder
from wgpt_jax.closed_loop import stream as stream_module
from wgpt_jax.closed_loop.generator import Generator, Prompt
from wgpt_jax.closed_loop.reference import read_reference
from wgpt_jax.closed_loop.sampling import make_sampling
from wgpt_jax.config import MeshConfig
from wgpt_jax.data import shards
from wgpt_jax.data.index import load_index
from wgpt_jax.data.records import decode_record
from wgpt_jax.data.shards import open_split
from wgpt_jax.evaluation import load_network
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.prepare.codec import load_codec
from wgpt_jax.runs import RunFolder, read_run
from wgpt_jax.training.summaries import SEED, Summaries
from wgpt_jax.training.tensorboard import TensorBoard

FRAMES = 60
SECONDS = FRAMES / 75
TAGS = ("reference", "generated/from_nothing", "generated/continued")
LEAST = 1 / 32768


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> Path:
    """Names that a formula could be read in: they become titles."""
    root = tmp_path_factory.mktemp("audio")
    for i in range(5):
        write_audio(root / f"{i} $x_{{$.wav", sound(1.5 + 0.1 * (i % 3), seed=i), RATE)
    return root


@pytest.fixture(scope="module", params=["constant", "reflect"])
def either_data(request, audio, codec_folder, reflect_folder, tmp_path_factory) -> Path:
    return prepared(audio, {"constant": codec_folder, "reflect": reflect_folder}[request.param], tmp_path_factory)


@pytest.fixture(scope="module")
def data(audio, codec_folder, tmp_path_factory) -> Path:
    return prepared(audio, codec_folder, tmp_path_factory)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    kinds = {"hybrid2": ("hybrid", 2), "tokens": ("tokens", 1)}
    return {name: untrained(config_of(*kind), data, folder / name) for name, kind in kinds.items()}


def network(run: Path):
    return load_network(run, read_run(run), make_mesh(MeshConfig(), jax.devices()[:1]))[:2]


def summaries_of(run: Path, data: Path, writer: TensorBoard, seconds: float, **changes):
    """The summaries of a run, its parameters, and the list that warnings go to."""
    graph, params = network(changes.pop("network", run))
    info, said = dataclasses.replace(read_run(run), **changes), []
    return Summaries(writer, RunFolder(run), info, data, load_index(data), graph, seconds, said.append), params, said


def values(folder: Path) -> dict:
    """Summary values of an event file by tag and step, its TFRecord framing read by hand."""
    found = {}
    (file,) = folder.glob("events.*")
    stream = io.BytesIO(file.read_bytes())
    while header := stream.read(12):
        data = stream.read(struct.unpack("<Q", header[:8])[0])
        stream.read(4)
        event = Event.FromString(data)
        for value in event.summary.value:
            assert (value.tag, event.step) not in found, "written once"
            found[value.tag, event.step] = value
    return found


def heard(value) -> np.ndarray:
    """Samples of an audio summary, whose description must be that of its WAV."""
    samples, rate = soundfile.read(io.BytesIO(value.audio.encoded_audio_string), dtype="float32", always_2d=True)
    assert rate == value.audio.sample_rate == RATE and value.audio.content_type == "audio/wav"
    assert samples.shape == (value.audio.length_frames, value.audio.num_channels) == (len(samples), 1)
    return samples[:, 0]


def held_out(data: Path, codebooks: int):
    """The longest document of the first validation record: its tokens, and what transformers decodes from them."""
    index = load_index(data)
    record = decode_record(open_split(data, index, "validation")[0])
    documents, edge = [], 0
    for segment in record.segments:
        documents.append(record.tokens[edge : edge + segment.length, :codebooks])
        edge += segment.length
    assert all(segment.start == 0 for segment in record.segments)
    tokens = max(documents, key=len)
    return tokens, load_codec(index.codec.name).decode(tokens)


@pytest.mark.parametrize("most", [FRAMES, 4500])
def test_the_reference_is_the_decode_of_the_stored_tokens(either_data, most):
    codec = load_codec_decoder(either_data / "codec.safetensors")
    reference = read_reference(either_data, load_index(either_data), codec, 2, most)
    tokens, decoded = held_out(either_data, 2)
    assert FRAMES < len(tokens) < 4500
    np.testing.assert_array_equal(reference.tokens, tokens[:most])
    np.testing.assert_allclose(reference.samples, decoded[: most * HOP], atol=1e-5 * np.abs(decoded).max())


@pytest.fixture(scope="module", params=["hybrid2", "tokens"])
def written(request, runs, data, tmp_path_factory):
    """A run, and what it wrote at three steps: twice of the same parameters, then of others."""
    run, folder = runs[request.param], tmp_path_factory.mktemp("events")
    writer = TensorBoard(folder, 1)
    summaries, params, said = summaries_of(run, data, writer, SECONDS)
    for step, factor in ((10, 1.0), (20, 1.0), (30, 0.5)):
        summaries.write(step, jax.tree.map(lambda x, factor=factor: factor * x, params))
    writer.close()
    assert not said
    return run, values(folder)


def test_each_evaluation_gets_sound_and_pictures_and_the_first_one_the_reference(written):
    _, found = written
    kinds = [tag + kind for tag in TAGS for kind in ("", "/mel")]
    steps = {tag: (10,) if tag.startswith("reference") else (10, 20, 30) for tag in kinds}
    assert set(found) == {(tag, step) for tag, at in steps.items() for step in at}


def test_the_reference_in_the_event_file_is_right_within_16_bits(written, data):
    run, found = written
    _, decoded = held_out(data, read_run(run).config.model.output_codebooks)
    samples = heard(found["reference", 10])
    assert len(samples) == FRAMES * HOP and np.abs(samples).max() > 100 * LEAST
    rounding = LEAST / 2 + 1e-5 * np.abs(decoded).max()
    np.testing.assert_allclose(samples, decoded[: FRAMES * HOP].clip(-1, 1 - LEAST), atol=rounding)


def test_generated_audio_is_what_the_generator_streams_of_that_checkpoint(written, data):
    run, found = written
    generator = Generator(run)
    tokens, decoded = held_out(data, generator.codebooks)
    given = FRAMES // 2
    prompt = Prompt(decoded[: given * HOP], tokens[:given])
    for tag, first in (("generated/from_nothing", None), ("generated/continued", prompt)):
        sampling = make_sampling(vocabulary=VOCABULARY)
        chunks = generator.stream(FRAMES, sampling=sampling, seeds=(SEED,), prompt=first)
        expected = np.concatenate([chunk.samples[0] for chunk in chunks])
        np.testing.assert_allclose(heard(found[tag, 10]), expected.clip(-1, 1 - LEAST), atol=1.01 * LEAST)


def test_samples_of_two_steps_differ_by_their_weights_alone(written):
    _, found = written
    for tag in TAGS[1:]:
        first, same, other = (found[tag, step].audio.encoded_audio_string for step in (10, 20, 30))
        assert first == same != other


def test_pictures_have_three_channels_and_something_in_them(written):
    _, found = written
    pictures = {key: value.image for key, value in found.items() if key[0].endswith("/mel")}
    for image in pictures.values():
        pixels = imread(io.BytesIO(image.encoded_image_string))
        assert pixels.shape == (image.height, image.width, 3) and image.colorspace == 3
        top = pixels[image.height // 6 : image.height // 2, image.width // 6 : image.width * 5 // 6]
        assert len(np.unique(top.reshape(-1, 3), axis=0)) > 50, "colours of the spectrogram"
    from_nothing = [pictures["generated/from_nothing/mel", step].encoded_image_string for step in (10, 30)]
    assert from_nothing[0] != from_nothing[1]


def test_training_does_not_notice(runs, data, tmp_path):
    """Parameters keep every bit, the device every byte, NumPy's generator its state; later writes compile nothing."""
    compiled = []

    def listen(event: str, seconds: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    summaries, params, _ = summaries_of(runs["hybrid2"], data, TensorBoard(tmp_path, 1), SECONDS)
    before = jax.tree.map(lambda x: np.asarray(x).tobytes(), params)
    random = np.random.get_state()[1].tobytes()
    summaries.write(1, params)
    programs, arrays = len(compiled), {id(array) for array in jax.live_arrays()}
    summaries.write(2, params)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert programs and len(compiled) == programs
    assert {id(array) for array in jax.live_arrays()} <= arrays
    assert jax.tree.map(lambda x: np.asarray(x).tobytes(), params) == before
    assert np.random.get_state()[1].tobytes() == random


def test_no_copy_of_the_parameters_is_kept(runs, data, tmp_path):
    summaries, params, _ = summaries_of(runs["hybrid2"], data, TensorBoard(tmp_path, 1), SECONDS)
    shape = max((leaf.shape for leaf in jax.tree.leaves(params)), key=np.prod)
    summaries.write(1, params)
    del params
    assert not [array for array in jax.live_arrays() if array.shape == shape]


WORKER = """
import sys
import jax
from wgpt_jax.config import MeshConfig
from wgpt_jax.data.index import load_index
from wgpt_jax.evaluation import load_network
from wgpt_jax.parallel.mesh import make_mesh
from wgpt_jax.runs import RunFolder, read_run
from wgpt_jax.training.summaries import Summaries
from wgpt_jax.training.tensorboard import TensorBoard

run, data, out, seconds = sys.argv[1:]
info = read_run(run)
graph, params, _ = load_network(run, info, make_mesh(MeshConfig(fsdp=2, tensor=2)))[:3]
assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))
writer = TensorBoard(out, 1)
Summaries(writer, RunFolder(run), info, data, load_index(data), graph, float(seconds), print).write(10, params)
writer.close()
bad = {"soundfile", "librosa", "transformers", "tensorflow"} & set(sys.modules)
assert not bad, bad
"""


def test_weights_split_over_four_devices_sound_the_same_and_no_audio_package_is_needed(written, data, tmp_path):
    run, found = written
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", WORKER, str(run), str(data), str(tmp_path / "events"), str(SECONDS)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stderr + done.stdout
    split = values(tmp_path / "events")
    for tag in TAGS:
        np.testing.assert_allclose(heard(split[tag, 10]), heard(found[tag, 10]), atol=1.01 * LEAST)


@pytest.fixture
def failing(runs, data, tmp_path, monkeypatch):
    """Makes what its argument names fail; returns the arguments of ``summaries_of``."""

    def fail(what: str) -> dict:
        run, changes = tmp_path / "run", {}
        run.mkdir()
        for name in ("run.json", "codec.safetensors"):
            shutil.copyfile(runs["hybrid2"] / name, run / name)
        info, place = read_run(run), data
        if what == "no codec":
            (run / "codec.safetensors").unlink()
        elif what == "another codec":
            decoder = load_codec_decoder(run / "codec.safetensors")
            spec = dataclasses.replace(decoder.spec, fingerprint="0" * 16)
            save_codec_decoder(dataclasses.replace(decoder, spec=spec), run / "codec.safetensors")
        elif what == "not causal":
            changes["codec"] = dataclasses.replace(info.codec, causal=False)
        elif what == "damaged record":
            place = tmp_path / "data"
            shutil.copytree(data, place)
            shard = place / load_index(data).split("validation")[0].file
            shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
        elif what == "device":

            def compile_chunk(*_):
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand much more")

            monkeypatch.setattr(stream_module, "compile_chunk", compile_chunk)
        return {"run": run, "data": place, "network": runs["hybrid2"], **changes}

    return fail


@pytest.mark.parametrize(
    ("what", "tags", "message"),
    [
        ("no codec", set(), "gets no audio: there is no codec decoder"),
        ("another codec", set(), "gets no audio: .* but the run was trained with"),
        ("not causal", set(), "gets no audio: the run's codec .* is not causal"),
        ("damaged record", set(), "gets no audio: shard .* is damaged"),
        ("device", {"reference"}, "gets no more audio after step 1: RESOURCE_EXHAUSTED: Out of memory$"),
        ("network", {"reference"}, "gets no more audio after step 1: logits or samples that are not finite between"),
    ],
)
def test_a_failure_is_told_once_and_nothing_is_tried_again(failing, tmp_path, what, tags, message):
    writer = TensorBoard(tmp_path / "events", 1)
    summaries, params, said = summaries_of(writer=writer, seconds=SECONDS, **failing(what))
    if what == "network":
        params = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
    for step in (1, 2):
        summaries.write(step, params)
    writer.close()
    (warning,) = said
    assert warning.startswith("warning: TensorBoard ")
    assert re.search(message, warning)
    assert {tag.removesuffix("/mel") for tag, _ in values(tmp_path / "events")} == tags


def test_a_full_disk_is_passed_on(runs, data, tmp_path, monkeypatch):
    writer = TensorBoard(tmp_path, 1)
    summaries, params, said = summaries_of(runs["hybrid2"], data, writer, SECONDS)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._writer, "write_event", full)
    with pytest.raises(OSError, match="No space left"):
        summaries.write(1, params)
    assert not said


def test_a_document_of_silence_can_be_shown(runs, data, tmp_path, monkeypatch):
    """Stored as float16 it can lie below silence: a range of colours that would end before it begins."""
    silence = np.nextafter(np.float16(load_index(data).mel.silence), np.float16(-np.inf))

    def silent(encoded: bytes):
        record = decode_record(encoded)
        return dataclasses.replace(record, mel=np.full_like(record.mel, silence))

    monkeypatch.setattr(shards, "decode_record", silent)
    writer = TensorBoard(tmp_path, 1)
    summaries, params, said = summaries_of(runs["hybrid2"], data, writer, SECONDS)
    summaries.write(1, params)
    writer.close()
    assert not said and ("generated/continued/mel", 1) in values(tmp_path)
