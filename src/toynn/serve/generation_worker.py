"""One thread that generates the replies of all requests, one after another, because the model has one context."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from toynn.api.reply_stream import ReplyStream


@dataclass(frozen=True)
class Ended:
    """The last event of a job: the reply has ended."""

    stream: ReplyStream


@dataclass(frozen=True)
class Refused:
    """The last event of a job: the request could not be started, for example because its prompt is too long."""

    error: Exception


@dataclass(frozen=True)
class Failed:
    """The last event of a job: an error occurred while the reply was generated."""

    error: BaseException


JobEvent = str | Ended | Refused | Failed


class Job:
    """One reply. The worker sends its pieces as events, and then `Ended`, `Refused` or `Failed`.

    start: checks the request and returns the reply. The worker calls it.
    loop: the event loop that receives the events.
    """

    def __init__(self, start: Callable[[], ReplyStream], loop: asyncio.AbstractEventLoop) -> None:
        self.events: asyncio.Queue[JobEvent] = asyncio.Queue()
        self._start, self._loop = start, loop
        self._stream: ReplyStream | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End the reply after the current token, or skip the job if it still waits. The worker then sends no events."""
        self._cancelled = True
        if self._stream is not None:
            self._stream.stop()

    def run(self) -> None:
        """Generate the reply. The worker calls this method in its thread."""
        if self._cancelled:
            return
        try:
            stream = self._stream = self._start()
        except Exception as error:
            self._send(Refused(error))
            return
        if self._cancelled:  # `cancel` was called before the stream was known
            return
        try:
            for piece in stream:
                self._send(piece)
            self._send(Ended(stream))
        except BaseException as error:
            self._send(Failed(error))

    def _send(self, event: JobEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed, because the server ends
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)


class GenerationWorker:
    """The thread that runs jobs, and the queue of waiting jobs.

    waiting: the largest number of jobs that wait while another job runs.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting + 1  # largest number of jobs: the waiting jobs, and the job that runs
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._n_jobs = 0
        self._thread = threading.Thread(target=self._work, name="toynn-generation", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> bool:
        """Add a job to the queue. Return False if the queue is full."""
        with self._lock:
            if self._n_jobs >= self._most:
                return False
            self._n_jobs += 1
        self._jobs.put(job)
        return True

    def close(self) -> None:
        """End the thread after the jobs in the queue.

        If all jobs were canceled before, this call takes at most the time of one token.
        """
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.run()
            finally:
                with self._lock:
                    self._n_jobs -= 1
