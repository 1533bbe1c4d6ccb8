"""TensorBoard event files, written where they are asked for: a disk that is full is told by the call that met it.

tensorboardX's own SummaryWriter writes in a thread, which dies of a full disk unseen, and training would wait for it.
"""

import os
import time

# Only imported by a run that writes TensorBoard: it imports torch wherever torch is installed.
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class TensorBoard:
    """The event file of one process's part of a run."""

    def __init__(self, folder: str | os.PathLike, first_step: int):
        """Opens a new file in ``folder``; TensorBoard hides what earlier files say of ``first_step`` and after."""
        os.makedirs(folder, exist_ok=True)
        # A name of its own also where a run is resumed within the second that names carry.
        self._writer = EventsWriter(os.path.join(folder, "events"), f".{os.getpid()}.{first_step}")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        self.add(summary.scalar(name, value), step)

    def add(self, value: Summary, step: int) -> None:
        """Adds any summary."""
        self._write(step=step, summary=value)

    def flush(self) -> None:
        """Brings what was added onto the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def _write(self, **fields) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **fields))
