"""The per_head layout, as in the Ruby project toy: one weight and one attention per head, on ggml's operators."""
