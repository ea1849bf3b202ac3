"""The quickstart: generated instruction tasks."""
