"""The local HTTP servers of `toynn serve` and `toynn watch`. They need starlette and uvicorn (extra toynn[serve])."""
