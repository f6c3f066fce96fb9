"""How fast the pipeline is, each figure beside its reference: python -m benchmarks."""
