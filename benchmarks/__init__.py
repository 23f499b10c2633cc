"""Benchmarks: one file a question, `python -m benchmarks.<question> [--json]`.

Variants of one question take turns in one run; what counts is the ratio to the reference of the
same round, as a median over the rounds, because machines are noisy and two runs are never the same.
"""
