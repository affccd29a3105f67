"""Installation and repair: what only administrators run."""
