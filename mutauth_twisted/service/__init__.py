"""What ``twistd mutauth`` runs."""
