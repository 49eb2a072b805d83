"""The wire: messages, envelope, codecs, close codes, errors, principals and the bot interfaces. Pure and synchronous."""
