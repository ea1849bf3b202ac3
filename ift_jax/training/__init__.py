"""Loss, optimizer, state, step and the loop."""
