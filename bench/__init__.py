"""Side by side with peers and with bare parts: one command each, JSON in bench/results, a table on the screen."""
