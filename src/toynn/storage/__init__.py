"""Read and write files and folders: durable files, tensor files, JSON with versions, checkpoints.

After any failure, a file that this package writes is either complete or missing, unless a function says otherwise.
"""
