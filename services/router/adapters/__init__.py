"""What the router's domain needs from outside: the services that really answer."""
