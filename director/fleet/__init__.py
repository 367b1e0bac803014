"""The director over many agents: their sockets, the store of what they send, their sessions."""
