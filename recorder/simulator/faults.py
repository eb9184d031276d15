"""Faults on purpose: what goes wrong on real buses, in real controllers and in text on its way.

Takes polls and lines, gives them damaged, each fault by its own rate and counted by its name. Never
damages anything that it does not mark, so that a test knows what must still arrive.
"""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from recorder.modbus.frames import exception_response, read_response
from recorder.simulator.polls import PCS, Device, Poll
from recorder.simulator.registers import READ_HOLDING_REGISTERS
from recorder.simulator.strace_text import NO_POLL, NO_PROCESS, Call, Line, Remark


class Fault(NamedTuple):
    """A kind of fault: its rate in `some` and in `all`, what the rate counts, and what it does."""

    some: float
    all: float
    per: str
    description: str


FAULTS: Final[dict[str, Fault]] = {
    "crc": Fault(0.002, 0.02, "answer", "one byte of the answer is flipped"),
    "unanswered": Fault(0.003, 0.02, "request", "no byte of an answer comes"),
    "exception": Fault(0.0, 0.01, "request", "the device refuses"),
    "stale": Fault(
        0.001, 0.01, "PCS request", "bytes of the last answer come in short reads for some requests"
    ),
    "implausible": Fault(0.0, 0.01, "PCS answer", "a state of charge of 400 % under a right CRC"),
    "cut": Fault(0.0, 0.01, "answer", "a read is cut by strace's -s"),
    "lost": Fault(0.0, 0.01, "answer", "one line of text is missing"),
    "torn": Fault(0.0, 0.003, "second", "half a line, then a new connection"),
    "garbage": Fault(0.0, 0.01, "second", "a line that strace did not write"),
    "eagain": Fault(0.05, 0.1, "second", "a read that finds nothing: EAGAIN"),
    "foreign": Fault(0.05, 0.2, "second", "traffic on other descriptors, and signals"),
    "restart": Fault(0.0, 0.0005, "second", "a process ends and starts again under a new pid"),
}

IMPLAUSIBLE_SOC_RAW: Final = 45 + 4 * 905
_SOC_AT_BYTE: Final = 26 * 4
# Stands for the number of a poll on a line that strace did not write.
GARBAGE: Final = -2
_ON_POLLS: Final = ("crc", "unanswered", "exception", "implausible", "cut", "lost")
_ONLY_PCS: Final = frozenset({"stale", "implausible"})
# No value may come of these: the answer never was, or is not whole.
DEADLY: Final = frozenset({"crc", "unanswered", "exception", "stale"})


@dataclass(frozen=True, slots=True)
class FaultRates:
    """How often each fault strikes, from 0 to 1; a fault that is not named never does."""

    rates: dict[str, float] = field(default_factory=dict)

    def rate(self, name: str) -> float:
        """Give the rate of the fault called `name`."""
        return self.rates.get(name, 0.0)


def parse_faults(text: str) -> FaultRates:
    """Read `none`, `some`, `all`, or a list such as `crc=0.01,unanswered=0.005`.

    Raises:
        ValueError: a name or a rate is not allowed; the message says what is.
    """
    if text in {"none", ""}:
        return FaultRates()
    if text in {"some", "all"}:
        return FaultRates(
            {name: fault.some if text == "some" else fault.all for name, fault in FAULTS.items()}
        )
    rates = {}
    for item in text.split(","):
        name, _, number = item.strip().partition("=")
        if name not in FAULTS:
            raise ValueError(f"no fault {name!r}: use none, some, all, or NAME=RATE of {', '.join(FAULTS)}")
        try:
            rates[name] = float(number)
        except ValueError:
            rates[name] = -1.0
        if not 0 <= rates[name] <= 1:
            raise ValueError(f"fault {name!r} needs a rate from 0 to 1, such as {name}=0.01, not {number!r}")
    return FaultRates(rates)


