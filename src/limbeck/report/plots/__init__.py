"""The report's figures, a function each; None where the facts are not enough for one."""
