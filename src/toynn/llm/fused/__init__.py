"""The fused layout, the one to train with: one weight for each projection, computed by the shim's own kernels."""
