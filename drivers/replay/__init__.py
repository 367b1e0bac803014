"""A recorded trace, played as a device."""
