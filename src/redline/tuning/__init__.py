"""All variants, verified and measured, and the one that is recommended."""
