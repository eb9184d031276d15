"""A simulated home: its plant, the Modbus traffic inside it, and the strace text of that traffic.

Takes a seed and a time, gives what a real controller would send, and the truth about it. Never reads a
clock and never draws a random number that the seed does not determine.
"""
