"""The per_head layout, as in the reference: one weight and one attention for each head, on ggml's operators."""
