"""The command line `toynn`. Each command has its own file, which is imported only when the command is called.

This package needs the extra toynn[cli].
"""

from toynn.cli.start import main

__all__ = ["main"]
