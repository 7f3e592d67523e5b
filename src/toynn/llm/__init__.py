"""The llama family, in layers: primitives (graph functions), blocks, archs, engine, recipes."""
