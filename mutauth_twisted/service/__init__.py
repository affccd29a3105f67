"""The service of ``twistd mutauth``."""
