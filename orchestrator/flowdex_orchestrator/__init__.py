"""What directs a flow: its YAML, the gateway, the executor host, the runner."""
