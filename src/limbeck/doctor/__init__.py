"""What is wrong with a recipe before it has cost anything, and with a run after: findings, each with its cure."""
