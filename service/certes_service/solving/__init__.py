"""Solver processes: what computes runs apart, within limits of time and memory, without keys or database."""
