"""How files are written and read so that none is ever half there: durable files, tensor files, checkpoints."""
