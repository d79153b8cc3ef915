"""The edge: Envoy's configuration and its error script, rendered for chosen ports."""
