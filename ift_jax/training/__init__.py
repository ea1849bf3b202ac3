"""The train step, the state it updates, and the loop around it."""
