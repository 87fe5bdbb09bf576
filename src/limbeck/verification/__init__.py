"""Which of a model's answers are true, and which are worth learning from."""
