"""Who a client is: tokens, JWTs, the password, and keeping all three out of logs."""
