"""Light heads on cached features."""
