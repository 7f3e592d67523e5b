"""Low-rank adapters: small trained matrices beside the frozen weights of a base."""
