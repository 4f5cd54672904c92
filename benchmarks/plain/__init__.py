"""The straightforward formulations that benchmarks and tests compare with."""