class FaultInjector:
    """Damages the polls and the text of one site.

    Args:
        rates: how often.
        random: what decides when.
    """

    def __init__(self, rates: FaultRates, random: Random) -> None:
        self.counts: Counter[str] = Counter()
        self._rates = rates
        self._random = random
        self._stale: list[bytes] = []
        self._last_pcs_answer = b""
        self._out_of_step: set[Device] = set()

    def strikes(self, name: str) -> bool:
        """Decide whether the fault called `name` strikes now, and count it if so."""
        rate = self._rates.rate(name)
        if rate == 0 or self._random.random() >= rate:
            return False
        self.counts[name] += 1
        return True

    def damage_polls(self, polls: list[Poll]) -> list[Poll]:
        """Give the polls of a second with at most one fault each, its name in `fault`."""
        if not self._rates.rates:
            return polls
        return [poll if poll.fault else self._damaged(poll) for poll in polls]

    def _damaged(self, poll: Poll) -> Poll:
        on_pcs = poll.device == PCS
        if on_pcs:
            before, self._last_pcs_answer = self._last_pcs_answer, poll.response
            if not self._stale and before and self.strikes("stale"):
                start = self._random.randrange(3, len(before) - 30)
                self._stale = [
                    before[start + 5 * n : start + 5 * n + 5] for n in range(self._random.randint(2, 5))
                ]
            if self._stale:
                return poll._replace(response=self._stale.pop(0), fault="stale")
        in_step = poll.device not in self._out_of_step
        self._out_of_step.discard(poll.device)
        for name in _ON_POLLS:
            # An unanswered request, then one whose line is lost: nobody could tell whose the answer is.
            allowed = (on_pcs or name not in _ONLY_PCS) and (in_step or name != "lost")
            if allowed and self.strikes(name):
                self._out_of_step.add(poll.device)
                return poll._replace(response=self._answer(name, poll), fault=name)
        return poll

    def _answer(self, name: str, poll: Poll) -> bytes:
        if name == "unanswered":
            return b""
        if name == "exception":
            return exception_response(poll.request[0], READ_HOLDING_REGISTERS, self._random.choice((2, 4, 6)))
        answer = bytearray(poll.response)
        if name == "crc":
            answer[self._random.randrange(len(answer))] ^= self._random.randrange(1, 256)
        if name == "implausible":
            answer[3 + _SOC_AT_BYTE : 7 + _SOC_AT_BYTE] = IMPLAUSIBLE_SOC_RAW.to_bytes(4)
            return read_response(answer[0], READ_HOLDING_REGISTERS, bytes(answer[3:-2]))
        return bytes(answer)

    def cut(self, calls: list[Call]) -> list[Call]:
        """Give the calls of a poll with one read of two bytes or more cut."""
        longest = max(range(1, len(calls)), key=lambda index: len(calls[index].data))
        shown = self._random.randrange(len(calls[longest].data))
        return [call._replace(shown=shown) if index == longest else call for index, call in enumerate(calls)]

    def noise(self, polls: list[Poll]) -> list[Call | Remark]:
        """Give what comes in between in a second, and harms nothing."""
        items: list[Call | Remark] = []
        poll = self._random.choice(polls)
        process, descriptor = poll.master
        at_ns = poll.asked_at_ns + self._random.randrange(1, 40) * 1_000_000
        if self.strikes("garbage"):
            text = self._random.choice(("~~~ line noise ~~~", "nc: write failed", "", "read(", '"\\x01\\x03'))
            items.append(Remark(NO_PROCESS, at_ns, GARBAGE, text))
        if self.strikes("eagain"):
            text = f"read({descriptor}, 0x7ffe31c8, 2)".ljust(27)
            items.append(
                Remark(process, at_ns, NO_POLL, f"{text} = -1 EAGAIN (Resource temporarily unavailable)")
            )
        if self.strikes("foreign"):
            items.append(Call(process, at_ns, NO_POLL, descriptor + 3, False, bytes(8), 16, 8))
            items.append(Call(process, at_ns, NO_POLL, 1, True, b"poll done\n", 10, 10))
            items.append(
                Remark(process, at_ns, NO_POLL, "--- SIGALRM {si_signo=SIGALRM, si_code=SI_KERNEL} ---")
            )
        return items

    def damage_lines(self, lines: list[Line], polls: list[Poll]) -> tuple[list[bytes], set[int], list[int]]:
        """Lose and tear lines of a second.

        Returns:
            The lines that are left, the numbers of the polls that were harmed, and the indexes of the
            lines after whose text the connection broke.
        """
        harmed = {number for number, poll in enumerate(polls) if poll.fault in {"cut", "lost"}}
        lost = set()
        for number, poll in enumerate(polls):
            # Of two halves both would have to go, or the one left would spoil a later call.
            own = [index for index, line in enumerate(lines) if line.poll == number and not line.half]
            if poll.fault == "lost" and own:
                lost.add(self._random.choice(own))
        left = [line for index, line in enumerate(lines) if index not in lost]
        texts = [line.text for line in left]
        whole = [index for index in range(len(left) - 1) if not (left[index].half or left[index + 1].half)]
        # Beside another fault the lost end of a line could make an answer look like another's.
        torn = []
        if whole and not any(poll.fault for poll in polls) and self.strikes("torn"):
            torn = [self._random.choice(whole)]
            texts[torn[0]] = texts[torn[0]][: self._random.randrange(len(texts[torn[0]]) // 2 + 1)]
        if torn or any(line.poll == GARBAGE for line in lines):
            # After a line that it cannot read, a careful receiver trusts nothing that was under way.
            harmed |= {line.poll for line in lines}
        return texts, harmed, torn
