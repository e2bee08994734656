"""Training objectives. Each is a Lightning module on a separator network, a query encoder or both."""
