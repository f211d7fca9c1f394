"""What to do after an attempt, as pure functions: no loop, no clock, no sleeping; randomness comes in as an argument."""
