"""The fused layout, which `toynn.train` uses: one weight for each projection, computed by the shim's own kernels."""
