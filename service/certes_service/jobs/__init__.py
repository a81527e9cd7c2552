"""Questions that become jobs: durable, handed over when a worker dies, cancelled, watched."""
