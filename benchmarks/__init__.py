"""Compare the speed and memory of toynn, PyTorch and PEFT: `make bench` and `make bench-adapters`."""
