"""What other servers and clusters need to run a model: repositories and manifests."""
