"""Models of the llama family: engines and recipes for two layouts of the weights, `per_head` and `fused`.

The modules archs, blocks and primitives have the names of modules of the Ruby project toy. They use the code of the
per_head layout.
"""
