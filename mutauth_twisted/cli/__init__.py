"""The ``mutauth`` command: one file a sub-command."""
