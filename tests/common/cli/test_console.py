from __future__ import annotations

import os
import signal
import sys
import threading
import time

from common.cli.console import log


def test_a_signal_that_prints_while_a_line_is_being_printed_loses_neither_line(monkeypatch):
    """As Ctrl-C does where the terminal is slow, or where a program reads the log and reacts at once."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    while True:  # then the next line waits until somebody reads
        try:
            filled += os.write(writer, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    read = bytearray()

    def interrupt_and_read() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.3)
        while chunk := os.read(reader, 4096):
            read.extend(chunk)

    previous = signal.signal(signal.SIGUSR1, lambda *_: log("stopping"))
    thread = threading.Thread(target=interrupt_and_read)
    try:
        with open(writer, "w", buffering=1) as pipe, monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", pipe)
            thread.start()
            log("step 1")
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
        os.close(reader)
    lines = read[filled:].decode().splitlines()
    assert sorted(line.split("] ")[1] for line in lines) == ["step 1", "stopping"]
