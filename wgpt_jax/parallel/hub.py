"""Process 0's end of every process's line: who is here, who is late, who went away, after which step all stop.

JAX's coordination service cannot say this. It answers nothing until every process has come, and where one does not come
or dies it aborts the others in C++, with a stack trace and no name. So each process, process 0 included, first opens a
TCP connection to the coordinator's port (``parallel/line.py``), where a thread of process 0 answers. Messages are JSON
objects, one per line. When all are there, the hub leaves the port to JAX and keeps the connections.
"""

import collections
import contextlib
import dataclasses
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

BEATS = 5
"""Signs of life within the silence after which a process counts as gone."""
START = "the start"
"""Name of the first wait, which ends when every process has connected."""
END = "the end"
"""Name of the last wait, after which nobody is missed."""
NOTICE = 15.0
"""Seconds of waiting at the start after which the terminal is told for whom."""


@dataclasses.dataclass(frozen=True)
class End:
    """Why a run ends on every process."""

    sentence: str
    code: int = 1
    """Exit code."""
    process: int | None = None
    """The process that failed and said so; None where something happened to a process."""


@dataclasses.dataclass
class _Peer:
    socket: socket.socket
    process: int | None = None
    rest: bytes = b""
    heard: float = dataclasses.field(default_factory=time.monotonic)

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a peer that is gone is noticed when it is read
            self.socket.sendall(json.dumps(message).encode() + b"\n")


class Hub(threading.Thread):
    """Answers the lines of all processes; a thread of process 0."""

    def __init__(self, port: int, count: int, silence: float, say: Callable[[str], None]):
        """Listens on ``port``.

        Args:
            port: the coordinator's.
            count: number of processes.
            silence: seconds without a sign of life after which a process counts as gone.
            say: told what is being waited for, if it takes long.

        Raises:
            OSError: if the port cannot be had.
        """
        super().__init__(name="hub", daemon=True)
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self.listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
        self.count, self.silence, self.say = count, silence, say
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.peers: dict[int, _Peer] = {}
        self.arrived: dict[str, dict[int, Any]] = collections.defaultdict(dict)
        self.steps: dict[int, int] | None = None
        self.listening, self.ended = True, False

    def run(self) -> None:
        """Reads what comes, for as long as the process lives."""
        notice, beat = time.monotonic() + NOTICE, 0.0
        while True:
            for key, _ in self.selector.select(self.silence / BEATS):
                if key.fileobj is self.listener:
                    self._accept()
                else:
                    self._read(key.data)
            now = time.monotonic()
            if now >= beat:
                beat = now + self.silence / BEATS
                self._broadcast({})
                for peer in [p for p in self.peers.values() if now - p.heard > self.silence]:
                    self._gone(peer, f"has not answered for {self.silence:.0f} s")
            if now >= notice and self.listening:
                notice = float("inf")
                self.say(f"waiting for {self._missing(self.peers)} of {self.count} to connect to this one")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it may have left already
            connection, _ = self.listener.accept()
            connection.settimeout(self.silence)
            self.selector.register(connection, selectors.EVENT_READ, _Peer(connection))

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(peer.socket)
            peer.socket.close()
            if peer.process is not None:
                self._gone(peer, "went away: it was killed, it crashed or its machine is lost")
            return
        peer.heard = time.monotonic()
        *lines, peer.rest = (peer.rest + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:  # a stranger: whatever it is, it does not get an answer
                continue
            if peer.process is None:
                self._welcome(peer, message)
            else:
                self._handle(peer, message)

    def _welcome(self, peer: _Peer, message: Any) -> None:
        match message:
            case {"hello": int(process), "of": count} if count != self.count:
                refusal = f"process {process} was started as one of {count}, process 0 as one of {self.count}"
            case {"hello": int(process)} if process in self.peers:
                refusal = f"two processes were started as process {process}"
            case {"hello": int(process)}:
                peer.process = process
                self.peers[process] = peer
                peer.send({"welcome": process})
                if len(self.peers) == self.count:  # JAX's service is next on this port
                    self.selector.unregister(self.listener)
                    self.listener.close()
                    self.listening = False
                return
            case _:
                return
        peer.send({"end": dataclasses.asdict(End(refusal + "; give each its own --process-id", 2))})

    def _handle(self, peer: _Peer, message: dict[str, Any]) -> None:
        match message:
            case {"at": name, "value": value}:
                self.arrived[name][peer.process] = value
                if len(self.arrived[name]) == self.count:
                    self.ended |= name == END
                    values = self.arrived.pop(name)
                    wanted = [values[i] for i in range(self.count)] if message.get("all") else values[0]
                    self._broadcast({"go": name, "value": wanted})
            case {"late": name, "seconds": seconds} if name in self.arrived:
                did = "connect" if name == START else f"reach {name}"
                late = self._missing(self.arrived[name])
                self._end(End(f"{late} of {self.count} did not {did} within {seconds} s (--timeout)"))
            case {"stop": _} if self.steps is None:
                self.steps = {}
                self._broadcast({"freeze": True})
            case {"step": step}:
                self.steps[peer.process] = step
                if len(self.steps) == self.count:
                    self._broadcast({"stop_at": max(self.steps.values())})
            case {"failed": end}:
                self._end(End(**end))

    def _missing(self, there: dict[int, Any]) -> str:
        missing = [str(i) for i in range(self.count) if i not in there]
        return ("process " if len(missing) == 1 else "processes ") + ", ".join(missing)

    def _gone(self, peer: _Peer, how: str) -> None:
        self.peers.pop(peer.process, None)
        self._end(End(f"process {peer.process} of {self.count} {how}"))

    def _end(self, end: End) -> None:
        if not self.ended:
            self.ended = True
            self._broadcast({"end": dataclasses.asdict(end)})

    def _broadcast(self, message: dict[str, Any]) -> None:
        for peer in self.peers.values():
            peer.send(message)
