"""Every option once, and the front-ends that are built from them."""
