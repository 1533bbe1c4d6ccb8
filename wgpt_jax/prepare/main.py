"""``prepare_audio IN OUT``: from any audio to shards of aligned tokens and mel, codec, index, and n-grams."""

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from wgpt_jax import folder_lock
from wgpt_jax.audio.codec_file import CODEC_NAME, save_codec_decoder
from wgpt_jax.command import run_command
from wgpt_jax.errors import RequestError, WorkError
from wgpt_jax.prepare.codec import cached_codec
from wgpt_jax.prepare.engines import beam
from wgpt_jax.prepare.inspection import Inspector, Ledger
from wgpt_jax.prepare.plan import LOCK_NAME, load_plan
from wgpt_jax.prepare.request import (
    PrepareArgs,
    check_flags,
    conversion_of,
    devices_of,
    options_of,
    source_of,
    splitting_of,
)
from wgpt_jax.prepare.shards import ShardMaker
from wgpt_jax.prepare.stages import Workforce, extend_plan, finished_shards, inspect_items, make_missing
from wgpt_jax.prepare.storage import LocalStorage, Storage, open_storage
from wgpt_jax.prepare.summary import describe, describe_failures, fates, write_index
from wgpt_jax.processor import available_cores


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code; Beam's options stand behind a lone ``--``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    end = argv.index("--") if "--" in argv else len(argv)
    work = functools.partial(prepare, beam_options=argv[end + 1 :])
    return run_command(work, PrepareArgs, argv[:end], prog="prepare_audio")


def prepare(args: PrepareArgs, beam_options: Sequence[str] = (), *, check_all: bool = False) -> None:
    """Prepares ``args.source`` into ``args.out`` and prints a summary.

    Args:
        args: the flags.
        beam_options: of the pipeline, where Beam runs it.
        check_all: hash all finished shards, not only those that look changed, to make the damaged ones anew.

    Raises:
        RequestError: no audio, no codec, options that do not fit what is in OUT, or OUT is being worked on.
        WorkError: if no input could be used (with ``args.strict``: not all), or the work broke off; what is finished is
            kept.
    """
    check_flags(args)
    if beam_options and args.runner != "beam":
        raise RequestError(f"{' '.join(beam_options)} are options of Beam; they go with --runner beam")
    if args.runner == "beam":
        beam.check_options(beam_options)
    storage = open_storage(args.out, beam=args.runner == "beam")
    source = source_of(args)
    items = source.items()
    if not items:
        raise RequestError(f"no audio in {args.source}; see --help for what is read")
    codec = cached_codec(args.codec, args.allow_noncausal)
    conversion = conversion_of(args, codec, devices_of(args.device))
    splitting, options = splitting_of(args), options_of(args, source, conversion)
    workforce = _workforce(args, conversion.devices, storage, beam_options)

    with _held(storage), _writing_to(args.out):
        plan = load_plan(storage, options, args.to_json())
        storage.clear_scratch()
        inspector = Inspector(source, conversion.clock, args.channel)
        inspected = inspect_items(items, inspector, Ledger(storage), workforce)
        reports = finished_shards(plan, storage, hashed=check_all)
        extension = extend_plan(plan, inspected, reports, splitting)
        plan.save(storage)
        maker = ShardMaker(source, storage, conversion, codec.codebook_size)
        made = make_missing(plan, reports, inspected, maker, workforce)
        if codec.causal:
            from wgpt_jax.prepare.export import export_decoder  # here: it imports torch

            with storage.scratch(CODEC_NAME) as scratch:
                save_codec_decoder(export_decoder(codec, conversion.codebooks), scratch)
                storage.publish(scratch, CODEC_NAME)
        inputs = fates(made, inspected, extension.duplicates)
        index = write_index(storage, made, inputs, codec.info, conversion, options)
    if not index.shards:
        raise WorkError("\n".join(["no input could be used", *describe_failures(inputs)]))
    print(describe(index, inputs, extension.changed, args.out))
    if args.verify_tokens:
        from wgpt_jax.prepare.agreement import describe_agreement, token_agreement  # here: it imports torch

        print(describe_agreement(token_agreement(made, storage, source, conversion, args.verify_tokens)))
    if args.strict and index.failed:
        raise WorkError(f"--strict: {len(index.failed):,} inputs could not be used; the others are prepared")


def _workforce(args: PrepareArgs, devices: Sequence[str], storage: Storage, beam_options: Sequence[str]) -> Workforce:
    workers = args.workers or available_cores()
    encoders = args.workers or (workers if devices == ("cpu",) else len(devices))
    if args.runner != "beam":
        return Workforce(workers, encoders)
    return Workforce(workers, encoders, functools.partial(beam.run_tasks, storage=storage, options=beam_options))


@contextlib.contextmanager
def _held(storage: Storage) -> Iterator[None]:
    """Holds a data set's lock; one that is elsewhere has none."""
    with contextlib.ExitStack() as stack:
        if isinstance(storage, LocalStorage):
            stack.enter_context(folder_lock.locked(Path(storage.root), LOCK_NAME, "data folder", "prepares into"))
        yield


@contextlib.contextmanager
def _writing_to(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkError(f"cannot write to {out} ({error}); what is finished is kept") from error
