"""The HTTP transport, TLS contexts and the retry policy of every client."""
