"""Captured files: whether their text has stamps."""

from collections import Counter

import pytest

from recorder.sources.replay import has_stamps
from recorder.strace.syscalls import SyscallDecoder

CALL = b'read(4, "\\x01", 1) = 1\n'
WHO = (b"", b"[pid 7] ", b"[pid  812]  ", b"[pid 7<ess main>] ", b"7 ", b"812   ", b"7<ess>  ")
WHEN = (
    b"",
    b"1795331980.123456 ",
    b"  1795331980.123456 ",
    b"1795331980.123456789 ",
    b"1795331980.123456 (+     0.000020) ",
    b"     0.000020 ",
    b"99999999.999999 ",
    b"11:59:58 ",
    b"11:59:58.123456 ",
)


def has_stamps_by_the_grammar(text: bytes) -> bool:
    """Whether the decoder gives the time of any call."""
    return any(transfer.stamped_at_ns is not None for transfer in SyscallDecoder(Counter()).feed(text))


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("when", WHEN)
def test_stamps_are_seen_wherever_they_are_decoded(who: bytes, when: bytes) -> None:
    """Text has stamps just where the decoder finds a time, whatever strace writes in front of it."""
    line = who + when + CALL
    assert SyscallDecoder(Counter()).feed(line)
    assert has_stamps(b"strace: Process 7 attached\n" + line) == has_stamps_by_the_grammar(line)
