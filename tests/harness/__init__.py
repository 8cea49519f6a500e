"""The parts that the demo, the tests and the benchmarks stand on.

Everything is thrown away afterwards, listens on loopback only and on free ports, and ends with the process that
started it. Nothing here sleeps a fixed time: it waits for conditions.
"""
