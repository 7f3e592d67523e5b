"""toynn beside PyTorch: the same training step, in one run. `make bench`, or `python -m benchmarks --help`."""
