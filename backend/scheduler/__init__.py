"""Which tokens are computed when: request queue, slots, admission, and the loop that turns messages into batches."""
