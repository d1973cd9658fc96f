"""What the gateway reads by itself."""
