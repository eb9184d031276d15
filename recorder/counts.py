"""The names under which the stages count what they saw and what they dropped.

Takes nothing, gives names and their meaning. One `Counter[str]` is shared by the stages of a
stream; `decode` prints it and the `recorder` measurement carries it.
"""

from typing import Final

MEANINGS: Final[dict[str, str]] = {
    "lines": "lines of text received",
    "notices": "strace's own lines: attached, exited, signals, errors",
    "other_calls": "calls other than read and write",
    "failed_calls": "reads and writes that moved no byte",
    "unrecognised_lines": "lines that are not strace's",
    "overlong_lines": "lines dropped for their length",
    "torn_lines": "half a line at the end of a stream",
    "unmatched_halves": "unfinished or resumed halves of a call whose other half never came",
    "cut_strings": "data cut by strace's -s: run it with -s 1024",
    "frames": "answers with right length, byte count and CRC",
    "requests": "requests with a right CRC",
    "unanswered": "requests with no byte of an answer",
    "incomplete_answers": "requests whose answer never became whole",
    "crc_errors": "answers of full length with a wrong CRC",
    "exceptions": "requests that the device refused",
    "ambiguous_answers": "responses withheld because they may belong to another request, for any reason",
    "withheld_at_start": "of them: nothing had yet shown that the bus was in sync",
    "withheld_after_failure": "of them: the response to a request alike was missing, and may have come late",
    "withheld_out_of_sync": "of them: bytes had come that no request explains",
    "withheld_unreadable": "of them: part of the stream could not be read",
    "withheld_undecidable": "of them: no request of the bus has a response that cannot be another's",
    "other_functions": "exchanges of functions other than 3 and 4",
    "resyncs": "times that stray bytes stood before a frame",
    "stray_bytes": "bytes that belong to no frame",
    "dropped_buses": "buses forgotten because a stream named too many",
    "unknown_registers": "answers to requests that no profile describes",
    "invalid_samples": "answers that the profile's validity rule rejects",
    "implausible_values": "values outside the profile's range",
    "unavailable_values": "values that the device marks as not available",
    "withheld_counters": "counter readings that no power within the profile's range explains",
    "lost_samples": "samples that the device counted and the stream did not bring",
    "duplicate_samples": "samples that another stream of the site had brought",
    "clock_steps": "times that the offset of the controller's clock changed",
    "points": "points made",
}
