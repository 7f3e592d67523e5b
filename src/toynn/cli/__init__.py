"""The command line, `toynn`: one file for each command, imported when the command is called.

It needs the extra toynn[cli].
"""

from toynn.cli.start import main

__all__ = ["main"]
