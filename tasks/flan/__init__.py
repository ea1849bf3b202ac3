"""FLAN 2021 and the Flan Collection."""
