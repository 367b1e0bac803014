"""The agent as a service: what it samples for a director, and how that gets there."""
