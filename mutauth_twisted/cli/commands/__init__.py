"""Sub-commands of ``mutauth``, one file each.

A file holds the command under its own name, and the first line of its docstring is the command's
line in ``mutauth --help``.  It is imported when the command is used.
"""
