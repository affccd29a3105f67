"""The whole protocol without I/O, from the first token to the end of stream."""
