"""What a run would be on a machine that is not here, by its compiler."""
