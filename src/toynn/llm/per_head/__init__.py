"""The layout of the reference: one weight and one attention for each head, on ggml's own operators."""
