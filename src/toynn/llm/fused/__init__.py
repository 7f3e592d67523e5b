"""The layout to train with: one weight for each projection, on the shim's own kernels."""
