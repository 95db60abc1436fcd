"""From (query, document) texts to padded batches of token ids, and back to characters; no MLX here."""
