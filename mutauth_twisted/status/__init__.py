"""The state of a process and its services, for people, probes and Prometheus."""
