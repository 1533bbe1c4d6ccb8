"""``dataset.py show``: one document of a prepared data set, to look at and to listen to."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from wgpt_jax.audio.codec_file import CODEC_NAME, CodecDecoder, load_codec_decoder
from wgpt_jax.audio.wav import WavWriter
from wgpt_jax.dataset.find import find_document
from wgpt_jax.dataset.folder import Prepared, name_of, open_prepared, printable
from wgpt_jax.dataset.records import ShardReader, UnreadableError
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.plots import plot_document

_FIRST = 12  # frames whose tokens are printed
_CHUNK = 750  # frames decoded at once
_LONGEST_STEM = 80


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class ShowArgs:
    """Shows one document of a prepared data set.

    Prints what is known of it and its first tokens, and writes a picture (each mel source above the tokens) and a WAV,
    decoded from its tokens alone by the codec's decoder beside the data.
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """Folder made by tools/prepare_audio.py."""
    utt: Annotated[str, tyro.conf.arg(metavar="ID")]
    """Its name in index.json, the id in its metadata, how its name ends, or any part of it that no other has."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path()
    """Folder for the picture and the WAV, made if it is not there; the current one by default."""
    codebooks: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Leading codebooks to decode; all that are stored by default."""


def show(args: ShowArgs) -> None:
    """Prints, draws and decodes a document.

    Raises:
        RequestError: if there is no such data, document or number of codebooks, the decoder is not there, or DIR cannot
            be written.
        WorkError: if the document cannot be read.
    """
    prepared = open_prepared(args.data)
    row = find_document(prepared, args.utt)
    codec = _decoder(prepared, args.codebooks)
    mel, tokens = read_frames(prepared, row)
    index, name = prepared.index, name_of(row)
    picture, sound = (args.out / f"{safe_stem(name)}{suffix}" for suffix in (".png", ".wav"))
    try:
        os.makedirs(args.out, exist_ok=True)
        mels = dict(zip(index.mel_sources, mel, strict=True))
        plot_document(mels, tokens, index.clock.frames_per_second, printable(name), picture)
    except OSError as error:
        raise RequestError(f"cannot write {picture} ({error.strerror or error}); choose another --out DIR") from error
    print(_description(prepared, row, tokens))
    print(f"picture   {picture}")
    if codec is None:
        print("wav       none: the codec is not causal, its decoder is not stored beside the data")
        return
    codebooks = args.codebooks or codec.spec.codebooks
    loudest = 0.0
    with WavWriter(sound, codec.spec.clock.sample_rate) as wav:
        for samples in decode_tokens(codec, tokens[:, :codebooks]):
            wav.write(samples)
            loudest = max(loudest, float(np.abs(samples).max()))
    print(f"wav       {sound} ({codebooks} of {index.codebooks} codebooks, peak {loudest:.3f} of full scale)")


def read_frames(prepared: Prepared, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mel float16 [S, n, M] and tokens int16 [n, K] of a document.

    Raises:
        WorkError: if its shard cannot be read, or does not hold all of it.
    """
    name, path = name_of(row), prepared.folder / row["shard"]
    mel, tokens = [], []
    try:
        with ShardReader(path) as reader:
            for number in range(len(reader)):
                record, offset = reader.read(number), 0
                for segment in record.segments:
                    if segment.document == name:
                        frames = slice(offset + segment.context, offset + segment.length)
                        mel.append(record.mel[:, frames])
                        tokens.append(record.tokens[frames])
                    offset += segment.length
    except UnreadableError as error:
        raise WorkError(f"{path} is damaged: {error}; dataset.py repair makes it anew") from error
    if sum(map(len, tokens)) != row["frames"]:
        raise WorkError(f"{path} does not hold {printable(name)}; dataset.py verify says what is damaged")
    return np.concatenate(mel, axis=1), np.concatenate(tokens)


def decode_tokens(codec: CodecDecoder, tokens: np.ndarray) -> Iterator[np.ndarray]:
    """Samples of tokens [n, K'], piece by piece, in bounded memory: float32 [n * hop] in all."""
    import jax  # here: an unknown name needs no JAX to be told

    from wgpt_jax.audio.encodec import decode, initial_carry

    weights = jax.device_put(codec.weights)
    carry = initial_carry(codec.spec, weights, 1, tokens.shape[1])
    for start in range(0, len(tokens), _CHUNK):
        piece = tokens[start : start + _CHUNK]
        padded = np.zeros((1, _CHUNK, tokens.shape[1]), np.int32)  # one shape compiles once; what is behind is dropped
        padded[0, : len(piece)] = piece
        samples, carry = decode(codec.spec, weights, padded, carry)
        yield np.asarray(samples)[0, : codec.spec.clock.samples(len(piece))]


def safe_stem(name: str) -> str:
    """A file name for any document's name: of plain characters, short, and another one for another name."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")[-_LONGEST_STEM:].lstrip("._-")
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}".lstrip("-")


def _decoder(prepared: Prepared, codebooks: int | None) -> CodecDecoder | None:
    """The decoder beside the data; None for a codec that is not causal."""
    index = prepared.index
    if codebooks is not None and not 1 <= codebooks <= index.codebooks:
        raise RequestError(f"--codebooks {codebooks}: 1 to {index.codebooks} are stored")
    if not index.codec.causal:
        return None
    path = prepared.folder / CODEC_NAME
    try:
        codec = load_codec_decoder(path)
    except RequestError as error:
        raise RequestError(f"{error}".split("; ")[0] + "; dataset.py repair makes it anew") from error
    if codec.spec.fingerprint != index.codec.fingerprint or codec.spec.codebooks < index.codebooks:
        raise RequestError(
            f"{path} is not of the codec of the data ({index.codec.fingerprint}); dataset.py repair helps"
        )
    return codec


def _description(prepared: Prepared, row: dict[str, Any], tokens: np.ndarray) -> str:
    source = prepared.index.options.get("root") or prepared.index.options.get("source") or ""
    path = row["path"] if os.path.isabs(row["path"]) or not source else f"{source}/{row['path']}"
    lines = [
        f"name      {printable(name_of(row))}",
        f"split     {row['split']} ({row['shard']})",
        f"length    {row['seconds']:.3f} s, {row['frames']:,} frames",
        f"source    {printable(path)}",
    ]
    for key in ("domain", "speaker"):
        if row.get(key):
            lines.append(f"{key:<8}  {printable(str(row[key]))}")
    if row.get("metadata"):
        lines.append(f"metadata  {json.dumps(row['metadata'])}")
    shown = tokens[:_FIRST]
    lines.append(f"tokens    of the first {len(shown)} frames, a row per codebook:")
    width = len(str(shown.max()))
    lines += [f"          {' '.join(f'{token:>{width}}' for token in column)}" for column in shown.T]
    return "\n".join(lines)
