"""``prepare_audio IN OUT``: from a folder of audio to shards of aligned tokens and mel, codec, index, and n-grams."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from wgpt_jax.audio.codec_file import CODEC_NAME, save_codec_decoder
from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.command import run_command
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.mel_sources import ORIGINAL
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.convert import Conversion
from wgpt_jax.prepare.engine import available_cores
from wgpt_jax.prepare.plan import load_plan
from wgpt_jax.prepare.sources import READABLE, find_audio
from wgpt_jax.prepare.splits import Splitting
from wgpt_jax.prepare.stages import extend_plan, make_missing
from wgpt_jax.prepare.summary import describe, describe_failures, write_index

if TYPE_CHECKING:
    from wgpt_jax.prepare.encodec import Codec

_CODEBOOKS = 8  # stored if the flag does not say


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class PrepareArgs:
    """Prepares a folder of audio for training: aligned log-mel slices and ENCODEC tokens in ArrayRecord shards.

    The same command again makes only what is missing: after an interruption, a lost shard, new or repaired files.
    Files that cannot be used are listed with the reason; documents keep their split when files are added.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """Folder of audio, searched through: wav, flac, ogg, opus, mp3, aiff; any rate, any number of channels."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder for the shards and their index."""
    codec: Annotated[str, tyro.conf.arg(metavar="NAME_OR_DIR")] = "facebook/encodec_24khz"
    """ENCODEC: a name on the hub, a folder, or "bundled" for the small one in the package."""
    allow_noncausal: bool = False
    """Accept a codec whose tokens contain the future (32 and 48 kHz ENCODECs); the data is flagged."""
    codebooks: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Codebooks to store per frame; 8 by default, or all the codec has if it has fewer."""
    mel_sources: Annotated[str, tyro.conf.arg(metavar="NAME[,NAME...]")] = ORIGINAL
    """Mels to store, each of every frame: original, and codecN, that of the codec's decode from the first N codebooks,
    which is what a model hears of its own tokens when it generates. Training mixes them (--data.mel-mix)."""
    split_by: Literal["file", "speaker"] = "file"
    """What is kept whole in one split: a file, or a speaker (the first folder below IN)."""
    domains: bool = False
    """The first folder below IN names the domain (speech, music); the speaker is the folder below it."""
    validation: float = 0.05
    """Fraction of files or speakers for validation."""
    test: float = 0.05
    """Fraction of files or speakers for test."""
    seed: int = 0
    """Seed of the split."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Processes; one per core by default. The shards do not depend on it."""
    mel: MelConfig = dataclasses.field(default_factory=MelConfig)
    """The mel slice."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    return run_command(prepare, PrepareArgs, argv, prog="prepare_audio")


def prepare(args: PrepareArgs) -> None:
    """Prepares ``args.source`` into ``args.out`` and prints a summary.

    Raises:
        RequestError: no audio, no codec, or options that do not fit what is in OUT.
        WorkError: no file could be used, or the work broke off; what is finished is kept.
    """
    _check_flags(args)
    names = find_audio(args.source)
    if not names:
        raise RequestError(f"no audio in {args.source} (files ending in {' '.join(READABLE)})")
    codec = cached_codec(args.codec, args.allow_noncausal)
    conversion = _conversion(args, codec)
    splitting = Splitting(args.split_by, args.domains, args.validation, args.test, args.seed)
    request = {"source": args.source.resolve().as_posix(), **dataclasses.asdict(splitting)}

    plan = load_plan(args.out, request | _stored_arrays(conversion))
    with _writing_to(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
        extend_plan(plan, names, args.source, args.out, splitting, shortest=codec.clock.seconds(1))
        plan.save(args.out)
    reports = make_missing(plan, args.source, args.out, conversion, args.workers or available_cores())
    with _writing_to(args.out):
        if codec.causal:
            from wgpt_jax.prepare.export import export_decoder  # here: it imports torch

            save_codec_decoder(export_decoder(codec, conversion.codebooks), args.out / CODEC_NAME)
        index = write_index(args.out, reports, codec.info, conversion, request)
    if not index.shards:
        raise WorkError("\n".join(["no file could be used", *describe_failures(index)]))
    print(describe(index, reports, args.out))


def _conversion(args: PrepareArgs, codec: "Codec") -> Conversion:
    codebooks = min(_CODEBOOKS, codec.codebooks) if args.codebooks is None else args.codebooks
    if not 1 <= codebooks <= codec.codebooks:
        raise RequestError(f"--codebooks {codebooks}: codec {codec.name} has 1 to {codec.codebooks}")
    if args.mel.n_fft < codec.clock.hop:
        raise RequestError(f"--mel.n-fft {args.mel.n_fft} is shorter than a frame of {codec.clock.hop} samples")
    return Conversion(
        codec=args.codec,
        codec_fingerprint=codec.fingerprint,
        clock=codec.clock,
        allow_noncausal=args.allow_noncausal,
        codebooks=codebooks,
        mel=args.mel,
        mel_sources=_mel_sources(args.mel_sources, codec, codebooks),
        domains=args.domains,
    )


def _mel_sources(flag: str, codec: "Codec", codebooks: int) -> tuple[str, ...]:
    names = tuple(name.strip() for name in flag.split(","))
    possible = [ORIGINAL, *(f"codec{n}" for n in range(1, codebooks + 1))]
    for name in names:
        if name != ORIGINAL and not codec.causal:
            raise RequestError(
                f"--mel-sources {name}: codec {codec.name} is not causal, the decode of its tokens would show each "
                f"slice what comes after it; only {ORIGINAL} can be stored"
            )
        if name not in possible:
            raise RequestError(f"--mel-sources: {name!r} is none of {', '.join(possible)}")
        if names.count(name) > 1:
            raise RequestError(f"--mel-sources names {name} twice; name each source once")
    return names


def _stored_arrays(conversion: Conversion) -> dict[str, object]:
    """The options that decide what a record holds; the plan keeps them beside the request."""
    mel = {f"mel.{key}": value for key, value in dataclasses.asdict(conversion.mel).items()}
    return {
        "codec_fingerprint": conversion.codec_fingerprint,
        "codebooks": conversion.codebooks,
        "mel_sources": ",".join(conversion.mel_sources),
        **mel,
    }


def _check_flags(args: PrepareArgs) -> None:
    if not args.source.is_dir():
        raise RequestError(f"there is no folder {args.source}")
    if args.out.exists() and not args.out.is_dir():
        raise RequestError(f"{args.out} is a file; OUT is a folder")
    for name in ("validation", "test"):
        if not 0 <= getattr(args, name) < 1:
            raise RequestError(f"--{name} {getattr(args, name)} is not a fraction between 0 and 1")
    if args.validation + args.test >= 1:
        raise RequestError(f"--validation {args.validation} and --test {args.test} leave nothing to train on")
    if args.workers is not None and args.workers < 1:
        raise RequestError(f"--workers {args.workers}: at least one is needed")


@contextlib.contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkError(f"cannot write to {out} ({error}); what is finished is kept") from error
