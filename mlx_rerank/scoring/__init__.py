"""One call: from pairs to logits to scores, in the order the caller gave."""
