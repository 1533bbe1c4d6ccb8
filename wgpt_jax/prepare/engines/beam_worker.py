"""A worker process of Beam's runner on this machine: ``python -m wgpt_jax.prepare.engines.beam_worker PARENT``."""

import os
import sys
import threading
import time


def main(parent: int) -> None:
    """Works until the process that launched it has no more to do, or is gone: left alone, Beam's worker stays.

    Args:
        parent: process id of the launcher.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


if __name__ == "__main__":
    main(int(sys.argv[1]))
