"""What an agent and a director tell each other: messages, frames, keys, and the agent's sockets."""
