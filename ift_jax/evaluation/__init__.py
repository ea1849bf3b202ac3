"""Answers to prompts and unseen examples, and their scores."""
