"""Real programs that nobody of this project wrote, against ``twistd mutauth`` and ``mutauth
connect``: ``make interop``.
"""
