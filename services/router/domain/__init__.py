"""What the router decides: who answers, what it may cost, what it did cost. No grpc servers, no JSON."""
