"""What can run on this machine: every runtime and tool tried in a process of its own, and what to type."""
