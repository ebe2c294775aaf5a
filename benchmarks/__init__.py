"""Measurements of threadlets beside what people use now: ``python -m benchmarks``."""
