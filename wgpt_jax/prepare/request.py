"""What ``prepare_audio`` is asked for: its flags, and the source and conversion that they mean."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wgpt_jax.audio.mel import MelConfig
from wgpt_jax.errors import RequestError
from wgpt_jax.mel_sources import CENTRED, LATENT, ORIGINAL
from wgpt_jax.prepare.convert import Conversion
from wgpt_jax.prepare.sources.opening import TFDS_PREFIX, Source, open_source
from wgpt_jax.prepare.splits import FILE, Splitting
from wgpt_jax.prepare.storage import has_scheme

if TYPE_CHECKING:
    from wgpt_jax.prepare.encodec import Codec

_CODEBOOKS = 8  # stored if the flag does not say
_GPU_BATCH = 16  # documents encoded together on a GPU if the flag does not say


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class PrepareArgs:
    """Prepares audio for training: aligned log-mel slices and ENCODEC tokens in ArrayRecord shards.

    The same command again makes only what is missing: after an interruption, a lost shard, new or repaired files.
    index.json lists every input with its fate. Documents keep their split when others are added, copies of the same
    audio are left out, and the documents of a split are stored in random order. Shards hold half an hour of audio,
    about 20 MB per mel source, as long as that makes 64 to 1024 of them; a smaller data set has shorter ones, of a
    minute at least.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """A folder, searched through (wav, flac, ogg, opus, mp3, ...; m4a and video where there is an ffmpeg program); a
    manifest (.jsonl: per line path, and if wanted name, start, end, split, domain, speaker, any metadata); or
    tfds:NAME[/CONFIG][:VERSION]."""
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """Folder for the shards and their index."""
    codec: Annotated[str, tyro.conf.arg(metavar="NAME_OR_DIR")] = "facebook/encodec_24khz"
    """ENCODEC: a name on the hub, a folder, or "bundled" for the small one in the package."""
    allow_noncausal: bool = False
    """Accept a codec whose tokens contain the future (32 and 48 kHz ENCODECs); the data is flagged."""
    num_codebooks: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Codebooks to store per frame; 8 by default, or all the codec has if it has fewer."""
    mel_sources: Annotated[str, tyro.conf.arg(metavar="NAME[,NAME...]")] = ORIGINAL
    """Mels to store, each of every frame: original, and codecN, that of the codec's decode from the first N codebooks,
    which is what a model hears of its own tokens when it generates. Training mixes them (--data.mel-mix). For
    experiments: latent (the codec's, before quantisation), and centred, which looks ahead: a leak, to measure one."""
    channel: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Channel to take, counted from 0; the mean of all by default."""
    split_by: Annotated[str, tyro.conf.arg(metavar="file|speaker|COLUMN")] = FILE
    """What is kept whole in one split: a file, a speaker (of a folder, the first folder below IN), or what a column of
    the manifest or a feature of the TFDS data set says."""
    domains: bool = False
    """The first folder below IN names the domain (speech, music); the speaker is the folder below it."""
    resplit: bool = False
    """Draw splits anew where a manifest or TFDS gives them."""
    validation: float = 0.05
    """Fraction of files or speakers for validation, where no split is given."""
    test: float = 0.05
    """Fraction of files or speakers for test, where no split is given."""
    seed: int = 0
    """Seed of the splits and of the order."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where TFDS keeps its data sets; TFDS_DATA_DIR or ~/tensorflow_datasets by default."""
    tfds_splits: Annotated[str | None, tyro.conf.arg(metavar="NAME[,NAME...]")] = None
    """Splits of the TFDS data set to take; all by default."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:0,cuda:1,...")] = "auto"
    """Where tokens are computed: one worker process per GPU; auto takes all GPUs there are, else the CPU."""
    batch: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Documents encoded together, alike in length; 1 by default on a CPU, where it gains little, 16 on a GPU."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Processes; one per core by default, or per GPU. The shards do not depend on it."""
    runner: Literal["local", "beam"] = "local"
    """Processes of this machine, or an Apache Beam pipeline. Beam's own options stand at the end, after a lone --:
    prepare_audio IN OUT --runner beam -- --runner DataflowRunner --project P. The shards do not depend on it."""
    strict: bool = False
    """Exit with 1 if any input could not be used."""
    verify_tokens: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """When done, encode N documents again, each by itself, on the CPU, and print how many tokens agree."""
    mel: MelConfig = dataclasses.field(default_factory=MelConfig)
    """The mel slice."""

    def to_json(self) -> dict[str, Any]:
        """The flags as JSON values that :meth:`from_json` takes, paths made absolute."""
        fields = dataclasses.asdict(self)
        fields |= {"source": _absolute_source(self.source), "data_dir": self.data_dir and str(self.data_dir.resolve())}
        if Path(self.codec).is_dir():
            fields["codec"] = str(Path(self.codec).resolve())
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "PrepareArgs":
        """The flags again.

        Raises:
            TypeError, KeyError: if the fields are not those of this version.
        """
        data_dir = fields["data_dir"] and Path(fields["data_dir"])
        return cls(**fields | {"data_dir": data_dir, "mel": MelConfig(**fields["mel"])})


def source_of(args: PrepareArgs) -> Source:
    """The source that the flags mean; RequestError if there is none."""
    return open_source(
        args.source,
        domains=args.domains,
        resplit=args.resplit,
        data_dir=args.data_dir,
        tfds_splits=None if args.tfds_splits is None else [name.strip() for name in args.tfds_splits.split(",")],
    )


def splitting_of(args: PrepareArgs) -> Splitting:
    """How items are divided."""
    return Splitting(args.split_by, args.validation, args.test, args.seed)


def conversion_of(args: PrepareArgs, codec: "Codec", devices: tuple[str, ...]) -> Conversion:
    """What the arrays are; RequestError if the codec cannot give it."""
    codebooks = min(_CODEBOOKS, codec.codebooks) if args.num_codebooks is None else args.num_codebooks
    if not 1 <= codebooks <= codec.codebooks:
        raise RequestError(f"--num-codebooks {codebooks}: codec {codec.name} has 1 to {codec.codebooks}")
    if args.mel.n_fft < codec.clock.hop:
        raise RequestError(f"--mel.n-fft {args.mel.n_fft} is shorter than a frame of {codec.clock.hop} samples")
    return Conversion(
        codec=args.codec,
        codec_fingerprint=codec.fingerprint,
        clock=codec.clock,
        allow_noncausal=args.allow_noncausal,
        codebooks=codebooks,
        mel=args.mel,
        mel_sources=_mel_sources(args.mel_sources, codec, codebooks, args.mel),
        channel=args.channel,
        devices=devices,
        batch=args.batch or (1 if devices == ("cpu",) else _GPU_BATCH),
    )


def options_of(args: PrepareArgs, source: Source, conversion: Conversion) -> dict[str, Any]:
    """What must be the same whenever the data set is worked on, by the names of the flags."""
    return {
        "source": _absolute_source(args.source),
        "root": source.root,
        **dataclasses.asdict(splitting_of(args)),
        "domains": args.domains,
        "resplit": args.resplit,
        "tfds_splits": args.tfds_splits,
        "channel": args.channel,
        "codec_fingerprint": conversion.codec_fingerprint,
        "num_codebooks": conversion.codebooks,
        "mel_sources": ",".join(conversion.mel_sources),
        **{f"mel.{key}": value for key, value in dataclasses.asdict(conversion.mel).items()},
    }


def check_flags(args: PrepareArgs) -> None:
    """Refuses values that no flag can have, before anything is loaded."""
    for name in ("validation", "test"):
        if not 0 <= getattr(args, name) < 1:
            raise RequestError(f"--{name} {getattr(args, name)} is not a fraction between 0 and 1")
    if args.validation + args.test >= 1:
        raise RequestError(f"--validation {args.validation} and --test {args.test} leave nothing to train on")
    for name in ("workers", "batch"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise RequestError(f"--{name} {getattr(args, name)}: at least one is needed")
    if args.verify_tokens < 0:
        raise RequestError(f"--verify-tokens {args.verify_tokens} is not a number of documents")
    if args.channel is not None and args.channel < 0:
        raise RequestError(f"--channel {args.channel}: channels are counted from 0")


def devices_of(flag: str) -> tuple[str, ...]:
    """The torch devices that ``--device`` means.

    Raises:
        RequestError: if it is no device, or there is none of that kind here.
    """
    import torch

    count = torch.cuda.device_count()
    if flag in ("auto", "cuda") and count:
        return tuple(f"cuda:{number}" for number in range(count))
    if flag in ("auto", "cpu"):
        return ("cpu",)
    devices = tuple(name.strip() for name in flag.split(","))
    possible = ["auto", "cpu", *(f"cuda:{number}" for number in range(count))]
    for device in devices:
        if device not in possible[2:]:
            raise RequestError(f"--device {flag}: torch sees no {device} here; there is {', '.join(possible)}")
    return devices


def _mel_sources(flag: str, codec: "Codec", codebooks: int, mel: MelConfig) -> tuple[str, ...]:
    names = tuple(name.strip() for name in flag.split(","))
    possible = [ORIGINAL, LATENT, CENTRED, *(f"codec{n}" for n in range(1, codebooks + 1))]
    channels = codec.model.config.hidden_size
    for name in names:
        if name != ORIGINAL and not codec.causal:
            raise RequestError(
                f"--mel-sources {name}: codec {codec.name} is not causal, what it makes of the audio would show each "
                f"slice what comes after it; only {ORIGINAL} can be stored"
            )
        if name == LATENT and channels > mel.bands:
            raise RequestError(
                f"--mel-sources {name}: the latents of codec {codec.name} have {channels} channels, more than the "
                f"{mel.bands} bands that a slice has; give --mel.bands {channels}"
            )
        if name not in possible:
            raise RequestError(f"--mel-sources: {name!r} is none of {', '.join(possible)}")
        if names.count(name) > 1:
            raise RequestError(f"--mel-sources names {name} twice; name each source once")
    return names


def _absolute_source(source: str) -> str:
    if source.startswith(TFDS_PREFIX) or has_scheme(source):
        return source
    return Path(source).resolve().as_posix()
