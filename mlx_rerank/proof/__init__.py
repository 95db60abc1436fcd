"""Proof that scores are right: against PyTorch, against published logits, and in one dtype throughout."""
