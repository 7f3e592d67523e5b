"""Files that are complete or absent after any failure: durable files, tensor files, versioned JSON, checkpoints."""
