"""Compare the speed and memory of toynn and PyTorch: `make bench`, or `python -m benchmarks --help`."""
