"""Executor side: plain Python over plain batches; torch is imported inside functions only."""
