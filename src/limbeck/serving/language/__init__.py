"""Language models behind OpenAI's protocol: an engine in a process of its own, and our door in front of it."""
