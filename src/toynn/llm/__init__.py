"""Models of the llama family: engines and recipes, over two layouts of the weights (`per_head` and `fused`).

The layers of the reference are archs, blocks and primitives; they build with the code of the per_head layout.
"""
