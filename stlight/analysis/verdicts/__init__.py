"""From claims to verdicts: the comparisons that a claim asks for, and the rule that judges them."""
