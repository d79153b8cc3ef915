"""Text from cloud providers and compatible servers, one adapter a protocol."""
